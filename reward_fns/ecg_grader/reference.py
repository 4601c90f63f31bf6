"""What the ECG grader keeps of a reference answer: read once, at data preparation, and stored in the parquet row."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_fns.ecg_grader.facts import WORD, Direction, Fact, Quantity, Term, affirmed
from reward_fns.ecg_grader.parameters import KEY_SENTENCE, LATER_SENTENCE, WORD_WEIGHT
from reward_fns.ecg_grader.quantities import DIMENSIONS
from reward_fns.ecg_grader.reading import read
from reward_fns.ecg_grader.similarity import embed, pack, unpack
from reward_fns.ecg_grader.text import MAX_CHARS

KINDS = ("answer", "entities", "findings")
_DIRECTION = "direction "


@dataclass(frozen=True)
class Reference:
    """A reference answer as facts with weights.

    ``novel`` are those that the question does not hold already: they are what an answer can cover. ``given`` are the
    others: an answer earns nothing for them, but may contradict them. ``polarity`` is ``yes``, ``no`` or "".
    ``entities`` is the set that an answer of kind ``entities`` must list; it alone is compared for that kind, whose
    embeddings are None. ``question_embedding`` and ``text_embedding`` are those of
    ``reward_fns.ecg_grader.similarity.embed``.
    """

    kind: str
    question: str
    text: str
    novel: dict[Fact, float]
    given: dict[Fact, float]
    polarity: str
    question_facts: frozenset[Fact]
    entities: tuple[str, ...]
    question_embedding: np.ndarray | None
    text_embedding: np.ndarray | None


def make_reference(question: str, answer: str, kind: str = "answer", entities: Sequence[str] = ()) -> str:
    """The ground truth of a row, a JSON string. ``kind`` is one of ``KINDS``.

    Raises ``ValueError`` for another kind.

    >>> ground_truth = make_reference("Which lead shows the septum?", "Lead V1 shows the septum.")
    >>> load_reference(ground_truth).text
    'Lead V1 shows the septum.'
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; use one of {', '.join(KINDS)}")
    asked = {_packed_fact(affirmed(fact)) for fact in read(question).facts}
    reading = read(answer)
    facts = []
    for fact, sentence in reading.facts.items():
        known = not (isinstance(fact, Term) and fact.kind == WORD)
        weight = (1.0 if known else WORD_WEIGHT) * (LATER_SENTENCE if sentence else KEY_SENTENCE)
        packed = _packed_fact(fact)
        facts.append([*packed, fact.negated, weight, packed in asked])
    content = {
        "kind": kind,
        "question": question,
        "text": answer,
        "polarity": reading.polarity,
        "facts": facts,
        "asked": sorted(asked),
        "entities": list(entities),
        "question_embedding": _packed_embedding(question, kind),
        "text_embedding": _packed_embedding(answer, kind),
    }
    return json.dumps(content, ensure_ascii=False)


def _packed_embedding(text: str, kind: str) -> str | None:
    return None if kind == "entities" else pack(embed(text[:MAX_CHARS]))


def load_reference(ground_truth: str) -> Reference:
    """The reference in a row's ground truth.

    Raises ``ValueError`` or ``KeyError`` if it is not what ``make_reference`` writes.
    """
    content = json.loads(ground_truth)
    novel: dict[Fact, float] = {}
    given: dict[Fact, float] = {}
    for slot, value, negated, weight, asked in content["facts"]:
        (given if asked else novel)[_unpacked_fact(slot, value, negated)] = weight
    return Reference(
        kind=content["kind"],
        question=content["question"],
        text=content["text"],
        novel=novel,
        given=given,
        polarity=content["polarity"],
        question_facts=frozenset(_unpacked_fact(slot, value) for slot, value in content["asked"]),
        entities=tuple(content["entities"]),
        question_embedding=_unpacked_embedding(content["question_embedding"], content["kind"]),
        text_embedding=_unpacked_embedding(content["text_embedding"], content["kind"]),
    )


def _unpacked_embedding(packed: str | None, kind: str) -> np.ndarray | None:
    return None if kind == "entities" else unpack(packed)


def _packed_fact(fact: Fact) -> tuple[str, str]:
    """A fact without its negation, as a row's JSON holds it."""
    if isinstance(fact, Direction):
        return f"{_DIRECTION}{fact.axis} {fact.target}", fact.sign
    if isinstance(fact, Quantity):
        return fact.dimension, f"{fact.low:g} {fact.high:g}"
    return fact.kind, fact.name


def _unpacked_fact(slot: str, value: str, negated: bool = False) -> Fact:
    if slot.startswith(_DIRECTION):
        _, axis, target = slot.split(" ", 2)
        return Direction(axis, target, value, negated)
    if slot in DIMENSIONS:
        low, high = map(float, value.split())
        return Quantity(slot, low, high, negated)
    return Term(slot, value, negated)
