"""GRPO under the command-line names of the EHR-R1 recipe, translated to Hydra overrides.

``train --data_path D --model_name M --output_dir O [override...]`` trains on ``D/train.parquet`` and validates on
``D/valid.parquet``, both written by ``data_prep.ehrsql``; with ``--recipe ecg`` on ``grpo_train.parquet`` and
``grpo_valid.parquet`` of ``data_prep.ecg_expert_qa``. Overrides come last and win, e.g. ``algo=dapo``.
"""

import argparse
from pathlib import Path

from dotenv import load_dotenv

from data_prep.common.errors import InputError, run_main
from recipes import hardware
from recipes.config import override, preset_of
from recipes.launch import REPO, launch
from recipes.models import prepare
from recipes.tasks.registry import TASKS, Task, add_recipe_option


def preset_for(model: str, recipe: Task) -> str:
    """The recipe's preset made for ``model``; for a model that none names, the smallest on a CPU, its own on a GPU."""
    if preset := preset_of(model, recipe.preset_folder):
        return preset
    return "tiny" if hardware.choose(hardware.find_gpus()) == "cpu" else recipe.gpu_preset


def data_files(data_path: Path, recipe: Task) -> tuple[Path, Path]:
    """The train and validation files in or beside ``data_path``, absolute.

    Raises:
        InputError: one of them does not exist.
    """
    train = data_path / recipe.train_file if data_path.is_dir() else data_path
    valid = train.with_name(recipe.valid_file)
    for path in (train, valid):
        if path.suffix != ".parquet" or not path.is_file():
            raise InputError(f"no such parquet file: {path}; --data_path is a folder written by {recipe.data_program}")
    return train.absolute(), valid.absolute()


def overrides_for(args: argparse.Namespace) -> list[str]:
    """The Hydra overrides that ``args`` stand for, the user's own last."""
    for name in ("num_epochs", "batch_size", "learning_rate"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name} is {value}; give a number above 0")
    recipe = TASKS[args.recipe]
    preset = args.preset or preset_for(args.model_name, recipe)
    train, valid = data_files(args.data_path, recipe)
    output_dir = args.output_dir.absolute()
    start = prepare(args.model_name, output_dir / "start_model", [train], recipe=args.recipe)
    overrides = [
        f"preset={recipe.preset_folder}{preset.removeprefix(recipe.preset_folder)}",
        override("data.train_files", train),
        override("data.val_files", valid),
        override("actor_rollout_ref.model.path", start),
        override("trainer.default_local_dir", output_dir),
    ]
    if args.num_epochs is not None:
        overrides += [f"recipe.grpo.epochs={args.num_epochs}", "recipe.grpo.steps=null"]
    if args.batch_size is not None:
        overrides.append(f"recipe.grpo.batch_size={args.batch_size}")
    if args.learning_rate is not None:
        overrides.append(f"recipe.grpo.learning_rate={args.learning_rate}")
    if args.use_wandb:
        overrides.append("trainer.logger=[console,file,tensorboard,wandb]")
    if args.wandb_project:
        overrides.append(override("trainer.project_name", args.wandb_project))
    if args.wandb_run_name:
        overrides.append(override("trainer.experiment_name", args.wandb_run_name))
    return overrides + args.overrides


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, required=True, help="folder with the parquet files")
    parser.add_argument("--model_name", required=True, help="start model: a Hugging Face id or a folder")
    parser.add_argument("--output_dir", type=Path, required=True, help="checkpoints, metrics and logs")
    parser.add_argument("--num_epochs", type=int, help="passes over the data (default: the preset's)")
    parser.add_argument("--batch_size", type=int, help="prompts a step (default: the preset's)")
    parser.add_argument("--learning_rate", type=float, help="(default: the preset's)")
    parser.add_argument("--use_wandb", action="store_true", help="log to Weights & Biases too")
    parser.add_argument("--wandb_project", help="(default: the recipe's name)")
    parser.add_argument("--wandb_run_name", help="(default: grpo)")
    add_recipe_option(parser, "what to train")
    parser.add_argument("--preset", help="a file of configs/preset, or preset/ecg (default: the one for --model_name)")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. algo=dapo trainer.save_freq=5")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    load_dotenv(REPO / ".env")
    launch(f"{args.recipe}_grpo", overrides_for(args))


def command() -> None:
    """What ``train`` runs."""
    run_main(main)


if __name__ == "__main__":
    command()
