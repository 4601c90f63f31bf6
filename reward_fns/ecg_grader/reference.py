"""What the ECG grader keeps of a reference answer: read once, at data preparation, and stored in the parquet row."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reward_fns.ecg_grader.facts import WORD, Direction, Fact, Quantity, Term, affirmed
from reward_fns.ecg_grader.parameters import KEY_SENTENCE, LATER_SENTENCE, WORD_WEIGHT
from reward_fns.ecg_grader.reading import read
from reward_fns.ecg_grader.similarity import embed, pack, unpack
from reward_fns.ecg_grader.text import MAX_CHARS

KINDS = ("answer", "entities", "findings")
VERSION = 2
TYPES = {fact.__name__: fact for fact in (Term, Direction, Quantity)}


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
    asked = dict.fromkeys(affirmed(fact) for fact in read(question).facts)
    reading = read(answer)
    facts = []
    for fact, sentence in reading.facts.items():
        known = not (isinstance(fact, Term) and fact.kind == WORD)
        weight = (1.0 if known else WORD_WEIGHT) * (LATER_SENTENCE if sentence else KEY_SENTENCE)
        facts.append({**_packed_fact(fact), "weight": weight, "asked": affirmed(fact) in asked})
    content = {
        "version": VERSION,
        "kind": kind,
        "question": question,
        "text": answer,
        "polarity": reading.polarity,
        "facts": facts,
        "asked": [_packed_fact(fact) for fact in asked],
        "entities": list(entities),
        "question_embedding": _packed_embedding(question, kind),
        "text_embedding": _packed_embedding(answer, kind),
    }
    return json.dumps(content, ensure_ascii=False)


def _packed_embedding(text: str, kind: str) -> str | None:
    return None if kind == "entities" else pack(embed(text[:MAX_CHARS]))


def load_reference(ground_truth: str) -> Reference:
    """The reference in a row's ground truth.

    Raises ``ValueError``, ``KeyError`` or ``TypeError`` if it is not what ``make_reference`` writes.
    """
    content = json.loads(ground_truth)
    if content["version"] != VERSION:
        raise ValueError(f"a reference of version {content['version']}, not {VERSION}; prepare the data again")
    novel: dict[Fact, float] = {}
    given: dict[Fact, float] = {}
    for packed in content["facts"]:
        weight, asked = packed.pop("weight"), packed.pop("asked")
        (given if asked else novel)[_unpacked_fact(packed)] = weight
    return Reference(
        kind=content["kind"],
        question=content["question"],
        text=content["text"],
        novel=novel,
        given=given,
        polarity=content["polarity"],
        question_facts=frozenset(map(_unpacked_fact, content["asked"])),
        entities=tuple(content["entities"]),
        question_embedding=_unpacked_embedding(content["question_embedding"], content["kind"]),
        text_embedding=_unpacked_embedding(content["text_embedding"], content["kind"]),
    )


def _unpacked_embedding(packed: str | None, kind: str) -> np.ndarray | None:
    return None if kind == "entities" else unpack(packed)


def _packed_fact(fact: Fact) -> dict[str, Any]:
    """A fact as a row's JSON holds it. JSON has no infinity: an open end is None."""
    packed = {"type": type(fact).__name__, **asdict(fact)}
    return {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in packed.items()}


def _unpacked_fact(packed: dict[str, Any]) -> Fact:
    fields = {name: value for name, value in packed.items() if name != "type"}
    if packed["type"] == "Quantity":
        low, high = fields["low"], fields["high"]
        fields |= {"low": -math.inf if low is None else low, "high": math.inf if high is None else high}
    return TYPES[packed["type"]](**fields)
