"""The layouts in which ECG-Expert-QA writes answers, each read into question-and-answer turns.

Every reader takes the question that goes with the value (or opens the dialogue) and the value itself, and raises
``ValueError`` where the value has another layout.
"""

import re
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

TURN_KEYS = (("Q", "A"), ("Question", "Answer"))
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Turn:
    """A question and its written answer, both stripped; ``entities`` is what an entity extraction has to find."""

    question: str
    answer: str
    entities: tuple[str, ...] = ()


def text_turns(question: str, value: Any) -> list[Turn]:
    """One turn; the value is its answer."""
    return [Turn(question, text(value, "the answer"))]


def entity_turns(question: str, value: Any) -> list[Turn]:
    """One turn; the value is a list of entities, or text with commas, semicolons or line breaks between them."""
    names = value if isinstance(value, list) else re.split(r"[,;\n]", text(value, "the list of entities"))
    distinct: dict[str, str] = {}
    for name in (text(name, "an entity") for name in names):
        if name:
            distinct.setdefault(fold(name), name)
    entities = tuple(distinct.values())
    return [Turn(question, ", ".join(entities), entities)]


def dialogue_turns(_question: str, value: Any) -> list[Turn]:
    """The turns of a list ``[{Q, A}, ...]`` or an object ``{name: {Question, Answer}, ...}``, in their order."""
    turns = []
    for entry in value.values() if isinstance(value, dict) else _items(value, "a dialogue"):
        keys = next((keys for keys in TURN_KEYS if isinstance(entry, dict) and set(entry) == set(keys)), None)
        if keys is None:
            raise ValueError("a turn must hold Q and A, or Question and Answer")
        turns.append(Turn(*(text(entry[key], f"{key} of a turn") for key in keys)))
    return turns


def conversation_turns(opening: str, value: Any) -> list[Turn]:
    """The turns of ``{phase: [{speaker: text}, ...], ...}``: whoever speaks last answers, everyone else asks.

    Utterances of one side in a row are one message. ``opening`` is the first question where the answering speaker
    begins. An empty last utterance gives one turn without an answer.
    """
    if not isinstance(value, dict):
        raise ValueError("a conversation must be an object of phases")
    utterances = []
    for phase in value.values():
        for utterance in _items(phase, "a phase"):
            if not isinstance(utterance, dict) or len(utterance) != 1:
                raise ValueError("an utterance must be an object {speaker: text}")
            utterances += [(speaker, text(said, "an utterance")) for speaker, said in utterance.items()]
    if not utterances:
        return []
    answering, last = utterances[-1]
    if not last:
        return [Turn(opening, "")]
    questions, answers = [""], [""]
    for speaker, said in filter(itemgetter(1), utterances):  # an empty utterance ends no turn
        if speaker == answering:
            answers[-1] = f"{answers[-1]}\n{said}".strip()
            continue
        if answers[-1]:
            questions.append("")
            answers.append("")
        questions[-1] = f"{questions[-1]}\n{said}".strip()
    return [Turn(question or opening, answer) for question, answer in zip(questions, answers, strict=True)]


def text(value: Any, name: str) -> str:
    """``value`` stripped; ``ValueError`` with its ``name`` if it is no text, or none that parquet can hold."""
    if not isinstance(value, str) or _LONE_SURROGATE.search(value):
        raise ValueError(f"{name} must be text")
    return value.strip()


def fold(text: str) -> str:
    """``text`` in lower case with single spaces."""
    return " ".join(text.lower().split())


def _items(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list")
    return value
