"""The reliability score RS(c) of the EHRSQL-2024 shared task."""

from collections.abc import Iterable
from statistics import fmean
from typing import NamedTuple, Protocol


class Graded(Protocol):
    """What RS needs of a graded answer (``reward_fns.ehrsql.Grade`` is one)."""

    acc: float
    abstained: bool


class Verdict(NamedTuple):
    """The least that is ``Graded``."""

    acc: float
    abstained: bool


def reliability(right: float, abstained: float, penalty: float) -> float:
    """The score of one answer in RS(``penalty``).

    1 for a right answer and for abstaining on an unanswerable question (both are ``right``), 0 for abstaining on an
    answerable one, ``-penalty`` for a wrong answer and for any answer to an unanswerable question.
    """
    return 1.0 if right else 0.0 if abstained else -penalty


def official_penalties(questions: int) -> dict[str, int]:
    """The penalties of the shared task's scores by their names; N is the number of questions.

    >>> official_penalties(1167)
    {'RS(0)': 0, 'RS(5)': 5, 'RS(10)': 10, 'RS(N)': 1167}
    """
    return {f"RS({name})": penalty for name, penalty in {"0": 0, "5": 5, "10": 10, "N": questions}.items()}


def reliability_score(grades: Iterable[Graded], penalty: float) -> float:
    """RS(``penalty``), in [-penalty, 1]: the mean of ``reliability`` over the questions.

    The shared task reports 100 x RS for ``official_penalties``.

    Raises ``statistics.StatisticsError`` (a ``ValueError``) when there are no grades.
    """
    return fmean(reliability(grade.acc, grade.abstained, penalty) for grade in grades)
