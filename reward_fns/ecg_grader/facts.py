"""The facts that the ECG grader compares instead of words. ``value`` of each says it in a few words for people."""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

LEAD, WORD, WAVE = "lead", "word", "wave or interval"


@dataclass(frozen=True)
class Term:
    """A concept of the ontology such as ``atrial fibrillation``, which is of the kind ``rhythm``.

    A lead is of the kind ``LEAD``. A content word that the ontology does not know is of the kind ``WORD``, and its name
    is its stem.
    """

    kind: str
    name: str
    negated: bool = False

    @property
    def slot(self) -> Hashable:
        """Facts of one slot are alternatives, or complete each other."""
        return self.kind

    @property
    def value(self) -> str:
        return self.name


@dataclass(frozen=True)
class Direction:
    """``axis`` is one of the ontology's, such as ``duration``; ``sign`` is ``+`` or ``-``.

    ``target`` is what gets longer or shorter: the name of a concept, the stem of a word, or "".
    """

    axis: str
    target: str
    sign: str
    negated: bool = False

    @property
    def slot(self) -> Hashable:
        return self.axis, self.target

    @property
    def value(self) -> str:
        return f"{self.target} {self.axis} {self.sign}".strip()


@dataclass(frozen=True)
class Quantity:
    """From ``low`` to ``high``, in the unit of the dimension that ``quantities.py`` converts to.

    "Less than" begins at minus infinity, "more than" ends at infinity. The dimension ``number`` has no unit.
    """

    dimension: str
    low: float
    high: float
    negated: bool = False

    @property
    def slot(self) -> Hashable:
        return self.dimension

    @property
    def value(self) -> str:
        if self.low == self.high:
            return f"{self.low:g}"
        if math.isinf(self.low):
            return f"under {self.high:g}"
        return f"over {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"


Fact = Term | Direction | Quantity
AnyFact = TypeVar("AnyFact", Term, Direction, Quantity)


def affirmed(fact: AnyFact) -> AnyFact:
    """The fact without its negation."""
    return replace(fact, negated=False) if fact.negated else fact


def denied(fact: AnyFact) -> AnyFact:
    """The opposite: a fact negated, or its negation taken away."""
    return replace(fact, negated=not fact.negated)


def terms(facts: Iterable[Fact], kind: str) -> list[Term]:
    """The terms of a kind among ``facts``."""
    return [fact for fact in facts if isinstance(fact, Term) and fact.kind == kind]
