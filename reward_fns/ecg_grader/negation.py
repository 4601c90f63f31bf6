"""What a text denies or leaves open: NegEx (Chapman et al. 2001) for terms, and what stands before a lead or number."""

import re

from negspacy.negation import Negex
from negspacy.termsets import termset
from spacy.language import Language
from spacy.tokens import Doc, Span

from reward_fns.ecg_grader.facts import AFFIRMED, DENIED, POSSIBLE, State
from reward_fns.ecg_grader.ontology import ontology

RESTRICTED = ("of orders", "of findings")  # denials of some kinds of terms

_BEFORE = 60  # characters before a number or lead that are looked at
_NOT = re.compile(
    r"\b(?:not|never|except|excluding|other than|apart from|rather than|instead of|spar(?:es?|ing))"
    r"(?:\s+(?:for|leads?|the|seen|visible|found|present|shown|recorded|evident|apparent|noted|observed|located|best"
    r"|well|in|on|at|by|from|of|be|exactly|usually|normally|affect(?:s|ing)?|involv(?:es?|ing)))*\s*$",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"\b(?:no|not|never|without|cannot)\b(?:(?!\b(?:but|and|while|whereas|although|only)\b)[^.;,])*$", re.IGNORECASE
)
_SPARED = re.compile(r"\s*(?:is|are|was|were) (?:not\b|never\b|spared|excluded|unaffected)", re.IGNORECASE)


class _Negex(Negex):
    """NegEx that leaves out texts without a word that denies: it looks at all spans between any two boundaries."""

    def negex(self, doc: Doc) -> Doc:
        preceding, following, _ = self.process_negations(doc)
        return super().negex(doc) if preceding or following else doc


class Negations:
    """NegEx for what is denied, for what is denied of some kinds of terms alone, and for what is left open.

    ``mark`` sets these of the spans ``facts`` of a text, which comes from ``clauses.with_clause_ends``; ``state`` reads
    them.
    """

    def __init__(self, nlp: Language) -> None:
        denial, possibility = ontology()["negation"], ontology()["possibility"]
        # "Never withhold", "do not stop": two denials are none.
        doubled = _pairs(denial["deniers"], denial["denials of denials"])
        pseudo = [*denial["pseudo"], *doubled]
        termination = [*termset("en_clinical").get_patterns()["termination"], *denial["termination"], ";", ":"]
        opening = [*possibility["preceding"], *_pairs(possibility["modals"], possibility["open verbs"])]
        possible = {"preceding": opening, "following": possibility["following"]}
        left_open = [*opening, *possibility["following"]]
        self._all = [
            _negex(nlp, "denied", [*pseudo, *left_open], denial, termination),
            *(_negex(nlp, _of(name), pseudo, denial[name], termination) for name in RESTRICTED),
            _negex(nlp, POSSIBLE, possibility["pseudo"], possible, [*termination, *possibility["termination"]]),
        ]
        self._kinds = {_of(name): frozenset(denial[name]["kinds"]) for name in RESTRICTED}

    def mark(self, doc: Doc) -> None:
        for negex in self._all:
            negex(doc)

    def state(self, span: Span, kind: str) -> State:
        """What the text says of a span, which is a term of ``kind``."""
        if span._.get(POSSIBLE):
            return POSSIBLE
        denied = span._.denied or any(span._.get(name) and kind in kinds for name, kinds in self._kinds.items())
        return DENIED if denied else AFFIRMED


def _pairs(firsts: list[str], seconds: list[str]) -> list[str]:
    return [f"{first} {second}" for first in firsts for second in seconds]


def _of(name: str) -> str:
    return f"denied_{name.replace(' ', '_')}"


def _negex(nlp: Language, name: str, pseudo: list[str], words: dict[str, list[str]], termination: list[str]) -> Negex:
    triggers = {
        "pseudo_negations": pseudo,
        "preceding_negations": words["preceding"],
        "following_negations": words["following"],
        "termination": termination,
    }
    return _Negex(nlp, name, triggers, extension_name=name, span_keys=["facts"])


def before(text: str, position: int) -> str:
    """The characters before ``position`` that say something of what begins there."""
    return text[max(0, position - _BEFORE) : position]


def denies_next(text: str) -> bool:
    """Whether ``text`` denies a number or lead right after it."""
    return bool(_NOT.search(text))


def denies_leads(text: str, start: int, end: int) -> bool:
    """Whether ``text`` denies the leads that stand from ``start`` to ``end``."""
    preceding = before(text, start)
    return denies_next(preceding) or bool(_DENIED_BEFORE.search(preceding) or _SPARED.match(text, end))
