"""Where a denial ends: the clauses of a text.

"No P waves, irregular RR intervals" denies the P waves alone, "no P waves, Q waves or U waves" all three. NegEx knows
words that end a denial. Whether a comma, an "and" or a verb ends a denial depends on what stands around it. The words
are those of the ontology's ``clauses`` and ``negation``.
"""

import functools
import re

from reward_fns.ecg_grader.ontology import ontology, pattern, phrases

END = " ; "  # NegEx ends a denial here
_STRETCH = re.compile(r"(?:[^.;:!?]|\.(?=\d))+")
_ANSWER = re.compile(r":\s*(?:no|none|absent|negative|not present)\b(?=\s*(?:[.,;]|$))", re.IGNORECASE)
_ADVERB_BEFORE_NOT = re.compile(
    r"\b(is|are|was|were|do|does|did|has|have|had|can|could|may|might|should|must|will|would)\s+(\w+ly|often)\s+not\b",
    re.IGNORECASE,
)
_AND = re.compile(r"\s+(?:and|plus|as well as)\s+", re.IGNORECASE)
_OR = re.compile(r"\b(?:or|nor)\b", re.IGNORECASE)


def with_clause_ends(text: str) -> str:
    """A clean text with ``END`` where a clause ends that no word of NegEx ends."""
    text = _ANSWER.sub(" is absent", text)  # "P waves: none"
    text = _ADVERB_BEFORE_NOT.sub(r"\2 \1 not", text)  # NegEx knows "is not", but not "is usually not"
    return _STRETCH.sub(lambda stretch: END.join(_clauses(stretch[0])), text)


def _clauses(stretch: str) -> list[str]:
    stretch = _denied_subject().sub(rf"\1{END}", stretch)
    stretch = _denied_action().sub(rf"\1{END}", stretch)
    stretch = _denied_before().sub(rf"\g<0>{END}", stretch)
    return [
        clause
        for part in stretch.split(END)
        for piece in _conclusion().split(part)
        for items in _at_commas(piece)
        for clause in _at_and(items)
    ]


def _at_commas(part: str) -> list[str]:
    first, *segments = re.split(r",\s+", part)
    clauses = [first]
    for position, segment in enumerate(segments):
        if _continues(clauses[-1], segments[position:]):
            clauses[-1] += f", {segment}"
        else:
            clauses.append(segment)
    return clauses


def _continues(clause: str, rest: list[str]) -> bool:
    """Whether the segment behind a comma, the first of ``rest``, is a further item of the clause's list."""
    if pattern("clauses", "continuations").match(rest[0].lower()):
        return True
    of_verb = _has("clauses", "denied verbs", text=clause)  # "does not include X, giving Y, and Z"
    if of_verb and not _has("clauses", "verbs", text=rest[0]) and not _is_statement(rest[0]):
        return True
    if _begins_anew(rest[0]):
        return False
    if _denial().search(clause):  # no X, Y or Z
        for item in rest:
            if last := _OR.search(item):
                return not _has("clauses", "verbs", text=item[: last.start()])
            if _has("clauses", "verbs", text=item) or _begins_anew(re.sub(r"^(?:and|plus)\s+", "", item)):
                return False
            if item.lower().startswith("and ") or _has("clauses", "of lists", text=clause) and _AND.search(item):
                return True
        return False
    # X, Y and Z are absent
    return not _has("clauses", "verbs", text=clause) and bool(_denied_before().search(", ".join(rest)))


def _at_and(clause: str) -> list[str]:
    """``clause`` in its parts, where an "and" joins two statements and not two things."""
    for match in _AND.finditer(clause):
        left, right = clause[: match.start()], clause[match.end() :]
        denied_too = pattern("negation", "following").match(right.lower())
        statements = all(_has("clauses", "verbs", text=part) for part in (left, right)) and not denied_too
        if statements or _begins_anew(right):
            return [left, *_at_and(right)]
    return [clause]


def _is_statement(segment: str) -> bool:
    """Whether a segment begins as a statement or an order does."""
    return pattern("clauses", "beginnings").match(re.sub(r"^(?:and|or|plus)\s+", "", segment.lower())) is not None


def _begins_anew(segment: str) -> bool:
    """Whether a segment begins a statement of its own: with an article, an order, a gerund, or how something is."""
    if _is_statement(segment):
        return True
    word = re.match(r"[\w-]+", segment)
    return word is not None and (word[0].endswith("ing") or word[0].lower() in _qualities())


@functools.cache
def _denial() -> re.Pattern:
    """What denies the terms behind it."""
    words = ontology()["negation"]
    return re.compile(rf"\b(?:{phrases([*words['preceding'], *words['of orders']['preceding']])})\b", re.IGNORECASE)


def _has(*keys: str, text: str) -> bool:
    return pattern(*keys).search(text.lower()) is not None


@functools.cache
def _qualities() -> frozenset[str]:
    signs = (sign for signs in ontology()["directions"].values() for sign in signs)
    words = (phrase for sign in signs for phrase in sign if " " not in phrase)
    return frozenset((*words, *ontology()["clauses"]["qualities"]))


@functools.cache
def _denied_subject() -> re.Pattern:
    """ "The lack of P waves suggests fibrillation": the verb ends the denial."""
    words = ontology()["clauses"]
    subject = rf"\b(?:{phrases(words['denied subjects'])})\b(?:\s+[\w-]+){{1,8}}?"
    return re.compile(rf"({subject})\s+(?=(?:{phrases(words['verbs of subjects'])})\b)", re.IGNORECASE)


@functools.cache
def _denied_action() -> re.Pattern:
    """ "Do not give atropine in a block": the circumstance ends the denial."""
    words = ontology()["clauses"]
    action = rf"\b(?:{phrases(words['denied actions'])})\b[^,;]*?"
    return re.compile(rf"({action})\s+(?=(?:{phrases(words['circumstances'])})\b)", re.IGNORECASE)


@functools.cache
def _denied_before() -> re.Pattern:
    """ "P waves are absent", which says nothing of what follows; "is not" does."""
    negation = ontology()["negation"]
    following = [*negation["following"], *negation["of orders"]["following"], *negation["of findings"]["following"]]
    complete = [
        phrase
        for phrase in following
        if " " in phrase
        and phrase.split()[-1] not in ("not", "never")
        and phrase.split()[0] not in ("do", "does", "did")
    ]
    # "Is negative for", "does not present with" and "is wrong to give" look ahead.
    return re.compile(rf"\b(?:{phrases(complete)})\b(?!\s+(?:for|with|to)\b)", re.IGNORECASE)


@functools.cache
def _conclusion() -> re.Pattern:
    return re.compile(rf"\s+(?=(?:{phrases(ontology()['clauses']['conclusions'])})\b)|[()\[\]]|\s+-\s+", re.IGNORECASE)
