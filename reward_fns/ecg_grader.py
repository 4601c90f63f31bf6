"""Grades an ECG answer by the facts that it shares with the reference answer, and by those that it contradicts.

1. Coverage: the weighted share of the reference's facts that the question does not hold already. ``FULL_COVERAGE`` of
   it is enough, so that a right answer in ten words scores like one in a hundred.
2. Contradiction: a fact denied, the opposite direction, another lead, rhythm, drug or number in place of the
   reference's, yes for no. It lowers the score; from ``KEY_CONTRADICTION`` on it caps it at ``CONTRADICTED``.
3. Similarity in meaning joins for what the ontology does not know. It is bounded, it is never enough alone, and an
   answer about something else is cut by it.

The thresholds were chosen on 160 questions of ECG-Expert-QA with right and wrong answers written for them
(tests/test_ecg_grader.py measures them).
"""

from collections import defaultdict
from dataclasses import dataclass

from rapidfuzz import fuzz, utils

from reward_fns.ecg_facts import (
    DIMENSIONS,
    DIRECTION,
    LEAD,
    MAX_CHARS,
    WAVE,
    WORD,
    Fact,
    Reading,
    members,
    ontology,
    read,
)
from reward_fns.ecg_reference import Reference
from reward_fns.ecg_similarity import similarity

FULL_COVERAGE = 0.45
FINDINGS_COVERAGE = 0.8  # of a report, which is meant to be complete
KEY_CONTRADICTION = 0.9
CONTRADICTED = 0.05
DENIED = 0.1  # share of the common facts that an answer may deny by accident of scope
DENIED_IN_DENIAL = 0.5  # the same where the reference itself denies something, or yes or no agrees
TOLERANCE = 0.05  # of a number
SAME_ENTITY = 85  # of 100, rapidfuzz's ratio of the sorted words
MEANING_SHARE = 0.3  # the most that similarity in meaning adds
POLARITY_SHARE = 0.7  # the most that the right yes or no earns, with the reference's meaning
ON_TOPIC = 0.28, 0.48  # similarity to the reference below and above which an answer is off and on topic
TELEGRAM_WORDS, TELEGRAM_FUNCTION_WORDS = 20, 0.12  # a list of terms this long without grammar is stuffing
LEAST_REASON_WORDS = 5  # with yes or no
SHORT_WORDS = 8

# A direction that is asserted the wrong way round, and a concept in place of another: how much it matters, of 1.
STRONG_AXES = ("duration", "level", "orientation", "speed", "regularity")
WEAK_AXIS, OTHER_TARGET = 0.3, 0.7
ELSEWHERE = 0.3  # the axis's opposite, said of something else
PART_REPLACED = 0.4
WEAK_KIND = 0.5
WEAK_KINDS = frozenset(
    ("layer", "phase", "person", "chamber", "stage", "process", "nerve", "pace", "ischemic disease", "inflammation")
    + ("pericardial disease", "valve lesion", "conduction tissue", WAVE)
)
# Replaced even where the question names it.
ASKED_KINDS = ("wall", "rhythm", "conduction", "electrolyte disorder", "artery", "drug")


@dataclass(frozen=True)
class EcgGrade:
    """All in [0, 1]. ``contradiction`` is that of the worst contradiction; ``reasons`` name all of them."""

    correctness: float
    coverage: float
    contradiction: float
    reasons: tuple[str, ...] = ()


def grade(answer: str, reference: Reference) -> EcgGrade:
    """Grade ``answer``, the model's text without any reasoning, against ``reference``.

    An empty answer scores 0, and so does one that ends as a question: the question copied, with or without a verdict.
    """
    if not answer.strip() or answer.rstrip().endswith("?"):
        return EcgGrade(0.0, 0.0, 0.0)
    if reference.kind == "entities":
        f1 = entity_f1(split_entities(answer), reference.entities)
        return EcgGrade(f1, f1, 0.0)
    reading = read(answer)
    match = _Match(reading, reference)
    coverage = match.coverage()
    contradictions = list(match.contradictions())
    worst = max((size for size, _ in contradictions), default=0.0)
    reasons = tuple(reason for _, reason in contradictions)
    if worst >= KEY_CONTRADICTION:
        return EcgGrade(min(coverage, CONTRADICTED), coverage, worst, reasons)
    if _stuffed(answer, reading):
        return EcgGrade(0.0, coverage, worst, reasons)
    full = FINDINGS_COVERAGE if reference.kind == "findings" else FULL_COVERAGE
    value = _with_meaning(min(1.0, coverage / full), match.known_coverage(), answer, reading, reference)
    return EcgGrade(value * (1 - worst) ** 2, coverage, worst, reasons)


def _with_meaning(value: float, known: float, answer: str, reading: Reading, reference: Reference) -> float:
    """``value`` of the facts, raised for an answer that means what the reference does, cut for one off topic.

    A short answer such as "0.12-0.20 s" has little meaning by itself: what it holds of the ontology's facts, ``known``,
    tells the topic as well.
    """
    meaning = similarity(answer[:MAX_CHARS], reference.text)
    if value < 1:
        question = similarity(reference.question, reference.text)
        echo = similarity(answer[:MAX_CHARS], reference.question) >= 0.97
        if meaning >= 0.5 and not echo:
            value += MEANING_SHARE * _clip(0.5 + (meaning - question) / (1 - question + 1e-6))
        if reference.polarity and reading.polarity == reference.polarity and reading.words >= LEAST_REASON_WORDS:
            value = max(value, 0.1 + (POLARITY_SHARE - 0.1) * _clip((meaning - 0.3) / 0.3))
    off, on = ON_TOPIC
    topic = _clip((meaning - off) / (on - off))
    return min(1.0, value) * (max(known, topic) if reading.words <= SHORT_WORDS else topic)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def _stuffed(answer: str, reading: Reading) -> bool:
    """A long list of terms without grammar, or the same words over and over."""
    if reading.words < TELEGRAM_WORDS:
        return False
    words = answer.lower().split()
    runs = [tuple(words[start : start + 3]) for start in range(len(words) - 2)]
    return reading.function_words < TELEGRAM_FUNCTION_WORDS or len(set(runs)) < len(runs) / 2


def split_entities(text: str) -> list[str]:
    """The items of a list that is separated by commas, semicolons, line breaks or bullets."""
    for separator in (";", "\n", "•", "- "):
        text = text.replace(separator, ",")
    return [item.strip(" .") for item in text.split(",") if item.strip(" .")]


def entity_f1(predicted: list[str], expected: tuple[str, ...]) -> float:
    """F1 of the two sets, each item matched once; order and case of an item's words do not count."""
    open_items = list(dict.fromkeys(expected))
    predicted = list(dict.fromkeys(predicted))
    hits = 0
    for item in predicted:
        scores = [fuzz.token_sort_ratio(item, other, processor=utils.default_process) for other in open_items]
        if scores and max(scores) >= SAME_ENTITY:
            open_items.pop(scores.index(max(scores)))
            hits += 1
    total = len(predicted) + len(set(expected))
    return 2 * hits / total if total else 0.0


class _Match:
    """The facts of an answer against those of the reference."""

    def __init__(self, reading: Reading, reference: Reference) -> None:
        self.reading = reading
        self.reference = reference
        self.facts = reading.facts
        self.by_slot: dict[str, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            self.by_slot[fact.slot].append(fact)
        leads_of = ontology()["leads_of"]
        self.wall_leads = {lead for fact in self.by_slot["wall"] if not fact.negated for lead in leads_of[fact.value]}
        self.weights = {**reference.novel, **reference.given}
        self.held = {fact: self._holds(fact) for fact in self.weights}
        self.known = {(fact.slot, fact.value) for fact in (*self.weights, *reference.question_facts)}

    def _holds(self, fact: Fact) -> float:
        """1 if the answer says ``fact``, -1 if it denies it, 0.5 for its direction without its target, else 0."""
        if fact in self.facts or fact.slot == LEAD and fact.value in self.wall_leads:
            return 1
        if Fact(fact.slot, fact.value, not fact.negated) in self.facts:
            return -1
        if fact.slot in DIMENSIONS and any(_near(other.value, fact.value) for other in self.by_slot[fact.slot]):
            return 1
        for other in self.facts:
            if _related(other.value, fact.value):
                return 1 if other.negated == fact.negated else -1
        if fact.slot.startswith(DIRECTION):
            same = (other for other in self._axis(fact) if (other.value, other.negated) == (fact.value, fact.negated))
            return 0.5 if any(same) else 0
        return 0

    def _axis(self, fact: Fact) -> list[Fact]:
        """The answer's directions on the axis of ``fact``, whatever they are about."""
        axis = DIRECTION + fact.slot.split()[1]
        return [other for slot, facts in self.by_slot.items() if slot.startswith(axis) for other in facts]

    def coverage(self) -> float:
        """Weighted share of the novel facts that the answer says.

        Of all, where the question holds nearly all and asks whether they are so: then the right yes or no is needed.
        """
        facts = self.reference.novel
        if sum(facts.values()) < 0.6 and self.reading.polarity == self.reference.polarity:
            facts = self.weights
        total = sum(facts.values())
        return sum(weight * max(self.held[fact], 0) for fact, weight in facts.items()) / total if total else 0.0

    def known_coverage(self) -> float:
        """The same for the novel facts that the ontology knows; 0 where there are none."""
        facts = {fact: weight for fact, weight in self.reference.novel.items() if fact.slot != WORD}
        total = sum(facts.values())
        return sum(weight * max(self.held[fact], 0) for fact, weight in facts.items()) / total if total else 0.0

    def contradictions(self):
        """Yields (size, reason) for each contradiction."""
        agrees = self.reading.polarity == self.reference.polarity
        if self.reference.polarity and self.reading.polarity and not agrees:
            yield 1.0, f"{self.reading.polarity} for {self.reference.polarity}"
        shared = sum(weight for fact, weight in self.weights.items() if self.held[fact])
        denied = sum(weight for fact, weight in self.weights.items() if self.held[fact] < 0)
        lenient = any(fact.negated for fact in self.weights) or self.reference.polarity and agrees
        if shared and denied / shared >= (DENIED_IN_DENIAL if lenient else DENIED):
            yield 1.0, "denied: " + ", ".join(fact.value for fact in self.weights if self.held[fact] < 0)
        slots: dict[str, dict[Fact, float]] = defaultdict(dict)
        for fact, weight in self.weights.items():
            if not fact.negated and fact.slot != WORD:
                slots[fact.slot][fact] = weight
        for slot, facts in slots.items():
            if slot.startswith(DIRECTION):
                yield from self._turned_round(slot, facts)
                continue
            if slot not in ASKED_KINDS:
                facts = {fact: weight for fact, weight in facts.items() if fact in self.reference.novel}
            if facts:
                yield from self._other_leads(facts) if slot == LEAD else self._replaced(slot, facts)

    def _turned_round(self, slot: str, facts: dict[Fact, float]):
        values = {fact.value for fact in facts}
        weight = max(facts.values())
        said = {fact.value for fact in self.by_slot[slot] if not fact.negated}
        _, axis, target = slot.split(" ", 2)
        if len(values) == 1 and len(said) == 2 and axis in STRONG_AXES:
            yield 1.0, f"both ways of {axis} of {target}"
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

    def _other_leads(self, facts: dict[Fact, float]):
        wanted = {fact.value for fact in facts}
        said = {fact.value for fact in self.by_slot[LEAD]} or self.wall_leads
        if said and not said & wanted:
            yield 1.0, f"leads {', '.join(sorted(said))} for {', '.join(sorted(wanted))}"
        elif said - wanted and len(said & wanted) < 0.5 * len(said | wanted):
            yield 0.6, f"leads {', '.join(sorted(said - wanted))} besides {', '.join(sorted(said & wanted))}"

    def _replaced(self, slot: str, facts: dict[Fact, float]):
        missing = {fact: weight for fact, weight in facts.items() if self.held[fact] <= 0}
        extra = [
            other.value
            for other in self.by_slot[slot]
            if not other.negated
            and (other.slot, other.value) not in self.known
            and not any(_related(other.value, fact.value) for fact in facts)
            and not (slot in DIMENSIONS and any(_near(other.value, fact.value) for fact in facts))
        ]
        if missing and extra:
            size = max(missing.values()) * (1.0 if len(missing) == len(facts) else PART_REPLACED)
            named = ", ".join(fact.value for fact in missing)
            yield size * (WEAK_KIND if slot in WEAK_KINDS else 1.0), f"{slot}: {', '.join(extra)} for {named}"
        elif slot in ASKED_KINDS:
            yield from self._alternatives(slot, facts, extra)

    def _alternatives(self, slot: str, facts: dict[Fact, float], extra: list[str]):
        """Others of the kind in the sentence that names the reference's: it is this, that or the other."""
        said = {fact: sentence for fact, sentence in self.facts.items() if fact.slot == slot and not fact.negated}
        right = {sentence for fact, sentence in said.items() if fact in facts}
        others = [fact.value for fact, sentence in said.items() if fact.value in extra and sentence in right]
        if others:
            share = len(others) / (len(others) + len(facts))
            yield share if len(others) > 1 else share / 2, f"{slot}: {', '.join(others)} besides"


def _related(concept: str, other: str) -> bool:
    """One is a class of the ontology, the other a member."""
    return other in members().get(concept, ()) or concept in members().get(other, ())


def _near(value: str, other: str) -> bool:
    """Whether two quantities ("low high") agree within the tolerance, or their ranges overlap by half."""
    (low, high), (other_low, other_high) = (map(float, pair.split()) for pair in (value, other))
    if all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) for a, b in ((low, other_low), (high, other_high))):
        return True
    overlap = min(high, other_high) - max(low, other_low)
    return (
        overlap >= 0
        and max(high - low, other_high - other_low) > 0
        and overlap >= 0.5 * max(high - low, other_high - other_low)
    )
