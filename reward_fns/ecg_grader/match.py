"""Matches the facts of an answer with those of its reference: which it says, and which it contradicts."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable

from reward_fns.ecg_grader.facts import DIMENSIONS, DIRECTION, FACTORS, LEAD, WAVE, WORD, Fact, Reading, read
from reward_fns.ecg_grader.ontology import members, ontology
from reward_fns.ecg_grader.reference import Reference

# Shares of the common facts that an answer denies. Below the first, the denial may be an accident. From the second on,
# its severity is 1.
DENIED = 0.1, 0.5
DENIED_IN_DENIAL = 0.5  # the first share, if the reference itself denies something, or if yes or no agrees
WORD_DENIED = 0.6  # severity, if the answer denies only one word, and the ontology does not know that word
OTHER_STANCE = 0.6  # severity, if the answer implies the opposite yes or no without saying it
TOLERANCE = 0.05  # two numbers are equal if they differ by at most this share
OVERLAP = 0.8  # two ranges agree if they share at least this part of the wider range
LITTLE = 0.6  # if a reference adds less weight than this to the question, its yes or no is most of the answer
NO_VERDICT = 0.3  # factor of the coverage, if such a question gets neither yes nor no
RESTATED = 0.1  # with yes or no, the question's own facts earn at most this share of the missing coverage

# Severity, from 0 to 1: a direction is asserted the wrong way round, or a concept stands in place of another.
STRONG_AXES = ("duration", "level", "orientation", "speed", "regularity", "danger", "clarity")
WEAK_AXIS, OTHER_TARGET = 0.3, 0.7
BOTH_WAYS = 0.7  # both directions of the same thing: right answers may compare two states
ELSEWHERE = 0.3  # the opposite direction of something else
PART_REPLACED = 0.4  # some of the reference's concepts of a kind, but not all, are replaced
WEAK_KIND = 0.5
WEAK_KINDS = frozenset(
    ("layer", "phase", "person", "chamber", "stage", "process", "nerve", "pace", "ischemic disease", "inflammation")
    + ("pericardial disease", "valve lesion", "conduction tissue", WAVE)
)
# A concept of these kinds may replace the reference's even if the question names it.
ASKED_KINDS = ("wall", "rhythm", "conduction", "electrolyte disorder", "artery", "drug")
# An answer that names two concepts of these kinds with an "or" leaves the question open.
EXCLUSIVE_KINDS = frozenset(
    ASKED_KINDS
    + ("electrolyte", "chamber", "valve", "valve lesion", "valve disease", "thyroid", "temperature", "pace")
    + ("side of axis", "channelopathy", "cardiomyopathy", "infarction type", "ejection fraction", "conduction tissue")
)
OR_ANOTHER_DRUG = 0.6  # severity of "or another drug": right answers name several drugs
# If a reference names examples, an answer may name other examples. They end with the sentence.
_EXAMPLES = re.compile(
    r"(?:\b(?:such as|including|includes?|for example|for instance)\b|\be\.g\.)[^.;]*", re.IGNORECASE
)


class FactMatch:
    """The facts of an answer against those of the reference.

    ``weights`` are the reference's facts, novel and given; ``held`` says of each what the answer does: 1 says it, -1
    denies it, 0.5 says its direction of something else, 0 none of these.
    """

    def __init__(self, reading: Reading, reference: Reference) -> None:
        self.reading = reading
        self.reference = reference
        self.facts = reading.facts
        self.examples = {fact.slot for text in _EXAMPLES.findall(reference.text) for fact in read(text).facts}
        self.by_slot: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            self.by_slot[fact.slot].append(fact)
        self.weights = {**reference.novel, **reference.given}
        self.asked = {(fact.slot, fact.value) for fact in reference.question_facts}
        self.wall_leads = _leads_of(self.by_slot["wall"])
        # A wall that the question names says nothing of the leads that it asks for.
        self.said_leads = _leads_of(wall for wall in self.by_slot["wall"] if (wall.slot, wall.value) not in self.asked)
        self.held = {fact: self._holds(fact) for fact in self.weights}
        self.known = self.asked | {(fact.slot, fact.value) for fact in self.weights}

    def _holds(self, fact: Fact) -> float:
        """1 if the answer says ``fact``, -1 if it denies it, 0.5 for its direction without its target, else 0."""
        if fact in self.facts or fact.slot == LEAD and fact.value in self.said_leads:
            return 1
        if Fact(fact.slot, fact.value, not fact.negated) in self.facts:
            return -1
        for other in self.facts:
            # The class of a drug that the question names is not said by the drug's name.
            kin = related(other.value, fact.value) and (other.slot, other.value) not in self.asked
            if kin or _same_quantity(other, fact):
                return 1 if other.negated == fact.negated else -1
        if fact.slot.startswith(DIRECTION):
            axis = fact.slot.split()[1]
            asked = any(slot.startswith(DIRECTION + axis) and value == fact.value for slot, value in self.asked)
            same = (other for other in self._axis(fact) if (other.value, other.negated) == (fact.value, fact.negated))
            return 0.5 if not asked and any(same) else 0
        return 0

    def _axis(self, fact: Fact) -> list[Fact]:
        """The answer's directions on the axis of ``fact``, whatever they are about."""
        axis = DIRECTION + fact.slot.split()[1]
        return [other for slot, facts in self.by_slot.items() if slot.startswith(axis) for other in facts]

    def coverage(self) -> float:
        """Weighted share of the novel facts that the answer says.

        Where the question holds nearly all and asks whether they are so, the right yes or no with them counts too, and
        where it holds all, they are all there is.
        """
        novel, verdict = self.reference.novel, self.reference.polarity
        restated = self._share(self.weights)
        if verdict and self.reading.stance != verdict:
            restated = 0.0
        if not novel:
            return restated
        share = self._share(novel)
        if verdict and sum(novel.values()) < LITTLE:
            share = share + (1 - share) * RESTATED * restated if self.reading.stance else share * NO_VERDICT
        return share

    def known_coverage(self) -> float:
        """The same for the novel facts that the ontology knows; 0 where there are none."""
        return self._share({fact: weight for fact, weight in self.reference.novel.items() if fact.slot != WORD})

    def _share(self, facts: dict[Fact, float]) -> float:
        total = sum(facts.values())
        return sum(weight * max(self.held[fact], 0) for fact, weight in facts.items()) / total if total else 0.0

    def contradictions(self):
        """Yields (size, reason) for each contradiction."""
        agrees = self.reading.stance == self.reference.polarity
        if self.reference.polarity and self.reading.stance and not agrees:
            outright = self.reading.stance == self.reading.polarity
            yield 1.0 if outright else OTHER_STANCE, f"{self.reading.stance} for {self.reference.polarity}"
        if self.reading.hedge and self.reading.hedge not in self.reference.text.lower():
            yield 1.0, f"hedged: {self.reading.hedge}"
        restriction = self.reading.restriction
        if self.reference.polarity == "yes" and restriction and restriction not in self.reference.text.lower():
            yield 1.0, f"restricted: {restriction}"
        shared = sum(weight for fact, weight in self.weights.items() if self.held[fact])
        denied = sum(weight for fact, weight in self.weights.items() if self.held[fact] < 0)
        lenient = any(fact.negated for fact in self.weights) or self.reference.polarity and agrees
        least, full = DENIED
        if shared and denied / shared >= (DENIED_IN_DENIAL if lenient else least):
            facts = [fact for fact in self.weights if self.held[fact] < 0]
            by_accident = len(facts) == 1 and facts[0].slot == WORD
            size = min(1.0, denied / shared / full) * (WORD_DENIED if by_accident else 1.0)
            yield size, "denied: " + ", ".join(fact.value for fact in facts)
        slots: dict[str, dict[Fact, float]] = defaultdict(dict)
        for fact, weight in self.weights.items():
            if not fact.negated and fact.slot != WORD:
                slots[fact.slot][fact] = weight
        for slot, facts in slots.items():
            if slot.startswith(DIRECTION):
                yield from self._this_way_or_that(slot, {fact.value for fact in facts})
                yield from self._turned_round(slot, facts)
                continue
            if slot not in ASKED_KINDS:
                facts = {fact: weight for fact, weight in facts.items() if fact in self.reference.novel}
            if facts:
                exclusive = slot in EXCLUSIVE_KINDS and slot not in self.examples
                if slot == LEAD or slot in DIMENSIONS or exclusive:
                    yield from self._this_or_that(slot, facts)
                yield from self._other_leads(facts) if slot == LEAD else self._replaced(slot, facts)

    def _turned_round(self, slot: str, facts: dict[Fact, float]):
        values = {fact.value for fact in facts}
        weight = max(facts.values())
        said = {fact.value for fact in self.by_slot[slot] if not fact.negated}
        _, axis, target = slot.split(" ", 2)
        if len(values) == 1 and len(said) == 2 and axis in STRONG_AXES:
            yield BOTH_WAYS, f"both ways of {axis} of {target}"
        elif len(values) == 1 and said and not said & values:
            size = 1.0 if axis in STRONG_AXES else WEAK_AXIS
            yield (
                size * weight * (1.0 if target in ontology()["concepts"][WAVE] else OTHER_TARGET),
                f"opposite {axis} of {target}",
            )
        elif axis in STRONG_AXES:
            wanted = {fact.value for fact in self.weights if fact.slot.startswith(DIRECTION + axis)}
            said = {fact.value for fact in self._axis(next(iter(facts))) if not fact.negated}
            if len(wanted) == 1 and said and not said & wanted:
                yield ELSEWHERE * weight, f"opposite {axis}"

    def _this_way_or_that(self, slot: str, values: set[str]):
        """Parts of a sentence, with "or" between them, that say opposite directions of the same thing."""
        _, axis, target = slot.split(" ", 2)
        if axis not in STRONG_AXES or len(values) > 1:
            return
        for parts in self.reading.branches:
            # "It shortens" leaves open what, and the other part says it.
            near = [
                {fact.value for fact in part if fact.slot in (f"{DIRECTION}{axis} ", slot) and not fact.negated}
                for part in parts
            ]
            if {"+"} in near and {"-"} in near:
                yield 1.0, f"either {axis} of {target}"

    def _other_leads(self, facts: dict[Fact, float]):
        wanted = {fact.value for fact in facts}
        said = {fact.value for fact in self.by_slot[LEAD] if not fact.negated} or self.wall_leads
        if said and not said & wanted:
            yield 1.0, f"leads {', '.join(sorted(said))} for {', '.join(sorted(wanted))}"
        elif said - wanted and len(said & wanted) < 0.5 * len(said | wanted):
            yield 0.6, f"leads {', '.join(sorted(said - wanted))} besides {', '.join(sorted(said & wanted))}"

    def _replaced(self, slot: str, facts: dict[Fact, float]):
        missing = {fact: weight for fact, weight in facts.items() if self.held[fact] <= 0}
        extra = [
            other.value
            for other in self.by_slot[slot]
            if not other.negated and (other.slot, other.value) not in self.known and not self._says(other, facts)
        ]
        if missing and extra:
            size = max(missing.values()) * (1.0 if len(missing) == len(facts) else PART_REPLACED)
            named = ", ".join(fact.value for fact in missing)
            yield size * (WEAK_KIND if slot in WEAK_KINDS else 1.0), f"{slot}: {', '.join(extra)} for {named}"
        elif slot in ASKED_KINDS and slot not in self.examples:
            yield from self._alternatives(slot, facts, extra)

    def _this_or_that(self, slot: str, facts: dict[Fact, float]):
        """Parts of a sentence, with "or" between them, of which one names the reference's and one something else."""
        branches = self.reading.branches
        if not branches or any(self._says(fact, facts) for fact in self.reading.outright):
            return
        for parts in branches:
            right = [any(self._says(fact, facts) for fact in part) for part in parts]
            others = [
                name
                for part, also_right in zip(parts, right, strict=True)
                if not also_right
                for name in self._others(part, slot)
            ]
            if any(right) and others:
                size = OR_ANOTHER_DRUG if slot == "drug" else 1.0
                yield size, f"{slot}: {', '.join(others)} or the right one"

    def _says(self, fact: Fact, facts: Iterable[Fact]) -> bool:
        """Whether ``fact`` is one of ``facts``, or one of its class."""
        return any(
            fact == other or not fact.negated and (related(fact.value, other.value) or _same_quantity(fact, other))
            for other in facts
        )

    def _others(self, part: frozenset[Fact], slot: str) -> list[str]:
        """What a part of a sentence names of the slot that neither the reference nor the question does."""
        named = {fact.value for fact in part if fact.slot == slot and not fact.negated}
        if slot == LEAD:
            named |= _leads_of(fact for fact in part if fact.slot == "wall")
        return sorted(name for name in named if (slot, name) not in self.known)

    def _alternatives(self, slot: str, facts: dict[Fact, float], extra: list[str]):
        """Others of the kind in the sentence that names the reference's: it is this, that or the other."""
        said = {fact: sentence for fact, sentence in self.facts.items() if fact.slot == slot and not fact.negated}
        right = {sentence for fact, sentence in said.items() if fact in facts}
        others = [fact.value for fact, sentence in said.items() if fact.value in extra and sentence in right]
        if others:
            share = len(others) / (len(others) + len(facts))
            yield share if len(others) > 1 else share / 2, f"{slot}: {', '.join(others)} besides"


def _leads_of(walls: Iterable[Fact]) -> set[str]:
    """The leads that look at the walls that are not denied."""
    return {lead for wall in walls if not wall.negated for lead in ontology()["leads_of"][wall.value]}


def related(concept: str, other: str) -> bool:
    """One is a class of the ontology, the other a member."""
    return other in members().get(concept, ()) or concept in members().get(other, ())


def _same_quantity(fact: Fact, other: Fact) -> bool:
    """Whether two facts are quantities that agree; one without a unit may be in any unit of the other's dimension."""
    if not {fact.slot, other.slot} <= DIMENSIONS:
        return False
    if fact.slot == other.slot:
        return _near(_ends(fact), _ends(other))
    if "number" not in (fact.slot, other.slot):
        return False
    bare, full = (fact, other) if fact.slot == "number" else (other, fact)
    return any(_near([end * factor for end in _ends(bare)], _ends(full)) for factor in FACTORS[full.slot])


def _ends(fact: Fact) -> list[float]:
    return [float(end) for end in fact.value.split()]


def _near(ends: list[float], other_ends: list[float]) -> bool:
    """Whether two ranges (least, most) agree within the tolerance, or overlap nearly all.

    A bound such as "over 120 ms" agrees with the same bound, and with a number or range that ends there.
    """
    (low, high), (other_low, other_high) = ends, other_ends
    same_low, same_high = _close(low, other_low), _close(high, other_high)
    if not all(map(math.isfinite, (*ends, *other_ends))):
        return same_low and math.isfinite(low) or same_high and math.isfinite(high)
    if same_low and same_high:
        return True
    widest = max(high - low, other_high - other_low)
    return widest > 0 and min(high, other_high) - max(low, other_low) >= OVERLAP * widest


def _close(value: float, other: float) -> bool:
    return value == other or abs(value - other) <= TOLERANCE * min(abs(value), abs(other))
