"""SFT under the command-line names of the ECG recipe that came before this project, translated to Hydra overrides."""

import argparse
from collections.abc import MutableMapping

from recipes.config import override, preset_of
from recipes.pipeline.recipe import Recipe
from recipes.pipeline.settings import absolute_model

KEYS = {
    "num_epochs": "recipe.sft.epochs",
    "learning_rate": "recipe.sft.learning_rate",
    "max_seq_length": "recipe.max_length",
    "lora_r": "model.lora_rank",
    "lora_alpha": "model.lora_alpha",
}
OPTIONS = ("model_name", "batch_size", "gradient_accumulation_steps", *KEYS)


def positive(kind: type) -> type:
    """The argparse type of a number above 0."""

    def number(text: str):
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError
        return value

    number.__name__ = "whole number above 0" if kind is int else "number above 0"  # argparse names it
    return number


def add_sft_options(parser: argparse.ArgumentParser) -> None:
    """Options that are not given are the preset's."""
    group = parser.add_argument_group("options of SFT, with --sft_only; those left out are the preset's")
    whole, real = positive(int), positive(float)
    group.add_argument("--model_name", help="tiny, smollm2_135m, a hub id or a folder")
    group.add_argument("--num_epochs", type=whole, help="passes over the pairs")
    group.add_argument("--batch_size", type=whole, help="pairs a micro-batch; verl cuts an update's by their tokens")
    group.add_argument("--gradient_accumulation_steps", type=whole, help="micro-batches an update (default: 1)")
    group.add_argument("--learning_rate", type=real)
    group.add_argument("--max_seq_length", type=whole, help="in tokens, of prompt and answer together")
    group.add_argument("--lora_r", type=whole, help="rank of the adapter")
    group.add_argument("--lora_alpha", type=whole, help="scale of the adapter")


def check_sft_options(args: argparse.Namespace) -> str | None:
    """What is wrong with the options together; None if nothing is."""
    given = [f"--{name}" for name in OPTIONS if getattr(args, name) is not None]
    if given and not args.sft_only:
        return f"{given[0]} is an option of SFT; add --sft_only, or use Hydra overrides"
    if args.gradient_accumulation_steps and not args.batch_size:
        return "--gradient_accumulation_steps multiplies --batch_size; give that too"
    if args.sft_only and (wrong := [text for text in args.overrides if text.startswith("hardware=")]):
        return f"{wrong[0]} is for GRPO; use sft_hardware=cpu or sft_hardware=gpu"
    return None


def sft_overrides(args: argparse.Namespace, environ: MutableMapping[str, str], recipe: type[Recipe]) -> list[str]:
    """The overrides that the options stand for. An unset ``PRESET`` becomes the preset that is made for the model."""
    overrides = []
    if args.model_name:
        model = absolute_model(args.model_name)
        overrides.append(override("recipe.model", model))
        if not environ.get("PRESET") and (preset := preset_of(model, recipe.task.preset_folder)):
            environ["PRESET"] = preset
    if args.batch_size:
        overrides.append(f"recipe.sft.batch_size={args.batch_size * (args.gradient_accumulation_steps or 1)}")
    overrides += [f"{key}={value}" for name, key in KEYS.items() if (value := getattr(args, name)) is not None]
    if args.lora_r or args.lora_alpha:
        overrides.append("adapter=lora" if "adapter" in recipe.choices else "sft_adapter=lora")
    return overrides
