"""What ``evaluate`` and ``train`` take where an option is left out: the settings ``DEFAULT_*``, then the newest run.

The settings are those of the EHR-R1 recipe: model and data are EHRSQL's.
"""

import argparse
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from data_prep.common.errors import InputError
from recipes.evaluation.generation import check_model
from recipes.tasks.registry import DEFAULT, TASKS, Task
from recipes.trained_models import STAGES, exported_model, has_model, run_of


def default_model(recipe: Task, environ: Mapping[str, str]) -> str | None:
    """``DEFAULT_MODEL_NAME``, a hub id or an absolute path."""
    return environ.get("DEFAULT_MODEL_NAME") or None if recipe.name == DEFAULT else None


def default_dataset(recipe: Task, environ: Mapping[str, str]) -> Path | None:
    """``DEFAULT_DATASET_PATH``, which holds test questions."""
    named = environ.get("DEFAULT_DATASET_PATH") if recipe.name == DEFAULT else None
    return Path(named) if named else None


def default_training_data(recipe: Task, environ: Mapping[str, str]) -> Path | None:
    """The training questions of the data set that the test questions of ``DEFAULT_DATASET_PATH`` are from."""
    dataset = default_dataset(recipe, environ)
    if dataset and dataset.suffix == ".json":
        return dataset.parent.parent / "train" / dataset.name
    if dataset and dataset.suffix == ".parquet":
        return dataset.with_name(recipe.train_file)
    return dataset


def fill_evaluation(args: argparse.Namespace, environ: MutableMapping[str, str]) -> None:
    """Fill in model, questions and output folder of ``evaluate``; say on stderr what a run has given.

    The questions are the test set of the run that has trained the model or, if none has, of the newest run.

    Raises:
        InputError: nothing names them, and no run has finished; or there is no such model.
    """
    recipe = TASKS[args.recipe]
    args.output_dir = args.output_dir or [Path(environ.get("DEFAULT_OUTPUT_DIR") or "results")]
    if not args.model_name and (model := default_model(recipe, environ)):
        args.model_name = [model]
    if not (args.server or args.predictions):
        for name in args.model_name or ():
            check_model(exported_model(name))
    args.dataset_path = args.dataset_path or default_dataset(recipe, environ)
    if args.model_name and args.dataset_path:
        return
    own = run_of(exported_model(args.model_name[0])) if args.model_name else None
    run = own if own and test_set(recipe, own, environ).is_file() else newest_run(recipe, environ)
    args.model_name = args.model_name or [str(run)]
    args.dataset_path = args.dataset_path or test_set(recipe, run, environ)
    print(f"evaluating {', '.join(args.model_name)} on {args.dataset_path}", file=sys.stderr)


def test_set(recipe: Task, run: Path, environ: Mapping[str, str]) -> Path:
    """The test questions of a run's folder, whether they are there or not."""
    return recipe.pipeline({**environ, "OUTPUT_DIR": str(run)}, []).test_set()


def newest_run(recipe: Task, environ: MutableMapping[str, str]) -> Path:
    """The folder of the run that has trained a model last: ``OUTPUT_DIR``, ``PRESET``'s, or any in ``outputs``.

    Raises:
        InputError: no run there has a model and test questions.
    """
    own = recipe.pipeline(environ, []).folder
    chosen = environ.get("OUTPUT_DIR") or environ.get("PRESET")
    runs = [own] if chosen else [own.parent, *sorted(own.parent.glob(f"{recipe.name}_*"))]
    finished = {run: _trained_at(run) for run in runs if test_set(recipe, run, environ).is_file()}
    if not any(finished.values()):
        place = own if chosen else own.parent / f"{recipe.name}_*"
        raise InputError(
            f"no finished run in {place}; run bash scripts/run_grpo_{recipe.name}.sh first, or give --model_name and "
            "--dataset_path"
        )
    return max(finished, key=finished.__getitem__)


def _trained_at(run: Path) -> float:
    """When the newest model of a run was written, in seconds since 1970; 0 where there is none."""
    models = [run / "models" / stage for stage in STAGES]
    return max((model.stat().st_mtime for model in models if has_model(model)), default=0)
