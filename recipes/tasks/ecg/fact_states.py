"""Which facts of a reference an answer covers, misses and contradicts, for people to look at."""

from dataclasses import dataclass

from reward_fns.ecg_grader.facts import DIMENSIONS, DIRECTION, LEAD, WORD, Fact, read
from reward_fns.ecg_grader.match import FactMatch
from reward_fns.ecg_grader.reference import Reference
from reward_fns.ecg_grader.substitution import substitution
from reward_fns.ecg_grader.words import content_stem

COVERED, MISSING, CONTRADICTED = "covered", "missing", "contradicted"


@dataclass(frozen=True)
class FactState:
    """``text`` names a fact of the reference; ``state`` is ``COVERED``, ``MISSING`` or ``CONTRADICTED``.

    ``given``: the question holds it already, so that it earns nothing. ``word``: a word that the ontology lacks.
    """

    text: str
    state: str
    given: bool
    word: bool


def fact_states(answer: str, reference: Reference) -> list[FactState]:
    """The state in ``answer``, a text without any reasoning, of each fact of ``reference``, in the reference's order.

    A direction that is said of something else is missing. A reference that is a list of entities has no facts.
    """
    if reference.kind == "entities":
        return []
    match = FactMatch(read(answer), reference)
    reasons = [reason for _, reason in match.contradictions()]
    found = substitution(answer, reference.text, reference.question)
    replaced = {content_stem(word) for word in found.missing} if found else set()
    return [
        FactState(
            text=fact_text(fact),
            state=_state(fact, match.held[fact], reasons, replaced),
            given=fact in reference.given,
            word=fact.slot == WORD,
        )
        for fact in match.weights
    ]


def fact_text(fact: Fact) -> str:
    """A fact in a few words: ``not`` where it is denied, its slot and its value; of a word its stem alone."""
    if fact.slot.startswith(DIRECTION):
        _, axis, target = fact.slot.split(" ", 2)
        text = f"{target} {axis} {fact.value}"
    elif fact.slot == WORD:
        text = fact.value
    elif fact.slot in DIMENSIONS:
        low, high = fact.value.split()
        text = f"{fact.slot} {low}" if low == high else f"{fact.slot} {low} to {high}"
        text = text.replace(f"{low} to inf", f"over {low}").replace(f"-inf to {high}", f"under {high}")
    else:
        text = f"{fact.slot}: {fact.value}"
    return f"not {text}" if fact.negated else text


def _state(fact: Fact, held: float, reasons: list[str], replaced: set[str]) -> str:
    if held < 0:
        return CONTRADICTED
    if held == 1:
        return COVERED
    if fact.slot == WORD and fact.value in replaced:
        return CONTRADICTED
    return CONTRADICTED if any(_replaces(reason, fact) for reason in reasons) else MISSING


def _replaces(reason: str, fact: Fact) -> bool:
    """Whether a reason of the grader, such as ``rhythm: atrial flutter for atrial fibrillation``, is about ``fact``."""
    if fact.slot.startswith(DIRECTION):
        _, axis, target = fact.slot.split(" ", 2)
        return reason in (f"opposite {axis} of {target}", f"both ways of {axis} of {target}", f"opposite {axis}")
    head = "leads " if fact.slot == LEAD else f"{fact.slot}: "
    return reason.startswith(head) and fact.value in reason.rpartition(" for ")[2].split(", ")
