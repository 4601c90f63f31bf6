"""Lists of medical entities: what a text lists, and which entities of two lists are the same."""

import json
import re
from collections.abc import Collection

from rapidfuzz import fuzz, utils

from reward_fns.ecg_grader.facts import Direction, Fact, Quantity
from reward_fns.ecg_grader.match import is_word
from reward_fns.ecg_grader.opposites import opposite
from reward_fns.ecg_grader.parameters import SAME_ENTITY
from reward_fns.ecg_grader.quantities import agree
from reward_fns.ecg_grader.reading import read
from reward_fns.ecg_grader.text import Text
from reward_fns.ecg_grader.units import NUMBER

_MARKER = re.compile(r"^\s*(?:\(?(?:\d{1,2}|[a-z])[.):]|[-*•‣◦])\s+", re.MULTILINE | re.IGNORECASE)
_LEAD_IN = re.compile(
    r"^[^,;\n:]*(?::|\b(?:entities|findings|terms|diagnoses)\b[^,;\n:]*\b(?:are|include|includes))\s+", re.IGNORECASE
)
_SEPARATOR = re.compile(r"[;\n•]|,(?!\d{3}\b)|\s-\s|\s(?=\(?(?:\d{1,2}|[a-h])[.)]\s)")
_AND = re.compile(r"\s+(?:and|&)\s+", re.IGNORECASE)


def split_entities(text: str) -> list[str]:
    """The items of a list: separated by commas, semicolons or line breaks, numbered, bulleted, or as JSON.

    A lead-in such as "The entities are:" is left out, and the "and" before the last item.
    """
    if (items := _of_json(text)) is None:
        listed = _LEAD_IN.sub("", _MARKER.sub("", text.strip()), count=1)
        items = [_MARKER.sub("", item) for item in _SEPARATOR.split(_MARKER.sub("", listed))]
    items = [re.sub(r"^(?:and|&)\s+", "", item.strip(" .\t*\"'`")).strip() for item in items]
    return [item for item in items if item]


def _of_json(text: str) -> list[str] | None:
    """The strings of a JSON or Python list, None for anything else."""
    text = re.sub(r"^```\w*|```$", "", text.strip()).strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        return [str(item) for item in json.loads(text.replace("'", '"'))]
    except ValueError:
        return _SEPARATOR.split(text[1:-1])


def entity_f1(predicted: Collection[str], expected: Collection[str]) -> float:
    """F1 of the two sets of entities, each matched once."""
    open_items = list(dict.fromkeys(expected))
    items = list(dict.fromkeys(part for item in predicted for part in _parts(item, open_items)))
    total, hits = len(items) + len(open_items), 0
    for item in items:
        scores = [similarity(item, other) for other in open_items]
        if max(scores, default=0) > 0:
            open_items.pop(scores.index(max(scores)))
            hits += 1
    return 2 * hits / total if total else 0.0


def _parts(item: str, expected: Collection[str]) -> list[str]:
    """The two entities of "axis deviation and hypertrophy"; "nausea and vomiting" may be one."""
    return [item] if any(similarity(item, other) for other in expected) else _AND.split(item)


def similarity(entity: str, other: str) -> float:
    """How alike two entities are: 0 if they are not the same, else up to 100.

    What the ontology knows of them, with sides, degrees, numbers and denials, must agree. Their other words must be
    alike, and none may be the opposite of another.
    """
    facts, other_facts = _known(entity), _known(other)
    if not (_covers(facts, other_facts) and _covers(other_facts, facts)):
        return 0.0
    if any(fact.slot == NUMBER for fact in facts) and _digits(entity) != _digits(other):
        return 0.0  # dates
    words, other_words = (Text(text).words for text in (entity, other))
    if opposite({*words} - {*other_words}, {*other_words} - {*words}):
        return 0.0
    if facts:
        words, other_words = _unknown(entity), _unknown(other)
        if not words and not other_words:
            return 100.0
    texts = " ".join(words), " ".join(other_words)
    score = fuzz.token_sort_ratio(*texts, processor=utils.default_process)
    return score if score >= SAME_ENTITY else 0.0


def _known(entity: str) -> list[Fact]:
    return [fact for fact in read(entity).facts if not is_word(fact)]


def _unknown(entity: str) -> list[str]:
    return sorted(fact.value for fact in read(entity).facts if is_word(fact))


def _covers(facts: list[Fact], others: list[Fact]) -> bool:
    return all(any(_same(fact, other) for other in others) for fact in facts)


def _same(fact: Fact, other: Fact) -> bool:
    if fact.state != other.state:
        return False
    if isinstance(fact, Quantity) and isinstance(other, Quantity):
        return agree(fact, other)
    if isinstance(fact, Direction) and isinstance(other, Direction):
        return (fact.axis, fact.sign) == (other.axis, other.sign)
    return fact == other


def _digits(entity: str) -> list[str]:
    return re.findall(r"\d+", entity)
