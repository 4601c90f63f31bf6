"""What the ECG grader keeps of a reference answer: read once, at data preparation, and stored in the parquet row."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_fns.ecg_grader.facts import WORD, Fact, read
from reward_fns.ecg_grader.similarity import embed, pack, unpack
from reward_fns.ecg_grader.words import MAX_CHARS

KINDS = ("answer", "entities", "findings")
KEY_SENTENCE = 1.0  # weight of what the first sentence says
LATER_SENTENCE = 0.5
WORD_WEIGHT = 0.3  # of a content word against a fact of the ontology


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
    asked = {(fact.slot, fact.value) for fact in read(question).facts}
    reading = read(answer)
    facts = []
    for fact, sentence in reading.facts.items():
        weight = (WORD_WEIGHT if fact.slot == WORD else 1.0) * (LATER_SENTENCE if sentence else KEY_SENTENCE)
        facts.append([fact.slot, fact.value, fact.negated, weight, (fact.slot, fact.value) in asked])
    content = {
        "kind": kind,
        "question": question,
        "text": answer,
        "polarity": reading.polarity,
        "facts": facts,
        "asked": sorted(asked),
        "entities": list(entities),
        "question_embedding": _packed(question, kind),
        "text_embedding": _packed(answer, kind),
    }
    return json.dumps(content, ensure_ascii=False)


def _packed(text: str, kind: str) -> str | None:
    return None if kind == "entities" else pack(embed(text[:MAX_CHARS]))


def load_reference(ground_truth: str) -> Reference:
    """The reference in a row's ground truth.

    Raises ``ValueError`` or ``KeyError`` if it is not what ``make_reference`` writes.
    """
    content = json.loads(ground_truth)
    novel: dict[Fact, float] = {}
    given: dict[Fact, float] = {}
    for slot, value, negated, weight, asked in content["facts"]:
        (given if asked else novel)[Fact(slot, value, negated)] = weight
    return Reference(
        kind=content["kind"],
        question=content["question"],
        text=content["text"],
        novel=novel,
        given=given,
        polarity=content["polarity"],
        question_facts=frozenset(Fact(slot, value) for slot, value in content["asked"]),
        entities=tuple(content["entities"]),
        question_embedding=_unpacked(content["question_embedding"], content["kind"]),
        text_embedding=_unpacked(content["text_embedding"], content["kind"]),
    )


def _unpacked(packed: str | None, kind: str) -> np.ndarray | None:
    return None if kind == "entities" else unpack(packed)
