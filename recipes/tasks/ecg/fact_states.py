"""Which facts of a reference an answer covers, misses and contradicts, for people to look at."""

from dataclasses import dataclass

from reward_fns.ecg_grader.contradictions import contradictions
from reward_fns.ecg_grader.facts import DENIED, POSSIBLE, Fact, Term, affirmed
from reward_fns.ecg_grader.match import FactMatch, is_word
from reward_fns.ecg_grader.reading import read
from reward_fns.ecg_grader.reference import Reference
from reward_fns.ecg_grader.substitution import substitution

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
    found = [*contradictions(match)]
    if replaced := substitution(answer, reference.text, reference.question):
        found.append(replaced)
    contradicted = {affirmed(fact) for contradiction in found for fact in contradiction.facts}
    return [
        FactState(
            text=fact_text(fact),
            state=_state(match.held[fact], affirmed(fact) in contradicted),
            given=fact in reference.given,
            word=is_word(fact),
        )
        for fact in match.weights
    ]


def fact_text(fact: Fact) -> str:
    """A fact in a few words: of a term its kind, too, but of a word its stem alone.

    ``not`` stands before a fact that is denied, ``perhaps`` before one that is left open.
    """
    text = f"{fact.kind}: {fact.value}" if isinstance(fact, Term) and not is_word(fact) else fact.value
    return {DENIED: f"not {text}", POSSIBLE: f"perhaps {text}"}.get(fact.state, text)


def _state(held: float, contradicted: bool) -> str:
    if held == 1:
        return COVERED
    return CONTRADICTED if held < 0 or contradicted else MISSING
