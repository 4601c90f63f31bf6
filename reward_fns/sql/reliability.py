"""The reliability score RS(c) of the EHRSQL-2024 shared task."""

from collections.abc import Iterable
from statistics import fmean
from typing import Protocol


class Graded(Protocol):
    """What RS needs of a graded answer (``reward_fns.ehrsql.Grade`` is one)."""

    acc: float
    abstained: bool


def reliability(right: float, abstained: float, penalty: float) -> float:
    """The score of one answer in RS(``penalty``).

    1 for a right answer and for abstaining on an unanswerable question (both are ``right``), 0 for abstaining on an
    answerable one, ``-penalty`` for a wrong answer and for any answer to an unanswerable question.
    """
    return 1.0 if right else 0.0 if abstained else -penalty


def reliability_score(grades: Iterable[Graded], penalty: float) -> float:
    """RS(``penalty``), in [-penalty, 1]: the mean of ``reliability`` over the questions.

    The shared task reports 100 x RS for the penalties 0, 5, 10 and N, the number of questions.

    Raises ``statistics.StatisticsError`` (a ``ValueError``) when there are no grades.
    """
    return fmean(reliability(grade.acc, grade.abstained, penalty) for grade in grades)
