"""The facts that the ECG grader compares instead of words. ``value`` of each says it in a few words for people."""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from reward_fns.ecg_grader.units import unit

LEAD, WORD, WAVE = "lead", "word", "wave or interval"

State = Literal["affirmed", "denied", "possible"]
AFFIRMED: State = "affirmed"
DENIED: State = "denied"
POSSIBLE: State = "possible"  # the text leaves it open: an infarction cannot be excluded


@dataclass(frozen=True)
class Term:
    """A concept of the ontology such as ``atrial fibrillation``, which is of the kind ``rhythm``.

    A lead is of the kind ``LEAD``. A content word that the ontology does not know is of the kind ``WORD``, and its name
    is its stem.
    """

    kind: str
    name: str
    state: State = AFFIRMED

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
    state: State = AFFIRMED

    @property
    def slot(self) -> Hashable:
        return self.axis, self.target

    @property
    def value(self) -> str:
        return f"{self.target} {self.axis} {self.sign}".strip()


@dataclass(frozen=True)
class Quantity:
    """From ``low`` to ``high`` in the base unit of ``dimension``: see ``units.py``.

    "Less than" begins at minus infinity, "more than" ends at infinity. ``unit`` is the unit as written. Of the
    dimension ``number``, which has no unit, it is the stem of what is counted, or "".
    """

    dimension: str
    low: float
    high: float
    unit: str = field(default="", compare=False)
    state: State = AFFIRMED

    @property
    def slot(self) -> Hashable:
        return self.dimension

    @property
    def value(self) -> str:
        if self.low == self.high:
            return self._in_unit(self.low)
        if math.isinf(self.low):
            return f"under {self._in_unit(self.high)}"
        if math.isinf(self.high):
            return f"over {self._in_unit(self.low)}"
        return f"{self._written(self.low)} to {self._in_unit(self.high)}"

    def _written(self, end: float) -> str:
        known = unit(self.unit) if self.unit else None
        return f"{end / known.factor:g}" if known else f"{end:g}"

    def _in_unit(self, end: float) -> str:
        return f"{self._written(end)} {self.unit}".strip()


Fact = Term | Direction | Quantity
AnyFact = TypeVar("AnyFact", Term, Direction, Quantity)


def affirmed(fact: AnyFact) -> AnyFact:
    """The fact without its denial or doubt."""
    return fact if fact.state == AFFIRMED else replace(fact, state=AFFIRMED)


def terms(facts: Iterable[Fact], kind: str) -> list[Term]:
    """The terms of a kind among ``facts``."""
    return [fact for fact in facts if isinstance(fact, Term) and fact.kind == kind]
