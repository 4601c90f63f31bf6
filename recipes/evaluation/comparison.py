"""Paired differences between runs on the same questions, by the figures of their recipe."""

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from recipes.evaluation.bootstrap import holm, paired_bootstrap, paired_p_value
from recipes.evaluation.figure import Figure
from recipes.evaluation.results import Run, check_same_questions
from recipes.tasks.registry import TASKS


@dataclass(frozen=True)
class Comparison:
    """A figure of two runs: their means, and the second's less the first's with its interval and p value."""

    figure: str
    questions: int
    before: str
    after: str
    before_value: float
    after_value: float
    difference: float
    low: float
    high: float
    p: float


def compare_pairs(runs: dict[str, Run], seed: int = 0) -> list[Comparison]:
    """Every pair of runs by every figure of their recipe that some question belongs to.

    The p values of one figure are corrected for the number of pairs (Holm); figures are not corrected for each other.

    Raises:
        InputError: the runs are not about the same questions.
    """
    results = []
    for figure, values in _values(runs).items():
        if not values[next(iter(runs))]:
            continue
        pairs = list(combinations(values, 2))
        p_values = holm([paired_p_value(values[before], values[after], seed) for before, after in pairs])
        for (before, after), p in zip(pairs, p_values, strict=True):
            difference, low, high = paired_bootstrap(values[before], values[after], seed)
            means = fmean(values[before]), fmean(values[after])
            results.append(Comparison(figure, len(values[after]), before, after, *means, difference, low, high, p))
    return results


def compare_with_first(runs: dict[str, Run], seed: int = 0) -> dict[str, dict[str, dict[str, Any]]]:
    """For each run and each figure of its recipe: ``questions``, ``value`` and a ``difference``.

    ``difference``, which the first run lacks, is to the first run, with the paired bootstrap interval ``low`` and
    ``high``. Figures of no question are None.

    Raises:
        InputError: the runs are not about the same questions.
    """
    first, *_ = runs
    results: dict[str, dict[str, dict[str, Any]]] = {label: {} for label in runs}
    for name, values in _values(runs).items():
        for label, after in values.items():
            figure = {"questions": len(after), "value": fmean(after) if after else None}
            if label != first:
                difference = paired_bootstrap(values[first], after, seed) if after else (None, None, None)
                figure |= zip(("difference", "low", "high"), difference, strict=True)
            results[label][name] = figure
    return results


def _values(runs: dict[str, Run]) -> dict[str, dict[str, list[float]]]:
    """For each figure and run the values of the questions that belong to the figure.

    Figures that only some of the runs have are left out, and those whose settings differ.
    """
    check_same_questions(runs)
    values = {}
    for name, figure in _figures(runs).items():
        samples = {label: [*filter(figure.belongs, run.samples)] for label, run in runs.items()}
        same_questions = len({tuple(sample.id for sample in chosen) for chosen in samples.values()}) == 1
        same_settings = len({_settings(run, figure) for run in runs.values()}) == 1
        if same_questions and (same_settings or not any(samples.values())):
            values[name] = {label: [*map(figure.value, chosen)] for label, chosen in samples.items()}
    return values


def left_out(runs: dict[str, Run]) -> list[str]:
    """The figures that some run has, and that the runs are not compared by."""
    compared = _values(runs)
    return [name for name in _figures(runs) if name not in compared]


def _figures(runs: dict[str, Run]) -> dict[str, Figure]:
    return dict(TASKS[next(iter(runs.values())).recipe].evaluation.FIGURES)


def _settings(run: Run, figure: Figure) -> str:
    return json.dumps([_name(run.config.get(name)) for name in figure.settings])


def _name(value: Any) -> Any:
    """The last part of a path: each run has its files in a folder of its own."""
    if isinstance(value, list):
        return sorted(map(_name, value))
    return Path(value).name if isinstance(value, str) else value
