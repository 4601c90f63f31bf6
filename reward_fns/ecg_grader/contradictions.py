"""What an answer says against its reference."""

import re
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from reward_fns.ecg_grader import parameters
from reward_fns.ecg_grader.facts import DENIED, LEAD, WAVE, Direction, Fact, Quantity, Term, affirmed, terms
from reward_fns.ecg_grader.leads import leads_of
from reward_fns.ecg_grader.match import FactMatch, is_word, says
from reward_fns.ecg_grader.ontology import ontology
from reward_fns.ecg_grader.quantities import DOSES, other_unit
from reward_fns.ecg_grader.reading import read

# If a reference names examples, an answer may name other examples. They end with the sentence.
_EXAMPLES = re.compile(
    r"(?:\b(?:such as|including|includes?|for example|for instance)\b|\be\.g\.)[^.;]*", re.IGNORECASE
)


@dataclass(frozen=True)
class Contradiction:
    """``severity`` in (0, 1]; ``facts`` are those of the reference that the answer contradicts, if it is about facts.

    ``reason`` says it in a few words for people.
    """

    severity: float
    reason: str
    facts: tuple[Fact, ...] = ()


def contradictions(match: FactMatch) -> Iterator[Contradiction]:
    """What the answer says against the reference: a yes or no, a denial, another fact in place of the reference's."""
    yield from _verdict(match)
    yield from _denial(match)
    examples = {
        term.kind
        for text in _EXAMPLES.findall(match.reference.text)
        for term in read(text).facts
        if isinstance(term, Term)
    }
    for facts in _by_slot(match):
        if isinstance(first := next(iter(facts)), Direction):
            yield from _either_way(match, first, facts)
            yield from _turned_round(match, first, facts)
            continue
        of_asked_kind = isinstance(first, Term) and _is(first.kind, "replaceable when asked")
        if not of_asked_kind:
            facts = {fact: weight for fact, weight in facts.items() if fact in match.reference.novel}
        if not facts:
            continue
        if isinstance(first, Quantity):
            yield from _this_or_that(match, first, facts)
            yield from _replaced(match, "quantity", 1.0, facts)
            yield from _wrong_unit(match, facts)
        elif first.kind == LEAD:
            yield from _this_or_that(match, first, facts)
            yield from _other_leads(match, facts)
        else:
            exclusive = first.kind not in examples
            if exclusive and _is(first.kind, "exclusive"):
                yield from _this_or_that(match, first, facts)
            factor = parameters.WEAK_KIND if _is(first.kind, "weak") else 1.0
            replaced = [*_replaced(match, first.kind, factor, facts)]
            yield from replaced
            if not replaced and exclusive and of_asked_kind:
                yield from _alternatives(match, first.kind, facts)


def _is(kind: str, role: str) -> bool:
    """Whether the ontology gives a kind of concepts, or an axis of directions, this role."""
    return kind in ontology()["roles of kinds"][role]


def _by_slot(match: FactMatch) -> Sequence[dict[Fact, float]]:
    """The reference's facts that it does not deny, by their slots, without words that the ontology does not know."""
    slots: dict[Hashable, dict[Fact, float]] = defaultdict(dict)
    for fact, weight in match.weights.items():
        if fact.state != DENIED and not is_word(fact):
            slots[fact.slot][fact] = weight
    return [*slots.values()]


def _verdict(match: FactMatch) -> Iterator[Contradiction]:
    reading, reference = match.reading, match.reference
    if reference.polarity and reading.stance and reading.stance != reference.polarity:
        outright = reading.stance == reading.polarity
        severity = 1.0 if outright else parameters.OTHER_STANCE
        yield Contradiction(severity, f"{reading.stance} for {reference.polarity}")
    if reading.hedge and reading.hedge not in reference.text.lower():
        yield Contradiction(1.0, f"hedged: {reading.hedge}")
    if reference.polarity == "yes" and reading.restriction and reading.restriction not in reference.text.lower():
        yield Contradiction(1.0, f"restricted: {reading.restriction}")


def _denial(match: FactMatch) -> Iterator[Contradiction]:
    shared = sum(weight for fact, weight in match.weights.items() if match.held[fact])
    facts = tuple(fact for fact in match.weights if match.held[fact] < 0)
    if not facts:
        return
    share = sum(match.weights[fact] for fact in facts) / shared
    verdict = match.reference.polarity
    lenient = any(fact.state == DENIED for fact in match.weights) or verdict and match.reading.stance == verdict
    if share < (parameters.DENIED_FROM_IN_DENIAL if lenient else parameters.DENIED_FROM):
        return
    by_accident = len(facts) == 1 and is_word(facts[0])
    severity = min(1.0, share / parameters.DENIED_IN_FULL) * (parameters.WORD_DENIED if by_accident else 1.0)
    yield Contradiction(severity, f"denied: {_names(facts)}", facts)


def _turned_round(match: FactMatch, first: Direction, facts: dict[Fact, float]) -> Iterator[Contradiction]:
    axis, strong, weight = first.axis, _is(first.axis, "strong axes"), max(facts.values())
    wanted = _signs(facts)
    said = _signs(match.by_slot[first.slot])
    if len(wanted) == 1 and len(said) == 2 and strong:
        yield Contradiction(parameters.BOTH_WAYS, f"both ways of {axis} of {first.target}", tuple(facts))
    elif len(wanted) == 1 and said and not said & wanted:
        of_wave = first.target in ontology()["concepts"][WAVE]
        factor = (1.0 if strong else parameters.WEAK_AXIS) * (1.0 if of_wave else parameters.OTHER_TARGET)
        yield Contradiction(factor * weight, f"opposite {axis} of {first.target}", tuple(facts))
    elif strong:
        on_axis = tuple(fact for fact in match.weights if isinstance(fact, Direction) and fact.axis == axis)
        wanted = {fact.sign for fact in on_axis}
        said = _signs(fact for fact in match.facts if isinstance(fact, Direction) and fact.axis == axis)
        if len(wanted) == 1 and said and not said & wanted:
            yield Contradiction(parameters.ELSEWHERE * weight, f"opposite {axis}", on_axis)


def _signs(facts: Iterable[Fact]) -> set[str]:
    """The signs of directions that are not denied."""
    return {fact.sign for fact in facts if fact.state != DENIED}


def _either_way(match: FactMatch, first: Direction, facts: Collection[Fact]) -> Iterator[Contradiction]:
    """Parts of a sentence, with "or" between them, that say opposite directions of the same thing."""
    if not _is(first.axis, "strong axes") or len(_signs(facts)) > 1:
        return
    # "It shortens" leaves open what, and the other part says it.
    slots = (first.slot, Direction(first.axis, "", "+").slot)
    for parts in match.reading.branches:
        signs = [_signs(fact for fact in part if fact.slot in slots) for part in parts]
        if {"+"} in signs and {"-"} in signs:
            yield Contradiction(1.0, f"either {first.axis} of {first.target}")


def _other_leads(match: FactMatch, facts: Collection[Fact]) -> Iterator[Contradiction]:
    wanted = set(facts)
    said = {lead for lead in terms(match.facts, LEAD) if lead.state != DENIED} or match.wall_leads
    if said and not said & wanted:
        reason = f"leads {_names(sorted(said, key=_name))} for {_names(sorted(wanted, key=_name))}"
        yield Contradiction(parameters.OTHER_LEADS, reason, tuple(facts))
    elif said - wanted and len(said & wanted) < parameters.COMMON_LEADS * len(said | wanted):
        reason = f"leads {_names(sorted(said - wanted, key=_name))} besides {_names(sorted(said & wanted, key=_name))}"
        yield Contradiction(parameters.MORE_LEADS, reason)


def _others(match: FactMatch, slot: Hashable, facts: Collection[Fact]) -> list[Fact]:
    """What the answer names of the slot that neither the reference nor the question names."""
    return [
        other
        for other in match.by_slot[slot]
        if other.state != DENIED and other not in match.known and not says(other, facts)
    ]


def _replaced(match: FactMatch, name: str, factor: float, facts: dict[Fact, float]) -> Iterator[Contradiction]:
    missing = tuple(fact for fact in facts if match.held[fact] <= 0)
    others = _others(match, next(iter(facts)).slot, facts)
    if missing and others:
        part = 1.0 if len(missing) == len(facts) else parameters.PART_REPLACED
        severity = max(facts[fact] for fact in missing) * part * factor
        yield Contradiction(severity, f"{name}: {_names(others)} for {_names(missing)}", missing)


def _wrong_unit(match: FactMatch, facts: dict[Fact, float]) -> Iterator[Contradiction]:
    """The reference's number with a unit of another kind, or a dose in another measure: mL in place of mg."""
    said = [fact for fact in match.facts if isinstance(fact, Quantity) and fact.state != DENIED]
    for fact, weight in facts.items():
        wrong = [
            other
            for other in said
            if match.held[fact] <= 0
            and other not in match.known
            and (
                other_unit(fact, other)
                or fact.dimension != other.dimension
                and {fact.dimension, other.dimension} <= DOSES
            )
        ]
        if wrong:
            yield Contradiction(weight, f"quantity: {_names(wrong)} for {fact.value}", (fact,))


def _this_or_that(match: FactMatch, first: Term | Quantity, facts: Collection[Fact]) -> Iterator[Contradiction]:
    """Parts of a sentence, with "or" between them, of which one names the reference's and one something else."""
    branches = match.reading.branches
    if not branches or any(says(fact, facts) for fact in match.reading.outright):
        return
    name = first.kind if isinstance(first, Term) else "quantity"
    for parts in branches:
        right = [any(says(fact, facts) for fact in part) for part in parts]
        others = [
            value
            for part, also_right in zip(parts, right, strict=True)
            if not also_right
            for value in _unknown(match, first, part)
        ]
        if any(right) and others:
            severity = parameters.OR_ANOTHER_DRUG if name == "drug" else 1.0
            yield Contradiction(severity, f"{name}: {', '.join(others)} or the right one")


def _unknown(match: FactMatch, first: Term | Quantity, part: Collection[Fact]) -> list[str]:
    """What a part of a sentence names of a slot that neither the reference nor the question does."""
    named = {fact for fact in part if fact.slot == first.slot and fact.state != DENIED}
    if first.slot == LEAD:
        named |= leads_of(terms(part, "wall"))
    return sorted(fact.value for fact in named if fact not in match.known)


def _alternatives(match: FactMatch, kind: str, facts: Collection[Fact]) -> Iterator[Contradiction]:
    """Others of the kind in the sentence that names the reference's: it is this, that or the other."""
    right = {match.facts[fact] for fact in facts if fact in match.facts}
    others = [other for other in _others(match, kind, facts) if match.facts[other] in right]
    if others:
        share = len(others) / (len(others) + len(facts))
        yield Contradiction(share if len(others) > 1 else share / 2, f"{kind}: {_names(others)} besides")


def _name(fact: Fact) -> str:
    return affirmed(fact).value


def _names(facts: Collection[Fact]) -> str:
    return ", ".join(fact.value for fact in facts)
