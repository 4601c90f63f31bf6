"""GRPO under the command-line names of the EHR-R1 recipe: the recipe's stages, from the data to the model after GRPO.

``train --data_path D --model_name M --output_dir O [override...]`` trains the model M on D. The data D are

* a folder that ``data_prep`` has written, or its ``train.parquet`` (``--recipe ecg``: ``grpo_train.parquet``);
* or EHRSQL-2024's own ``train/data.json`` with ``valid`` beside ``train``, and the database of ``--db_path``. They are
  prepared below O, with the prompt of the preset.

The trained model is in O/models/grpo, and ``evaluate --model_name O`` takes it. The same command goes on where it
stopped. Without M, the preset chooses the model, and whether SFT comes first; without D, the recipe's own data are
taken. So ``train`` alone is scripts/run_grpo_ehrsql.sh without the evaluation. Overrides come last and win, e.g.
``algo=dapo``.
"""

import argparse
import os
from collections.abc import MutableMapping
from pathlib import Path

from data_prep.common.errors import InputError, run_main
from recipes import hardware
from recipes.config import override, preset_of
from recipes.defaults import default_model, default_training_data
from recipes.launch import check_device
from recipes.models import check_name
from recipes.pipeline.console import RunConsole
from recipes.pipeline.recipe import Recipe
from recipes.pipeline.settings import absolute_model, load_environment
from recipes.run import interruptible, session, show_programs
from recipes.tasks.registry import TASKS, Task, add_recipe_option
from recipes.trained_models import exported_model


def preset_for(model: str, recipe: Task) -> str:
    """The recipe's preset made for ``model``; for a model that none names, the smallest on a CPU, its own on a GPU."""
    if preset := preset_of(model, recipe.preset_folder):
        return preset
    return "tiny" if hardware.choose(hardware.find_gpus()) == "cpu" else recipe.gpu_preset


def run_for(args: argparse.Namespace, environ: MutableMapping[str, str]) -> Recipe:
    """The run that the command line asks for. ``environ`` gets what the programs of its stages have to know.

    Raises:
        InputError: an option is bad, or there are no such data or model. Nothing has been written then.
    """
    recipe = TASKS[args.recipe]
    overrides = overrides_for(args)
    model = args.model_name or default_model(recipe, environ)
    if model:
        model = absolute_model(exported_model(model))
        check_name(model)
        overrides = [override("recipe.model", model), *overrides]
    if preset := args.preset or (model and preset_for(model, recipe)):
        environ["PRESET"] = preset
    if args.output_dir:
        environ["OUTPUT_DIR"] = os.path.abspath(args.output_dir)
    prepared = choose_data(args, recipe, environ)
    if prepared and prepared.name != recipe.train_file:
        overrides.append(override("data.train_files", prepared))
    run = recipe.pipeline(environ, [*overrides, *args.overrides], grpo_only=bool(model))
    run.prepared = prepared and prepared.parent
    run.check()
    check_device(run.config, hardware.find_gpus())
    if prepared and run.trains_sft() and not prepared.with_name("sft_train.parquet").is_file():
        raise InputError(f"no sft_train.parquet beside {prepared} for preset {run.preset}'s SFT; give a --model_name")
    return run


def choose_data(args: argparse.Namespace, recipe: Task, environ: MutableMapping[str, str]) -> Path | None:
    """The file of training questions, where prepared ones are named. ``environ`` gets the names of raw ones.

    Raises:
        InputError: there are no such data.
    """
    data = args.data_path or default_training_data(recipe, environ)
    if not data:
        if args.db_path:
            raise InputError("--db_path is the database of the questions in --data_path; give that, too")
        return None
    if variables := recipe.pipeline.raw_data(data, args.db_path):
        environ.update(variables)
        return None
    if args.db_path:
        raise InputError(f"{data} names its database itself; leave --db_path out, or give EHRSQL's train/data.json")
    return train_file(data, recipe)


def train_file(data_path: Path, recipe: Task) -> Path:
    """The absolute path of the training questions, which ``data_path`` is or holds.

    Raises:
        InputError: they are not there, or there are no validation questions beside them.
    """
    train = data_path / recipe.train_file if data_path.is_dir() else data_path
    for path in (train, train.with_name(recipe.valid_file)):
        if path.suffix != ".parquet" or not path.is_file():
            raise InputError(
                f"no such parquet file: {path}; --data_path is a folder that {recipe.data_program} has written"
            )
    return train.absolute()


def overrides_for(args: argparse.Namespace) -> list[str]:
    """The Hydra overrides that the options about training and logging stand for."""
    for name in ("num_epochs", "batch_size", "learning_rate"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"--{name} is {value}; give a number above 0")
    overrides = []
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
    return overrides


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_path", type=Path, help="parquet files or raw questions (default: the recipe's data)")
    parser.add_argument("--db_path", type=Path, help="of a data.json (default: mimic_iv.sqlite beside the splits)")
    parser.add_argument("--model_name", help="start model: a Hugging Face id or a folder (default: the preset's)")
    parser.add_argument("--output_dir", type=Path, help="whatever the run writes (default: outputs/<recipe>_<preset>)")
    parser.add_argument("--num_epochs", type=int, help="passes over the data (default: the preset's)")
    parser.add_argument("--batch_size", type=int, help="prompts a step (default: the preset's)")
    parser.add_argument("--learning_rate", type=float, help="(default: the preset's)")
    parser.add_argument("--use_wandb", action="store_true", help="log to Weights & Biases too")
    parser.add_argument("--wandb_project", help="(default: the recipe's name)")
    parser.add_argument("--wandb_run_name", help="(default: grpo)")
    add_recipe_option(parser, "what to train")
    parser.add_argument("--preset", help="a file of configs/preset, or preset/ecg (default: the one for --model_name)")
    parser.add_argument("--dry_run", action="store_true", help="print the programs of all stages, and run nothing")
    parser.add_argument("--verbose", action="store_true", help="show what the programs print, too")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. algo=dapo trainer.save_freq=5")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    load_environment(os.environ)
    run = run_for(args, os.environ)
    if args.dry_run:
        show_programs(run, run.train)
        return
    console = RunConsole(args.verbose)
    with interruptible(run.folder):
        with session(run, console) as stages:
            run.train(stages)
        evaluation = f"evaluate --recipe {args.recipe} --model_name {run.folder}"
        console.rich.print(f"model: {run.models / 'grpo'}\n# evaluate it\n{evaluation}")


def command() -> None:
    """What ``train`` runs."""
    run_main(main)


if __name__ == "__main__":
    command()
