"""A teacher's unverified answers to train questions: read, checked, put in place of the references, and graded.

The file is one JSON object, question id to answer; an id is that in ``extra_info`` of the parquet rows.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from data_prep.common.errors import InputError
from data_prep.common.json_file import read_json
from data_prep.ecg.ids import question_id
from data_prep.ecg.rows import Question
from data_prep.ecg.source import Record
from data_prep.ecg.turns import text
from reward_fns.ecg import extract_answer
from reward_fns.ecg_grader.grade import EcgGrade, grade
from reward_fns.ecg_grader.parameters import KEY_CONTRADICTION
from reward_fns.ecg_grader.reference import load_reference, make_reference

CORRECT = 0.5  # the grader's correctness, of 1, from which the report counts an answer as correct


def read_answers(path: Path) -> dict[str, str]:
    """The answers in ``path`` by question id, stripped.

    Raises:
        InputError: the file is unreadable, of another shape or empty, an id occurs twice, or an answer is no text.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected one object with an answer for each question id")
    if not content:
        raise InputError(f"{path} has no answer; write the teacher's answers to it, or leave --teacher_answers out")
    try:
        answers = {id: text(answer, f"the answer to {id!r}") for id, answer in content.items()}
    except ValueError as error:
        raise InputError(f"{path}: {error}; write it, or leave the question out") from error
    if empty := [id for id, answer in answers.items() if not answer]:
        raise InputError(f"{path}: the answer to {empty[0]!r} is empty; write it, or leave the question out")
    return answers


def check_ids(path: Path, answers: Collection[str], known: Collection[str]) -> None:
    """Raise an ``InputError`` if one of the ids in ``answers`` is not ``known``: in no question of any split."""
    if unknown := [id for id in answers if id not in known]:
        raise InputError(
            f"{path}: {len(unknown):,} of {len(answers):,} ids are of no question, first {unknown[0]!r}; take ids from "
            "extra_info in grpo_train.parquet of the same --data_dir"
        )


def with_answers(record: Record, id: str, answers: Mapping[str, str]) -> Record:
    """The record with the teacher's answer in each turn that has one; ``id`` is the record's."""
    turns = (
        replace(turn, answer=answers.get(question_id(id, number), turn.answer))
        for number, turn in enumerate(record.turns)
    )
    return replace(record, turns=tuple(turns))


def grade_answer(question: Question, answer: str) -> EcgGrade:
    """What the grader says of a teacher's ``answer`` by the reference, which the teacher has not seen."""
    turn = question.turn
    reference = load_reference(make_reference(turn.question, turn.answer, question.record.schema.kind, turn.entities))
    return grade(extract_answer(answer)[0], reference)


def teacher_counts(grades: Iterable[EcgGrade]) -> dict[str, int | float]:
    """``answers`` that SFT is taught, how many of them are ``correct`` and how many ``contradicting`` a key fact.

    ``correctness`` is the grader's, the mean, of 1. There is at least one grade.
    """
    grades = list(grades)
    return {
        "answers": len(grades),
        "correct": sum(grade.correctness >= CORRECT for grade in grades),
        "contradicting": sum(grade.contradiction >= KEY_CONTRADICTION for grade in grades),
        "correctness": fmean(grade.correctness for grade in grades),
    }
