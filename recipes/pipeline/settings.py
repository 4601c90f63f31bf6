"""What a run is told: environment variables, ``.env``, and Hydra overrides."""

import os
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from dotenv import dotenv_values
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException

from data_prep.common.errors import InputError
from recipes import hardware
from recipes.config import REPO
from recipes.models import MADE_HERE

# Variables that name a file or a folder.
PATHS = (
    "DEFAULT_DATASET_PATH",
    "DEFAULT_DB_PATH",
    "DEFAULT_OUTPUT_DIR",
    "ECG_DATA",
    "ECG_TEACHER",
    "EHRSQL_DATA",
    "EHRSQL_TEACHER",
    "EHR_DB",
    "EHRSQL_DB",
    "OUTPUT_DIR",
    "HF_HOME",
    "TMPDIR",
)


BLOCKS = ("recipe", "recipe.sft", "recipe.grpo", "recipe.teacher")


def load_environment(environ: MutableMapping[str, str]) -> None:
    """Add what ``.env`` says and ``environ`` does not, and make paths absolute.

    Relative paths of ``environ`` are below the working folder, those of ``.env`` below the repository. ``HARDWARE``
    becomes what this machine has, where nobody says.

    Raises:
        InputError: ``HARDWARE`` is unknown, or asks for a GPU that is not there.
    """
    own = {name: value for name, value in _read_env_file().items() if name not in environ}
    for values, folder in ((environ, Path.cwd()), (own, REPO)):
        for name in PATHS:
            if values.get(name):
                values[name] = os.path.abspath(folder / Path(values[name]).expanduser())
        if values.get("DEFAULT_MODEL_NAME"):
            values["DEFAULT_MODEL_NAME"] = absolute_model(values["DEFAULT_MODEL_NAME"], folder)
    environ.update(own)
    environ["HARDWARE"] = hardware.choose(hardware.find_gpus())


def absolute_model(name: str, folder: Path = Path()) -> str:
    """``name``, made absolute where it is a model's folder below ``folder``, and no hub id or model made here."""
    place = os.path.abspath(folder / Path(name).expanduser())
    return place if name not in MADE_HERE and os.path.isdir(place) else name


def _read_env_file() -> dict[str, str]:
    """The settings of ``.env`` that are not empty, with ``$NAME`` of the environment in place."""
    try:
        values = dotenv_values(REPO / ".env")
    except UnicodeDecodeError as error:
        raise InputError(f"{REPO / '.env'} is no UTF-8 text: {error}; write it again") from error
    return {name: Template(value).safe_substitute(os.environ) for name, value in values.items() if value}


@dataclass(frozen=True)
class Overrides:
    """The Hydra overrides of a run, by what they are for.

    ``choices``: the last value of each choice that the run itself makes (``preset``, ``hardware`` ...), by its name.
    ``recipe``: settings of the block ``recipe``, which are for all stages. ``trainer``: all others, which are for the
    trainer of the last stage alone.
    """

    choices: dict[str, str]
    recipe: list[str]
    trainer: list[str]

    def of_sft(self) -> list[str]:
        """The settings of the recipe without those of GRPO alone: SFT is not repeated for them."""
        grpo = ("recipe.grpo.", "recipe.judge_")
        return [text for text in self.recipe if not parse_override(text).key_or_group.startswith(grpo)]


def parse_override(text: str) -> Override:
    """Raises an ``InputError`` where Hydra cannot read ``text``."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        reason = str(error).split("See https://")[0].splitlines()[0].strip()
        raise InputError(f"cannot use the override {text}: {reason}; write key=value, +key=value or ~key") from None


def sort_overrides(texts: Sequence[str], choices: Sequence[str]) -> Overrides:
    """Divide overrides. ``choices`` are the names of the choices that the run itself makes.

    Raises:
        InputError: Hydra cannot read one of them.
    """
    sorted_ = Overrides({}, [], [])
    for text in texts:
        override = parse_override(text)
        if override.key_or_group.partition(".")[0] == "recipe" and (override.is_delete() or _is_block(override)):
            raise InputError(f"cannot use the override {text}: give each setting of recipe a value of its own")
        if override.key_or_group in choices and override.type is OverrideType.CHANGE:
            sorted_.choices[override.key_or_group] = str(override.value())
        elif override.key_or_group.startswith("recipe."):
            sorted_.recipe.append(text)
        else:
            sorted_.trainer.append(text)
    return sorted_


def _is_block(override: Override) -> bool:
    """Whether it would replace several settings at once, or a block of settings by a value."""
    return isinstance(override.value(), dict) or override.key_or_group in BLOCKS


def switch(environ: Mapping[str, str], name: str) -> bool:
    """Whether the variable ``name`` is 1; not where it is 0, empty or not set.

    Raises:
        InputError: it is something else.
    """
    text = environ.get(name, "")
    if text not in ("", "0", "1"):
        raise InputError(f"{name}={text}: use 1, or nothing")
    return text == "1"


def whole_number(environ: Mapping[str, str], name: str, least: int, what: str) -> int | None:
    """The number of at most nine digits in the variable ``name``; None where it is not set or empty.

    Raises:
        InputError: it is no such number; ``what`` says what to give.
    """
    text = environ.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", text) or int(text) < least:
        raise InputError(f"{name}={text}: give {what}")
    return int(text)


def output_folder(path: str) -> Path:
    """``path`` without links.

    Raises:
        InputError: the name has a character that verl, Ray or Hydra would take for something else.
    """
    folder = Path(os.path.realpath(path))
    if not re.fullmatch(r"[A-Za-z0-9._/+@-]+", str(folder)):
        raise InputError(f"OUTPUT_DIR={folder}: use letters, digits and ._/+@- only, which Hydra takes unquoted")
    return folder
