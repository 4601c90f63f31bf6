"""Composes this repository's Hydra configs on top of verl's, and says in one line what is wrong with an override."""

import difflib
import importlib.util
import math
import re
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_prep.common.errors import InputError

# Numbers above 0 that verl would refuse only when it comes to use them.
WHOLE_NUMBERS = (
    *("recipe.max_prompt_length", "recipe.max_response_length", "recipe.max_length"),
    *("recipe.sft.batch_size", "recipe.sft.epochs"),
    *("recipe.grpo.batch_size", "recipe.grpo.rollouts", "recipe.grpo.epochs", "recipe.grpo.steps"),
    *("data.train_batch_size", "trainer.total_epochs", "trainer.total_training_steps"),
)
NUMBERS = ("recipe.sft.learning_rate", "recipe.grpo.learning_rate")

REPO = Path(__file__).resolve().parent.parent
CONFIG_DIR = REPO / "configs"


def verl_config_dir() -> Path:
    """The folder of verl's own configs, found without the seconds that importing verl takes."""
    spec = importlib.util.find_spec("verl")
    if spec is None or spec.origin is None:
        raise InputError("verl is not installed; run: bash scripts/setup.sh")
    return Path(spec.origin).parent / "trainer" / "config"


def search_path() -> str:
    """The Hydra override that lets a config of this repository extend one of verl's."""
    return f"hydra.searchpath=[file://{verl_config_dir()}]"


def override(key: str, value: object) -> str:
    """The Hydra override ``key='value'`` for any string, e.g. a path with spaces."""
    return f"{key}={QuotedString(str(value), Quote.single).with_quotes()}"


def compose_config(name: str, overrides: list[str]) -> DictConfig:
    """Compose ``configs/<name>.yaml`` with Hydra overrides.

    Raises:
        InputError: an override names a key or a choice that does not exist, cannot be parsed, or is no number where the
            recipe needs one.
    """
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base=None):
            config = compose(name, [search_path(), *overrides])
        OmegaConf.to_container(config.recipe, resolve=True, throw_on_missing=True)
    except Exception as error:
        if _interrupted(error):
            raise KeyboardInterrupt from None
        if not isinstance(error, (HydraException, OmegaConfBaseException)):
            raise
        raise InputError(f"cannot use these overrides for {name}: {_explain(error, name)}") from None
    _check_numbers(config)
    return config


def _explain(error: Exception, name: str) -> str:
    """Hydra's message. For a key that does not exist, Hydra advises to add the key; it is misspelt more often."""
    message = str(error).split("Config search path")[0].split("See https://")[0]
    if unknown := re.search(r"Could not override '([^']+)'", message):
        return f"there is no setting {unknown[1]}; {_advice(unknown[1], name)}"
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def _advice(unknown: str, name: str) -> str:
    """What to write for a setting that the config ``name`` does not have."""
    block, _, last = unknown.rpartition(".")
    keys = _keys(OmegaConf.to_container(compose_config(name, [])))
    known = {key.rpartition(".")[2]: key for key in keys if key.rpartition(".")[0] == block}
    if not block:
        known = {folder.name: folder.name for folder in CONFIG_DIR.iterdir() if folder.is_dir()}  # Hydra's choices
    near = [known[word] for word in difflib.get_close_matches(last, known, 1)]
    if not known:
        near = difflib.get_close_matches(unknown, keys, 1, 0.9)
    if near:
        return f"did you mean {near[0]}?"
    if not block or unknown.startswith("recipe."):
        return "configs/ lists all settings and choices"
    return f"to add a setting that verl reads, write +{unknown}=..."


def _keys(settings: dict, parent: str = "") -> list[str]:
    """The names of all settings, with those of their blocks before dots."""
    keys = []
    for key, value in settings.items():
        keys += _keys(value, f"{parent}{key}.") if isinstance(value, dict) else [f"{parent}{key}"]
    return keys


def _interrupted(error: BaseException | None) -> bool:
    """Whether ``error`` came of Ctrl-C: OmegaConf's clean-up then finds its containers half-made, and fails."""
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _check_numbers(config: DictConfig) -> None:
    for key in (*WHOLE_NUMBERS, *NUMBERS):
        value = OmegaConf.select(config, key)
        if key.endswith("steps") and value is None:  # as many as the epochs make
            continue
        whole = key in WHOLE_NUMBERS
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < math.inf:
            raise InputError(f"{key} is {value}; give a {'whole ' if whole else ''}number above 0")


def preset_of(model: str, folder: str = "") -> str | None:
    """The preset of ``configs/preset/<folder>`` that is made for ``model``, None if there is none."""
    for path in sorted((CONFIG_DIR / "preset" / folder).glob("*.yaml")):
        base = CONFIG_DIR / "preset" / path.name  # a recipe's preset has its model from the preset of the same name
        if base.is_file() and OmegaConf.load(base).recipe.get("model") == model:
            return path.stem
    return None
