"""The models that runs leave in their output folders: ``models/sft`` and ``models/grpo``."""

from pathlib import Path

from data_prep.common.errors import InputError
from data_prep.common.json_file import read_json
from recipes.models import EXPORT_FIGURES
from recipes.pipeline.stages import MARKER, STAMPS

STAGES = ("sft", "grpo")  # of a recipe, in order
CARD, CARD_RESULTS = "README.md", "model_results.json"  # beside the weights


def has_model(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face model."""
    return (folder / "config.json").is_file()


def is_trained(model: str) -> bool:
    """Whether ``model`` is a folder that ``recipes.export`` has written."""
    return (Path(model) / EXPORT_FIGURES).is_file()


def trained_prompt(model: str) -> str | None:
    """The name or the path of the prompt that ``model`` was trained with; None where nobody has noted it."""
    return read_json(Path(model) / EXPORT_FIGURES).get("prompt") if is_trained(model) else None


def trained_to_think(model: str) -> bool:
    """Whether ``model`` was trained on data that were prepared with ``--think``."""
    return is_trained(model) and bool(read_json(Path(model) / EXPORT_FIGURES).get("think"))


def last_stage(output_dir: Path) -> str:
    """The last stage of a recipe that has left a model in ``output_dir``.

    Raises:
        InputError: there is none.
    """
    trained = [stage for stage in STAGES if has_model(output_dir / "models" / stage)]
    if not trained:
        raise InputError(
            f"no trained model in {output_dir / 'models'} yet; let the command that trains it end, or name a model"
        )
    return trained[-1]


def exported_model(name: str) -> str:
    """The model that ``name`` stands for: of a run's folder the last stage's, of a stage's checkpoints their export.

    Any other name, such as a hub id or the folder of a model, is returned as it is.

    Raises:
        InputError: the run has trained no model yet, or the checkpoints are not exported.
    """
    folder = Path(name)
    if not folder.is_dir() or has_model(folder):
        return name
    if (folder / STAMPS).is_dir():
        return str(folder / "models" / last_stage(folder))
    if (folder / MARKER).is_file():
        exported = folder.parent / "models" / folder.name
        if not has_model(exported):
            raise InputError(
                f"{folder} holds checkpoints, which are no model yet; let the command that trains it end, or make one "
                "with python -m recipes.export"
            )
        return str(exported)
    return name


def run_of(model: str) -> Path | None:
    """The folder of the run that ``model``, as ``exported_model`` returns it, was trained in; None if there is none."""
    folder = Path(model).resolve()
    run = folder.parent.parent
    return run if folder.is_dir() and folder.parent.name == "models" and (run / STAMPS).is_dir() else None
