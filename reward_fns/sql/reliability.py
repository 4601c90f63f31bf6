"""The reliability score RS(c) of the EHRSQL-2024 shared task."""

from collections.abc import Iterable
from statistics import fmean
from typing import Protocol


class Graded(Protocol):
    """What RS needs of a graded answer (``reward_fns.ehrsql.Grade`` is one)."""

    acc: float
    abstained: bool


def reliability_score(grades: Iterable[Graded], penalty: float) -> float:
    """Return the mean of the per-question scores, in [-penalty, 1].

    +1 for a right answer and for abstaining on an unanswerable question (both have ``acc`` 1), 0 for abstaining on
    an answerable one, ``-penalty`` for a wrong answer and for any answer to an unanswerable question. The shared task
    reports 100 x RS for penalties 0, 5, 10 and N, the number of questions.

    Raises ``statistics.StatisticsError`` (a ``ValueError``) when there are no grades.
    """
    return fmean(1.0 if grade.acc else 0.0 if grade.abstained else -penalty for grade in grades)
