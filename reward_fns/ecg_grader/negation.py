"""What a text denies: NegEx (Chapman et al. 2001) for terms, and what stands right before a lead or a number."""

import re

from negspacy.negation import Negex
from negspacy.termsets import termset
from spacy.language import Language

from reward_fns.ecg_grader.ontology import ontology

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


def negex(nlp: Language) -> Negex:
    """negspaCy with its English triggers for clinical notes and those of the ontology, for the spans ``facts``."""
    triggers, more = termset("en_clinical").get_patterns(), ontology()["negation"]
    triggers = {name: [*phrases] for name, phrases in triggers.items()}
    triggers["pseudo_negations"] = [phrase for phrase in triggers["pseudo_negations"] if phrase not in more["denying"]]
    triggers["preceding_negations"] += more["preceding"]
    triggers["following_negations"] += more["following"]
    triggers["termination"] += more["termination"]
    return Negex(nlp, "negex", triggers, span_keys=["facts"])


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
