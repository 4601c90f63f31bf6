"""Records of ECG-Expert-QA as rows for verl's trainers."""

from dataclasses import dataclass
from typing import Any

from data_prep.ecg.ids import question_id
from data_prep.ecg.prompts import ChatBuilder
from data_prep.ecg.source import Record
from data_prep.ecg.turns import Turn
from reward_fns.ecg_grader.reference import make_reference


@dataclass(frozen=True)
class Question:
    """One answered turn: ``prompt`` is its chat up to the question, ``group`` names what the split keeps together."""

    id: str
    record: Record
    turn: Turn
    prompt: list[dict[str, str]]
    split: str
    group: str


def ask(record: Record, id: str, split: str, group: str, chat: ChatBuilder) -> list[Question]:
    """The questions of a record, one for each turn that is asked; ``id`` is the record's."""
    questions = [turn.question for turn in record.turns]
    answers = [turn.answer for turn in record.turns]
    return [
        Question(
            id=question_id(id, number),
            record=record,
            turn=record.turns[number],
            prompt=chat.messages(record.context, questions[: number + 1], answers[:number]),
            split=split,
            group=group,
        )
        for number in record.asked
    ]


def sft_row(record: Record, chat: ChatBuilder) -> dict[str, Any]:
    """One row as verl's SFT dataset reads it: the whole dialogue."""
    questions = [turn.question for turn in record.turns]
    answers = [turn.answer for turn in record.turns]
    return {"messages": chat.messages(record.context, questions, answers)}


def grpo_row(question: Question, answer_shown: bool) -> dict[str, Any]:
    """One row as verl's RLHF dataset reads it; ``ground_truth`` is what ``reward_fns`` compares with."""
    turn, schema = question.turn, question.record.schema
    return {
        "data_source": f"ecg/{schema.id}",  # verl reports validation by data source
        "prompt": question.prompt,
        "ability": "ecg",
        "reward_model": {
            "style": "rule",
            "ground_truth": make_reference(turn.question, turn.answer, schema.kind, turn.entities),
        },
        "extra_info": {
            "id": question.id,
            "split": question.split,
            "category": schema.id,
            "question": turn.question,
            "reference": turn.answer if answer_shown else "",
            "group": question.group,
        },
    }
