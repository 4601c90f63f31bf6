"""Which answers of a model are certain enough to be shown, and the file beside the weights that keeps it."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError
from data_prep.common.json_file import read_json

FILE = "selection.json"
WEIGHTS = (".safetensors", ".bin")
PLACES, PLACE_BYTES = 256, 4096  # what is read of a file of weights: all of a large one would take minutes


@dataclass(frozen=True)
class Selector:
    """Shows an answer whose confidence, the weighted sum of its scores, is at least ``threshold``.

    ``slope`` and ``offset`` make the confidence the log-odds of the answer being right.
    """

    weights: dict[str, float]
    threshold: float
    slope: float
    offset: float

    @property
    def name(self) -> str:
        """The score, or that there are several."""
        return next(iter(self.weights)) if len(self.weights) == 1 else "combination of scores"

    def confidence(self, scores: Mapping[str, float]) -> float:
        """The confidence of an answer with these scores; minus infinity where one is missing."""
        if self.weights.keys() - scores.keys():
            return -math.inf
        return math.fsum(weight * scores[name] for name, weight in self.weights.items())

    def probability(self, confidence: float) -> float:
        """That an answer is right; 0 at minus infinity."""
        if confidence == -math.inf:
            return 0.0
        return 0.5 * (1 + math.tanh((self.slope * confidence + self.offset) / 2))  # the logistic function


@dataclass(frozen=True)
class Selection:
    """What selection makes of an evaluation.

    ``samples``: with what is withheld. ``summary``: the figures. ``charts`` by their file names, each a function that
    draws to a path. ``chat``: the selector that a chat can apply, and ``facts`` about it.
    """

    samples: list[Any]
    summary: dict[str, Any]
    charts: dict[str, Callable[[Path], None]]
    chat: Selector
    facts: dict[str, Any]


def in_words(selection: Mapping[str, Any]) -> str:
    """Which answers the ``selection`` of a summary withholds."""
    threshold = float(selection["threshold"])
    if math.isinf(threshold):
        return "all answers are withheld" if threshold > 0 else "no answer is withheld"
    return f"answers are withheld where {selection['score']} is below {threshold:.4g}"


def save_selector(selector: Selector, model: str, facts: Mapping[str, Any]) -> Path | None:
    """Write ``FILE`` to the folder ``model``, with ``facts`` about how the selector was chosen.

    None where ``model`` is no folder of weights that can be written to.
    """
    folder = Path(model)
    if not _weights(folder) or not os.access(folder, os.W_OK):
        return None
    content = asdict(selector) | {"threshold": json_number(selector.threshold)}
    with atomic_output(folder / FILE) as partial:
        text = json.dumps(content | {"weights_digest": weights_digest(folder)} | facts, indent=1)
        partial.write_text(f"{text}\n", encoding="utf-8")
    return folder / FILE


def load_selector(model: str) -> Selector | None:
    """The selector in the folder ``model``; None where there is no such file.

    Raises:
        InputError: the file is damaged, or was made for other weights.
    """
    file = Path(model) / FILE
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        weights = {str(name): float(weight) for name, weight in content["weights"].items()}
        numbers = [float(content[name]) for name in ("threshold", "slope", "offset")]
        digest = content["weights_digest"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is no file of evaluate --select ({error}); remove it, or evaluate again") from error
    if digest != weights_digest(Path(model)):
        raise InputError(f"{file} was made for other weights; evaluate again with --select, or remove it")
    return Selector(weights, *numbers)


def json_number(value: float) -> float | str:
    """``value``, or its name where JSON has no such number; ``float`` reads both."""
    return value if math.isfinite(value) else str(value)


def weights_digest(folder: Path) -> str | None:
    """A hash of the names and sizes of the files of weights, and of pieces from all over each file.

    None where ``folder`` is no folder of weights.
    """
    if not (files := _weights(folder)):
        return None
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as data:
            for place in range(PLACES):
                data.seek(place * size // PLACES)
                digest.update(data.read(PLACE_BYTES))
    return digest.hexdigest()


def _weights(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix in WEIGHTS)
