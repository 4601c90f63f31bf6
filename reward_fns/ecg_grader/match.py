"""Matches the facts of an answer with those of its reference: which it says, and which it denies."""

from collections import defaultdict
from collections.abc import Hashable, Iterable

from reward_fns.ecg_grader.facts import (
    AFFIRMED,
    DENIED,
    POSSIBLE,
    WORD,
    Direction,
    Fact,
    Quantity,
    State,
    Term,
    affirmed,
    terms,
)
from reward_fns.ecg_grader.leads import leads_of
from reward_fns.ecg_grader.ontology import members
from reward_fns.ecg_grader.parameters import ASKS_VERDICT, LEFT_OPEN, NO_VERDICT, RESTATED
from reward_fns.ecg_grader.quantities import agree
from reward_fns.ecg_grader.reading import Reading
from reward_fns.ecg_grader.reference import Reference


class FactMatch:
    """The facts of an answer against those of the reference.

    ``weights`` are the reference's facts, novel and given; ``held`` says of each what the answer does: 1 says it, -1
    denies it, 0.5 says its direction of something else, ``LEFT_OPEN`` leaves it open, or says what the reference leaves
    open, 0 none of these. ``known`` are the facts, without their
    state, that the question or the reference holds.
    """

    def __init__(self, reading: Reading, reference: Reference) -> None:
        self.reading = reading
        self.reference = reference
        self.facts = reading.facts
        self.weights = {**reference.novel, **reference.given}
        self.known = reference.question_facts | {affirmed(fact) for fact in self.weights}
        self.by_slot: dict[Hashable, list[Fact]] = defaultdict(list)
        for fact in self.facts:
            self.by_slot[fact.slot].append(fact)
        walls = terms(self.facts, "wall")
        self.wall_leads = leads_of(walls)
        # A wall that the question names says nothing of the leads that it asks for.
        self._said_leads = leads_of(wall for wall in walls if affirmed(wall) not in reference.question_facts)
        self.held = {fact: self._holds(fact) for fact in self.weights}

    def _holds(self, fact: Fact) -> float:
        if fact in self.facts or affirmed(fact) in self._said_leads:
            return 1
        if others := [other for other in self.facts if affirmed(other) == affirmed(fact)]:
            return max(_held(fact.state, other.state) for other in others)
        if isinstance(fact, Direction):
            return 0.5 if self._says_elsewhere(fact) else 0
        same = (other for other in self.facts if self._agrees(other, fact))
        return next((_held(fact.state, other.state) for other in same), 0)

    def _agrees(self, other: Fact, fact: Term | Quantity) -> bool:
        if isinstance(fact, Quantity):
            return isinstance(other, Quantity) and agree(other, fact)
        # The class of a drug that the question names is not said by the drug's name.
        return is_kin(other, fact) and affirmed(other) not in self.reference.question_facts

    def _says_elsewhere(self, fact: Direction) -> bool:
        """Whether the answer says the direction of something else, and the question does not."""
        if any(_same_way(other, fact) for other in self.reference.question_facts):
            return False
        return any(_same_way(other, fact) and other.state == fact.state for other in self.facts)

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
        if verdict and sum(novel.values()) < ASKS_VERDICT:
            share = share + (1 - share) * RESTATED * restated if self.reading.stance else share * NO_VERDICT
        return share

    def known_coverage(self) -> float:
        """The same for the novel facts that the ontology knows; 0 where there are none."""
        return self._share({fact: weight for fact, weight in self.reference.novel.items() if not is_word(fact)})

    def _share(self, facts: dict[Fact, float]) -> float:
        total = sum(facts.values())
        return sum(weight * max(self.held[fact], 0) for fact, weight in facts.items()) / total if total else 0.0


def _held(wanted: State, said: State) -> float:
    """What an answer does to a fact that the reference affirms, denies or leaves open."""
    if wanted == said:
        return 1
    return LEFT_OPEN if {wanted, said} == {AFFIRMED, POSSIBLE} else -1


def is_word(fact: Fact) -> bool:
    """Whether a fact is a word that the ontology does not know."""
    return isinstance(fact, Term) and fact.kind == WORD


def is_kin(fact: Fact, other: Fact) -> bool:
    """Whether one is a class of the ontology and the other a member."""
    if not (isinstance(fact, Term) and isinstance(other, Term)):
        return False
    return other.name in members().get(fact.name, ()) or fact.name in members().get(other.name, ())


def says(fact: Fact, facts: Iterable[Fact]) -> bool:
    """Whether ``fact`` is one of ``facts``, or says one of them in another way: its class, or the same quantity."""
    return any(
        fact == other or fact.state != DENIED and (is_kin(fact, other) or _equal(fact, other)) for other in facts
    )


def _equal(fact: Fact, other: Fact) -> bool:
    return isinstance(fact, Quantity) and isinstance(other, Quantity) and agree(fact, other)


def _same_way(fact: Fact, other: Direction) -> bool:
    return isinstance(fact, Direction) and (fact.axis, fact.sign) == (other.axis, other.sign)
