"""How a model was trained: what ``recipes.export``, verl's trainers and ``data_prep`` have noted of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from pyarrow.parquet import read_metadata

from data_prep.common.errors import InputError
from data_prep.common.json_file import read_json
from recipes.models import EXPORT_FIGURES
from recipes.tasks.registry import TASKS
from recipes.trained_models import is_trained

# Heading -> where a config of GRPO and one of SFT have it.
SETTINGS = {
    "batch size": ("data.train_batch_size", "data.train_batch_size"),
    "answers to a prompt": ("actor_rollout_ref.rollout.n", None),
    "learning rate": ("actor_rollout_ref.actor.optim.lr", "optim.lr"),
}
REWARD = "reward.custom_reward_function"
CHOICES = ("preset", "algo", "adapter", "sft_adapter", "judge")  # of Hydra


@dataclass(frozen=True)
class Data:
    """A file of questions. ``rows`` and ``synthetic``, whether it is the demo's, are None where that is not known."""

    file: str
    rows: int | None
    synthetic: bool | None


@dataclass(frozen=True)
class Training:
    """One training run of a model. What the run has not saved is None or empty.

    ``reward``: the file and the name of the reward function; ``reward_options``: its keyword arguments.
    """

    method: str
    steps: str
    recipe: str | None
    data: Sequence[Data]
    settings: dict[str, Any]
    reward: str | None
    reward_options: dict[str, Any]
    max_response_length: int | None


def training_history(model: Path) -> tuple[str, list[Training]]:
    """The base model, a hub id or a folder, and the training runs from it to the exported ``model``, the first first.

    Raises:
        InputError: an ``export.json`` does not say what was exported.
    """
    name, runs = str(model), []
    while is_trained(name):
        file = Path(name) / EXPORT_FIGURES
        figures = read_json(file)
        try:
            runs.append(_training(Path(figures["checkpoint"])))
            name = figures["start_model"]
        except (KeyError, TypeError) as error:
            raise InputError(f"{file} names no checkpoint and start_model; export the model again") from error
    return name, runs[::-1]


def trained_recipe(model: str) -> str | None:
    """The recipe that has trained the exported ``model``; None for other models, and where nobody has noted it."""
    checkpoint = read_json(Path(model) / EXPORT_FIGURES).get("checkpoint") if is_trained(model) else None
    return _recipe(_saved_by_hydra(Path(checkpoint))) if checkpoint else None


def describe_data(file: Path) -> Data:
    """What the file itself and the manifest of ``data_prep`` beside it say."""
    manifest = file.parent / "manifest.json"
    rows = read_metadata(file).num_rows if file.is_file() and file.suffix == ".parquet" else None
    return Data(file.name, rows, read_json(manifest).get("synthetic") if manifest.is_file() else None)


def _training(checkpoint: Path) -> Training:
    """``checkpoint``: as ``recipes.export`` notes it, ``RUN/global_step_N/actor`` of GRPO or ``RUN/global_step_N``."""
    grpo, step, saved = checkpoint.name == "actor", _step(checkpoint), _saved_by_hydra(checkpoint)
    config, hydra = _load(saved / "config.yaml"), _load(saved / "hydra.yaml")
    choices = _get(hydra, "hydra.runtime.choices") or {}
    settings = {name: choices[name] for name in CHOICES if name in choices}
    for name, keys in SETTINGS.items():
        key = keys[0 if grpo else 1]
        if key and (value := _get(config, key)) is not None:
            settings[name] = value
    files = _get(config, "data.train_files") or []
    function = _get(config, f"{REWARD}.path") if grpo else None
    options = _get(config, f"{REWARD}.reward_kwargs") if function else None
    return Training(
        method="GRPO" if grpo else "SFT",
        steps=step.name.rpartition("_")[2],
        recipe=_recipe(saved),
        data=[describe_data(Path(file).expanduser()) for file in ([files] if isinstance(files, str) else files)],
        settings=settings,
        reward=f"{'/'.join(Path(function).parts[-2:])}:{_get(config, f'{REWARD}.name')}" if function else None,
        reward_options=OmegaConf.to_container(options, resolve=True) if options else {},
        max_response_length=_get(config, "data.max_response_length" if grpo else "recipe.max_response_length"),
    )


def _step(checkpoint: Path) -> Path:
    return checkpoint.parent if checkpoint.name == "actor" else checkpoint


def _saved_by_hydra(checkpoint: Path) -> Path:
    return _step(checkpoint).parent / "hydra" / ".hydra"


def _recipe(saved: Path) -> str | None:
    recipe = str(_get(_load(saved / "hydra.yaml"), "hydra.job.config_name")).rpartition("_")[0]
    return recipe if recipe in TASKS else None


def _load(file: Path) -> DictConfig | ListConfig:
    return OmegaConf.load(file) if file.is_file() else OmegaConf.create()


def _get(config: DictConfig | ListConfig, key: str) -> Any:
    """None where the key or what it refers to is missing."""
    return OmegaConf.select(config, key, throw_on_resolution_failure=False)
