"""The ECG leads that a text names."""

import re
from collections.abc import Iterable

from reward_fns.ecg_grader.facts import LEAD, Term
from reward_fns.ecg_grader.negation import denies_leads
from reward_fns.ecg_grader.ontology import ontology

_LEAD = r"(?:aV[RLF]|AV[RLF]|avr|avl|avf|[Vv][1-9]R?|I{1,3})"
_NO_LEADS = ("type", "class", "mobitz", "degree", "stage", "grade", "factor", "nyha")
_LEAD_LIST = re.compile(
    rf"(?P<intro>\b(?:leads?|{'|'.join(_NO_LEADS)})\s+)?(?<![\w-])"
    rf"(?P<list>{_LEAD}(?:(?:\s*(?:,|/|&|-|\band\b|\bor\b|\bto\b|\bthrough\b)+\s*|\s+)(?:leads?\s+)?{_LEAD})*)(?![\w-])"
)
_RANGE = re.compile(r"[Vv]([1-9])\s*(?:-|to|through)\s*[Vv]([1-9])")


def leads(text: str) -> list[Term]:
    """The leads in a clean text, ranges such as V1-V3 written out. A lone I, II or III needs the word lead."""
    found: list[Term] = []
    for match in _LEAD_LIST.finditer(text):
        intro = (match["intro"] or "").strip().lower()
        items = re.findall(_LEAD, match["list"])
        if intro in _NO_LEADS or not intro and len(items) == 1 and items[0].startswith("I"):
            continue
        for first, last in _RANGE.findall(match["list"]):
            items += [f"V{number}" for number in range(int(first), int(last) + 1)]
        negated = denies_leads(text, match.start(), match.end())
        found += [Term(LEAD, _name(item), negated) for item in items]
    return list(dict.fromkeys(found))


def is_lead(word: str) -> bool:
    """Whether a word may be the name of a lead."""
    return re.fullmatch(_LEAD, word) is not None


def leads_of(walls: Iterable[Term]) -> set[Term]:
    """The leads that look at those walls of the heart which are not denied."""
    names = (lead for wall in walls if not wall.negated for lead in ontology()["leads_of"][wall.name])
    return {Term(LEAD, name) for name in names}


def _name(text: str) -> str:
    if text[0] in "aA":
        return f"aV{text[2].upper()}"
    return text.upper()
