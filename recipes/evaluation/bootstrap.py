"""Percentile bootstrap intervals over questions, and p values for paired differences."""

from collections.abc import Iterator, Sequence
from statistics import fmean

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
BLOCKS = 100  # resamples are drawn in that many blocks: all indices at once would take 80 kB a question


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of ``values`` (one a question), from 10,000 resamples with replacement.

    It covers the choice of questions, not another training seed. Questions are taken as independent; those of one
    template are alike, so the true uncertainty about new templates is larger.

    Raises:
        ValueError: there are no values.
    """
    return percentile_interval(_resampled_means(values, seed))


def percent_interval(values: Sequence[float], seed: int = 0) -> dict[str, float | None]:
    """The number of ``questions``, the mean of their ``values`` as ``percent``, and its interval ``low``, ``high``.

    ``values`` are already times 100. Without any, the last three are None.
    """
    low, high = bootstrap_interval(values, seed) if values else (None, None)
    return {"questions": len(values), "percent": fmean(values) if values else None, "low": low, "high": high}


def _resampled_means(values: Sequence[float], seed: int) -> np.ndarray:
    """The means of 10,000 resamples, shape (RESAMPLES,)."""
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or not len(data):
        raise ValueError("an interval needs at least one value")
    return np.concatenate([data[index].mean(axis=1) for index in resamples(len(data), seed)])


def resamples(questions: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The indices of the questions of 10,000 resamples, in blocks of shape (RESAMPLES // BLOCKS, questions)."""
    generator = np.random.default_rng(seed)
    for _ in range(BLOCKS):
        yield generator.integers(questions, size=(RESAMPLES // BLOCKS, questions))


def percentile_interval(statistics: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a statistic, from its values on resamples."""
    low, high = np.quantile(statistics, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _differences(before: Sequence[float], after: Sequence[float]) -> np.ndarray:
    if len(before) != len(after):
        raise ValueError(f"paired values differ in number: {len(before)} and {len(after)}")
    return np.asarray(after, dtype=float) - np.asarray(before, dtype=float)


def paired_bootstrap(before: Sequence[float], after: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """The mean of ``after - before`` and its 95 % interval; item i of both belongs to the same question.

    Raises:
        ValueError: the two differ in length, or are empty.
    """
    differences = _differences(before, after)
    low, high = bootstrap_interval(differences, seed)
    return float(differences.mean()), low, high


def paired_p_value(before: Sequence[float], after: Sequence[float], seed: int = 0) -> float:
    """Two-sided p value of the mean of ``after - before`` against no difference, at least 1 / 10,001.

    The share of resamples whose mean lies as far from the observed mean as the observed mean lies from 0: the
    bootstrap distribution, shifted to 0, stands for no difference. The resamples are those of ``paired_bootstrap``.

    Raises:
        ValueError: the two differ in length, or are empty.
    """
    differences = _differences(before, after)
    means = _resampled_means(differences, seed)
    observed = differences.mean()
    # The tolerance keeps a resample that repeats the data as extreme as the data, whatever the rounding.
    extreme = np.abs(means - observed) >= abs(observed) - 1e-9 * max(1.0, abs(observed))
    return float((1 + extreme.sum()) / (1 + RESAMPLES))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values, in their order, corrected for their number by Holm's method (Holm 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def resampled_sums(data: np.ndarray, resamples: int, seed: int = 0) -> np.ndarray:
    """The sums of ``data`` (questions, columns) over each of ``resamples`` resamples: (resamples, columns)."""
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(len(data), size=len(data)) for _ in range(resamples))
    return np.stack([data[index].sum(axis=0) for index in drawn])
