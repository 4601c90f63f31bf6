"""Percentile bootstrap intervals over questions."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of ``values`` (one a question), from 10,000 resamples with replacement.

    It covers the choice of questions, not another training seed. Questions are taken as independent; those of one
    template are alike, so the true uncertainty about new templates is larger.

    Raises:
        ValueError: there are no values.
    """
    data = np.asarray(values, dtype=float)
    if data.ndim != 1 or not len(data):
        raise ValueError("an interval needs at least one value")
    generator = np.random.default_rng(seed)
    # In 100 blocks: all indices at once would take 80 kB a question.
    means = [data[generator.integers(len(data), size=(RESAMPLES // 100, len(data)))].mean(axis=1) for _ in range(100)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_bootstrap(before: Sequence[float], after: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """The mean of ``after - before`` and its 95 % interval; item i of both belongs to the same question.

    Raises:
        ValueError: the two differ in length, or are empty.
    """
    if len(before) != len(after):
        raise ValueError(f"paired values differ in number: {len(before)} and {len(after)}")
    difference = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    low, high = bootstrap_interval(difference, seed)
    return float(difference.mean()), low, high
