"""The ECG leads that a text names."""

import re
from collections.abc import Iterable

from reward_fns.ecg_grader.facts import AFFIRMED, DENIED, LEAD, Term
from reward_fns.ecg_grader.negation import denies_leads
from reward_fns.ecg_grader.ontology import ontology

_INTRO = r"(?:limb |chest |precordial |standard |ecg )?leads?"
_NO_LEADS = (
    "type",
    "class",
    "classes",
    "mobitz",
    "degree",
    "stage",
    "stages",
    "grade",
    "factor",
    "nyha",
    "phase",
    "killip",
)
# aVF is also written avF, AVF, aV F and a-VF; V1 also V 1 and v1; II also DII and L2.
_AUGMENTED = r"[aA][\s-]?[vV][\s-]?[rRlLfF]"
_PRECORDIAL = r"[vV][\s-]?[1-9][rR]?"
_LIMB = r"[DL]?I{1,3}"
_LEAD = rf"(?:{_AUGMENTED}|{_PRECORDIAL}|{_LIMB})"
_NUMBERED = rf"(?:{_LEAD}|[DL]?[1-9])"  # "leads 2, 3 and aVF", "V1, 2 and 3"
_JOIN = (
    r"(?:\s*(?:,|/|&|\+|-|\band\b|\bor\b|\bto\b|\bthrough\b|\bthru\b|\buntil\b|\bas well as\b)+\s*|\s+)(?:leads?\s+)?"
)
_LEAD_LIST = re.compile(
    rf"\b(?P<intro>{_INTRO}|(?:{'|'.join(_NO_LEADS)}))[\s:]+(?P<named>{_NUMBERED}(?:{_JOIN}{_NUMBERED})*)(?![\w-]|\.\d)"
    rf"|(?<![\w-])(?P<bare>{_LEAD}(?:{_JOIN}{_LEAD})*(?:\s*(?:,|-|/|\band\b|\bto\b)\s*[1-9](?!\w|\.\d|\s*(?!and\b|or\b|to\b)[a-z%°]))*)(?![\w-])",
    re.IGNORECASE,
)
_ITEM = re.compile(_NUMBERED, re.IGNORECASE)
_RANGE = re.compile(r"V\s?-?([1-9])\s*(?:-|to|through|thru|until)\s*(?:V\s?-?)?([1-9])(?![\d.])", re.IGNORECASE)


def leads(text: str) -> list[Term]:
    """The leads in a clean text, ranges such as V1-V3 written out. A lone I, II or III needs the word lead."""
    found: list[Term] = []
    for match in _LEAD_LIST.finditer(text):
        intro = (match["intro"] or "").lower()
        written = match["named"] or match["bare"]
        items = _ITEM.findall(written)
        if intro in _NO_LEADS or not intro and len(items) == 1 and not _is_plain(items[0]):
            continue
        if not intro and not all(item.isupper() or _is_plain(item) or item.isdigit() for item in items):
            continue  # "i" is no lead
        names = list(_names(items))
        for first, last in _RANGE.findall(written):
            names += [f"V{number}" for number in range(int(first), int(last) + 1)]
        state = DENIED if denies_leads(text, match.start(), match.end()) else AFFIRMED
        found += [Term(LEAD, name, state) for name in names]
    return list(dict.fromkeys(found))


def is_lead(word: str) -> bool:
    """Whether a word may be the name of a lead."""
    return re.fullmatch(_LEAD, word) is not None


def leads_of(walls: Iterable[Term]) -> set[Term]:
    """The leads that look at those walls of the heart which are not denied."""
    names = (lead for wall in walls if wall.state != DENIED for lead in ontology()["leads_of"][wall.name])
    return {Term(LEAD, name) for name in names}


def _is_plain(item: str) -> bool:
    """Whether the name of a lead is no Roman numeral, which may number other things."""
    return re.fullmatch(rf"{_AUGMENTED}|{_PRECORDIAL}", item) is not None


def _names(items: Iterable[str]) -> Iterable[str]:
    """One spelling for each lead; a digit alone is a limb lead, or behind a V a further precordial lead."""
    precordial = False
    for item in items:
        letters = re.sub(r"[\s-]", "", item).upper()
        if letters.startswith("AV"):
            yield f"aV{letters[2]}"
        elif letters.startswith("V"):
            precordial = True
            yield letters
        else:
            number = letters.lstrip("DL")
            if number.isdigit() and precordial:
                yield f"V{number}"
            elif number in ("1", "2", "3"):
                yield "I" * int(number)
            elif not number.isdigit():
                yield number
