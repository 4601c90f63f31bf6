"""Calibration: are answers to which a probability is given right as often as it says?"""

from dataclasses import dataclass

import numpy as np

BINS = 10


@dataclass(frozen=True)
class Bin:
    """The answers whose probability is in one of ``BINS`` equal parts of [0, 1].

    ``answers``: their number. ``probability``: the mean of what is said. ``accuracy``: the share of right ones.
    """

    answers: int
    probability: float
    accuracy: float


def calibration_bins(probability: np.ndarray, right: np.ndarray) -> list[Bin]:
    """The bins of a reliability diagram that hold an answer, in rising order; both arguments have the shape (n,)."""
    number = np.minimum((probability * BINS).astype(int), BINS - 1)
    return [
        Bin(int(inside.sum()), float(probability[inside].mean()), float(right[inside].mean()))
        for each in range(BINS)
        if (inside := number == each).any()
    ]


def expected_calibration_error(bins: list[Bin]) -> float | None:
    """ECE, in [0, 1] (Guo et al. 2017, arXiv 1706.04599): the mean distance of probability and accuracy.

    Each bin weighs as many as its answers. None without any.
    """
    answers = sum(each.answers for each in bins)
    gaps = (each.answers * abs(each.probability - each.accuracy) for each in bins)
    return sum(gaps) / answers if answers else None
