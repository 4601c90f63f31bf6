"""Where ``evaluate`` writes: ``<output_dir>/<model>/<run>``."""

import json
import os
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from data_prep.common.atomic import check_folder
from data_prep.common.errors import InputError


def run_folders(
    output_dirs: Sequence[Path], names: Sequence[str], models: Sequence[str], run_name: str | None
) -> list[Path]:
    """A folder for each model, which does not exist yet, in a folder that can be written to.

    ``names`` are what the user calls the ``models``, which are hub ids and folders. ``output_dirs`` is one for all
    models, or one for each. ``<model>`` is the last part of the name. The part before, such as a hub id's owner, comes
    in front of it only where another of the models has the same last part, or where the folder of that name holds
    another model's results: ``owner__model``.

    Raises:
        InputError: a run exists, a name is no plain name, or an output folder cannot be written to.
    """
    run = run_name or f"run_{datetime.now():%Y%m%d_%H%M%S}"
    if not re.fullmatch(r"\w[\w.-]*", run):
        raise InputError(f"--run_name is {run!r}; use letters, digits, '_', '-' and '.'")
    places = output_dirs if len(output_dirs) > 1 else [*output_dirs] * len(names)
    folders = []
    for number, (place, model) in enumerate(zip(places, models, strict=True)):
        others = [name for other, name in enumerate(names) if other != number and places[other] == place]
        folder = _model_folder(place, names[number], model, others) / run
        if folder.exists():
            raise InputError(f"{folder} exists already; choose another --run_name or remove it")
        check_folder(place)
        folders.append(folder)
    return folders


def _model_folder(place: Path, name: str, model: str, others: Sequence[str]) -> Path:
    parts = _parts(name)
    for count in range(1, len(parts) + 1):
        title = _title(parts, count)
        folder = place / title
        if title not in [_title(_parts(other), count) for other in others] and not _holds_another(folder, model):
            break
    if not title.strip(".") or not title.isprintable():
        raise InputError(f"the model's name {name!r} cannot name a folder; give another --model_name")
    return folder


def _parts(name: str) -> Sequence[str]:
    return Path(name).resolve().parts[1:] if Path(name).is_dir() else name.split("/")


def _title(parts: Sequence[str], count: int) -> str:
    return "__".join(parts[-count:])


def _holds_another(folder: Path, model: str) -> bool:
    """Whether the newest results in ``folder`` are those of another model than ``model``, or of nobody knows which."""
    files = sorted(folder.glob("*/results.json"), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        return False
    try:
        evaluated = os.path.normpath(json.loads(files[-1].read_bytes())["config"]["model_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return True
    known = str(Path(model).resolve()) if Path(model).is_dir() else model
    # A relative path was relative to the folder that the evaluation was called from.
    return evaluated != known and not known.endswith(f"/{evaluated}")
