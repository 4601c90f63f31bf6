"""Responses to chat prompts by vLLM's offline engine, on a GPU or a CPU."""

import gc
import os
import re
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.common.errors import InputError
from data_prep.common.prompt_tokens import load_tokenizer, prompt_tokens
from recipes.evaluation.data_parallel import gpus_of_engines, in_processes
from recipes.evaluation.token_confidence import TOP_LOGPROBS, TokenConfidence, token_confidence

if TYPE_CHECKING:
    from vllm.outputs import CompletionOutput

TOO_LONG = "prompt_too_long"


@dataclass(frozen=True)
class Response:
    """``tokens`` counts the end-of-sequence token.

    ``finish_reason`` is ``stop``, ``length`` if cut off, or ``TOO_LONG`` of a prompt that was not answered.
    ``confidence`` is None where it is not known. ``further`` are the further answers to the same prompt.
    """

    text: str
    tokens: int
    finish_reason: str
    confidence: TokenConfidence | None = None
    further: tuple["Response", ...] = ()


@dataclass(frozen=True)
class GenerationOptions:
    """``dtype`` of ``hardware.rollout_dtype`` is that of training. ``temperature`` 0 is greedy.

    ``samples`` is the number of responses to a prompt. Each has ``further`` more answers, drawn at
    ``further_temperature``. ``data_parallel_size`` engines share the prompts, on ``tensor_parallel_size`` GPUs each.
    """

    model_name: str
    max_response_length: int = 1024
    temperature: float = 0.0
    samples: int = 1
    further: int = 0
    further_temperature: float = 0.8
    seed: int = 0
    dtype: str = "float32"
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1


def check_model(model: str) -> None:
    """Raise an ``InputError`` where ``model`` is neither a Hugging Face folder nor a hub id."""
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise InputError(f"no config.json in {model}; name a Hugging Face folder (recipes.export makes one)")
    elif not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model):
        raise InputError(f"no such model folder: {model}; name a folder, or a hub id such as Qwen/Qwen2.5-3B")


class Generator:
    """Checks a model and its tokenizer at once, and starts vLLM, which takes long, only to generate.

    Raises:
        InputError: there is no such model, or its tokenizer has no chat template.
    """

    def __init__(self, options: GenerationOptions):
        if options.samples > 1 and options.temperature == 0:
            raise InputError(f"{options.samples} greedy responses to a prompt are equal; give a temperature above 0")
        model = options.model_name
        check_model(model)
        from transformers import AutoConfig  # takes seconds to import

        self.options = options
        try:
            config = AutoConfig.from_pretrained(model).get_text_config()
            self.context_length = getattr(config, "max_position_embeddings", None)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"cannot load {model}: {reason}; check the name, the folder and the network, and log in with hf auth "
                "login where the model is gated"
            ) from error
        self.tokenizer = load_tokenizer(model)

    def __call__(self, prompts: Sequence[list[dict[str, str]]]) -> list[Response]:
        """``samples`` responses a prompt (a list of chat messages), in the order of ``prompts``.

        Prompts and responses are converted to and from tokens as verl's rollout and reward manager do it. A prompt that
        fills the model's context gets an empty response, and is counted on stderr; one that leaves less than
        ``max_response_length`` has the rest for its response.

        Raises:
            InputError: no prompt leaves room for a response.
        """
        token_ids = prompt_tokens(self.tokenizer, prompts)
        longest = max(map(len, token_ids))
        room = self.context_length or longest + self.options.max_response_length
        fitting = [ids for ids in token_ids if len(ids) < room]
        if longest >= room:
            problem = (
                f"{len(token_ids) - len(fitting)} of {len(token_ids)} prompts, of up to {longest} tokens, leave no "
                f"room for a response in the {room} tokens of {self.options.model_name}"
            )
            remedy = "take a model with a longer context, or make the prompts shorter"
            if not fitting:
                raise InputError(f"{problem}; {remedy}")
            print(f"warning: {problem}, and count as answered wrongly; {remedy}", file=sys.stderr)
        responses = iter(self._respond_together(fitting, min(room, longest + self.options.max_response_length)))
        return [
            next(responses) if len(ids) < room else Response("", 0, TOO_LONG)
            for ids in token_ids
            for _ in range(self.options.samples)
        ]

    def _respond_together(self, token_ids: list[list[int]], max_model_len: int) -> list[Response]:
        gpus = gpus_of_engines(self.options.tensor_parallel_size, self.options.data_parallel_size)
        if len(gpus) == 1:
            return self._respond(token_ids, max_model_len)
        return in_processes(partial(self._respond_as, max_model_len), token_ids, gpus)

    def _respond_as(self, max_model_len: int, number: int, token_ids: list[list[int]]) -> list[Response]:
        """What the process ``number`` does with its own copy of this: engines of one seed would share their noise."""
        self.options = replace(self.options, seed=self.options.seed + number)
        return self._respond(token_ids, max_model_len)

    def _respond(self, token_ids: list[list[int]], max_model_len: int) -> list[Response]:
        """``samples`` responses a prompt; prompt and response together have at most ``max_model_len`` tokens."""
        # Defaults that vLLM reads when it is imported: log errors only, and 1 GiB of KV cache on a CPU.
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"vllm\.")  # they are for its developers
        from vllm import LLM, SamplingParams
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            # Everything in this process: two more would take 15 s each to start, and keep a core for themselves.
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
            hardware = {"enforce_eager": True}
        else:
            hardware = {
                "gpu_memory_utilization": self.options.gpu_memory_utilization,
                "tensor_parallel_size": self.options.tensor_parallel_size,
            }
        engine = LLM(
            model=self.options.model_name,
            dtype=self.options.dtype,
            max_model_len=max_model_len,
            # Of the engine, not of each request: equal seeds share their noise, and on a CPU vLLM fails on them.
            seed=self.options.seed,
            **hardware,
        )
        each = {"max_tokens": self.options.max_response_length, "detokenize": False}
        sampling = SamplingParams(
            n=self.options.samples,
            temperature=self.options.temperature,
            logprobs=TOP_LOGPROBS,
            flat_logprobs=True,
            **each,
        )
        prompts, samplings = [{"prompt_token_ids": ids} for ids in token_ids], [sampling] * len(token_ids)
        if self.options.further:  # in the same call, so that a prompt is read once
            further = SamplingParams(n=self.options.further, temperature=self.options.further_temperature, **each)
            prompts, samplings = prompts * 2, samplings + [further] * len(token_ids)
        outputs = engine.generate(prompts, samplings)
        del engine
        gc.collect()  # frees the engine's memory: another model may follow
        answers = [[self._response(completion) for completion in output.outputs] for output in outputs]
        if self.options.further:
            answers = [
                [replace(response, further=tuple(others)) for response in responses]
                for responses, others in zip(answers[: len(token_ids)], answers[len(token_ids) :], strict=True)
            ]
        return [response for responses in answers for response in responses]

    def _response(self, completion: "CompletionOutput") -> Response:
        return Response(
            text=self.tokenizer.decode(completion.token_ids, skip_special_tokens=True),
            tokens=len(completion.token_ids),
            finish_reason=completion.finish_reason,
            confidence=token_confidence(_positions(completion)) if completion.logprobs else None,
        )


def _positions(completion: "CompletionOutput") -> list[tuple[float, list[float]]]:
    """For each token its log-probability, and those of the most probable ones, without the token itself below them."""
    flat, positions = completion.logprobs, []
    for start, end in zip(flat.start_indices, flat.end_indices, strict=True):
        # vLLM gives the token that was written first, then the most probable ones: it may be among them.
        logprobs = dict(zip(flat.token_ids[start:end], flat.logprobs[start:end], strict=True))
        top = sorted(logprobs.values(), reverse=True)[:TOP_LOGPROBS]
        positions.append((flat.logprobs[start], top))
    return positions
