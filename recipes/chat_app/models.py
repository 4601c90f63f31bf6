"""Models to chat with: found by stage, folder or hub id, and streamed with transformers on a GPU or a CPU."""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from data_prep.common.errors import InputError
from data_prep.common.prompt_tokens import prompt_tokens
from recipes import hardware
from recipes.chat_app.token_recorder import TokenRecorder
from recipes.evaluation.generation import GenerationOptions, Generator
from recipes.evaluation.selector import load_selector
from recipes.evaluation.token_confidence import TokenConfidence
from recipes.models import EXPORT_FIGURES
from recipes.trained_models import STAGES, has_model


@dataclass(frozen=True)
class ChatOptions:
    """``temperature`` 0 is greedy."""

    max_response_length: int = 512
    temperature: float = 0.0


def find_model(name: str, output_dir: Path) -> str:
    """The folder or hub id of a stage (``base``, ``sft``, ``grpo``); any other ``name`` is returned as it is.

    Raises:
        InputError: the stage has left no model in ``output_dir``, or no record of what it started from.
    """
    if name == "base":
        return _start_model(output_dir / "models")
    if name not in STAGES:
        return name
    folder = output_dir / "models" / name
    if not has_model(folder):
        raise InputError(f"no model in {folder}; train it, or name another with --models")
    return str(folder)


def _start_model(models: Path) -> str:
    for stage in STAGES:
        file = models / stage / EXPORT_FIGURES
        if file.is_file():
            try:
                return json.loads(file.read_text())["start_model"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{file} names no start_model; export again, or name the base model's folder"
                ) from error
    raise InputError(
        f"no {EXPORT_FIGURES} in {models}/sft or /grpo names a base model; train first, or name its folder"
    )


def forbid_network(paths: list[str]) -> None:
    """Keep Hugging Face's libraries offline where every model is a folder; to call before they are imported."""
    if all(Path(path).is_dir() for path in paths):
        os.environ["HF_HUB_OFFLINE"] = "1"


class ChatModel:
    """Checks a model's folder and tokenizer at once; ``load`` reads the weights.

    ``room`` is the longest prompt in tokens, None without a limit. ``cut_off`` tells whether the last answer was cut
    off at the length limit. ``confidence`` is that of the last answer. ``selector`` is what ``evaluate --select`` has
    left in the folder.

    Raises:
        InputError: there is no such model, it has no chat template, its context has no room for an answer, or the
            selector was made for other weights.
    """

    def __init__(self, name: str, path: str, options: ChatOptions):
        checked = Generator(GenerationOptions(path))
        self.name = name
        self.path = path
        self.options = options
        self.tokenizer = checked.tokenizer
        self.room = checked.context_length and checked.context_length - options.max_response_length
        self.cut_off = False
        self.selector = load_selector(path)
        self.confidence: TokenConfidence | None = None
        if self.room is not None and self.room < 1:
            raise InputError(
                f"--max_response_length {options.max_response_length} leaves no room for a question: {name} has "
                f"{checked.context_length} tokens for both; lower it"
            )

    def load(self) -> None:
        """Read the weights, as bfloat16 onto the GPU or as float32 for the CPU, like verl's rollouts.

        Raises:
            InputError: the weights are missing or damaged, or do not fit the GPU.
        """
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, GenerationConfig
        from transformers.utils import logging

        logging.disable_progress_bar()
        logging.set_verbosity_error()
        device = "cuda" if hardware.choose(hardware.find_gpus()) == "gpu" else "cpu"
        dtype = getattr(torch, hardware.rollout_dtype())
        try:
            model = AutoModelForCausalLM.from_pretrained(self.path, dtype=dtype).to(device).eval()
        except torch.OutOfMemoryError as error:
            raise InputError(f"no room for {self.name} on the GPU; chat with fewer models, or HARDWARE=cpu") from error
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"cannot load the weights of {self.path}: {reason}; export or download again") from error
        # Nothing else of the model's own defaults (top_k, repetition_penalty): training samples without them.
        ends = model.generation_config.eos_token_id
        self._ends = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        padding = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else min(self._ends, default=0)
        model.generation_config = GenerationConfig(eos_token_id=sorted(self._ends), pad_token_id=padding)
        self._model = model

    def prompt(self, messages: list[dict[str, str]]) -> list[int]:
        """The tokens of chat messages, made as in verl's rollouts."""
        return prompt_tokens(self.tokenizer, [messages])[0]

    def stream(self, prompt: list[int]) -> Iterator[str]:
        """The text that follows the tokens ``prompt``, without special tokens, as it is generated.

        Closing the iterator, or an exception in its caller's thread, ends the generation.

        Raises:
            InputError: the memory of the GPU is full.
        """
        import torch
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            generation = pool.submit(self._generate, prompt, streamer, stop)
            try:
                for text in streamer:
                    if text:
                        yield text
            finally:
                stop.set()
        try:
            self.cut_off, self.confidence = generation.result()
        except torch.OutOfMemoryError as error:
            raise InputError(f"the GPU's memory is full; lower --max_response_length ({self.name})") from error

    def _generate(self, prompt: list[int], streamer, stop: threading.Event) -> tuple[bool, TokenConfidence]:
        """Generate into ``streamer`` until the end, the length limit or ``stop``.

        Returns whether the text was cut off, and its confidence.
        """
        import torch

        ids = torch.tensor([prompt], device=self._model.device)
        # top_k is 50 where nothing is said.
        sampling = {"do_sample": False}
        if self.options.temperature:
            sampling = {"do_sample": True, "temperature": self.options.temperature, "top_k": 0, "top_p": 1.0}
        recorder = TokenRecorder()
        try:
            output = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.options.max_response_length,
                streamer=streamer,
                stopping_criteria=[lambda ids, scores, **_: torch.full((1,), stop.is_set(), device=ids.device)],
                logits_processor=[recorder],
                **sampling,
            )[0, len(prompt) :].tolist()
        except BaseException:
            streamer.end()  # else the reader waits for ever
            raise
        cut_off = len(output) == self.options.max_response_length and output[-1] not in self._ends
        return cut_off, recorder.confidence(output)
