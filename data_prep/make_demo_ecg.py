"""A synthetic set of questions on electrocardiography, in the files and JSON shapes of ECG-Expert-QA.

Facts, phrasings and answers are our own (``demo/ecg_facts.yaml``, ``demo/ecg_templates.yaml``); the patients are drawn
at random. Of the dataset's eleven files it has the six named in ``FILES``. ``teacher/answers.json`` holds a simulated
teacher's answers to all questions by their ids.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.common.errors import InputError, run_main
from data_prep.demo.ecg_sampler import (
    ECG_KINDS,
    FIRST_SUBJECT,
    Question,
    TooFew,
    complex_questions,
    dialogue,
    ecg_fields,
    ecg_question,
    knowledge_questions,
    rights_questions,
    shuffled,
)
from data_prep.demo.ecg_teacher import PROBABILITY, TeacherAnswer, check_teacher, teach
from data_prep.demo.ecg_teacher import figures as teacher_figures
from data_prep.demo.output import demo_output
from data_prep.ecg.ids import question_id, record_id
from data_prep.ecg.source import SCHEMAS, read_file

FILES = {
    "EBK": "ECG Knowledge (Basic Q&A).json",
    "CK": "Cardiology Knowledge (Basic Knowledge Q&A).json",
    "CD": "Complex diagnosis (analysis of difficult diseases).json",
    "PRTK": "Patient's right to know.json",
    "CMD": "Cross modal diagnosis (ECG Text corresponding diagnosis).json",
    "MROD": "Medical inquiry, multiple rounds of dialogue between doctors and patients.json",
}
SHARES = {"EBK": 0.28, "CK": 0.38, "CD": 0.16, "PRTK": 0.06, "CMD": 0.06}  # of all questions; MROD has the rest
TEACHER_FILE = Path("teacher") / "answers.json"  # in a folder of its own: it is no file of ECG-Expert-QA
FEWEST = 100  # with fewer some kind of question would be missing


class Entry(NamedTuple):
    """One record of a file, and the questions that it asks, in their order."""

    record: dict
    questions: tuple[Question, ...]


def knowledge_entries(file: str, count: int, rng: np.random.Generator) -> list[Entry]:
    """Records ``{Q, A}`` of EBK or CK."""
    return [Entry(_pair(question), (question,)) for question in knowledge_questions(file, count, rng)]


def complex_entries(count: int, rng: np.random.Generator) -> list[Entry]:
    """Records ``{Disease, Q, A}``."""
    return [
        Entry({"Disease": question.disease} | _pair(question), (question,))
        for question in complex_questions(count, rng)
    ]


def rights_entries(count: int, rng: np.random.Generator) -> list[Entry]:
    """Records ``{Question, Answer}``."""
    return [
        Entry({"Question": question.text, "Answer": question.answer}, (question,))
        for question in rights_questions(count, rng)
    ]


def ecg_entries(count: int, rng: np.random.Generator) -> list[Entry]:
    """Records of ECG fields with ``Q`` and ``A`` exchanged, as in ECG-Expert-QA: the question stands in ``A``."""
    entries: dict[str, Entry] = {}
    while len(entries) < count:
        number = len(entries)
        kind, yes = ECG_KINDS[number % len(ECG_KINDS)], number // len(ECG_KINDS) % 2 == 0
        patient, question = ecg_question(kind, yes, FIRST_SUBJECT + number, rng)
        if question.text not in entries:
            record = ecg_fields(patient, rng) | {"Q": question.answer, "A": question.text}
            entries[question.text] = Entry(record, (question,))
    return shuffled(list(entries.values()), rng)


def dialogue_entries(count: int, first_subject: int, rng: np.random.Generator) -> list[Entry]:
    """Records ``{subject_id, result, QA: [{Q, A}, ...]}`` that hold ``count`` questions in turns of two or three."""
    entries = []
    for number, turns in enumerate(_turn_counts(count, rng)):
        subject_id = first_subject + number
        context, questions = dialogue(number % 2 == 0, turns, subject_id, rng)
        record = {"subject_id": subject_id, "result": context, "QA": [_pair(item) for item in questions]}
        entries.append(Entry(record, tuple(questions)))
    return shuffled(entries, rng)


def _pair(question: Question) -> dict[str, str]:
    return {"Q": question.text, "A": question.answer}


def _turn_counts(total: int, rng: np.random.Generator) -> list[int]:
    """Twos and threes that sum up to ``total`` (at least two)."""
    counts = []
    while total:
        counts.append(total if total <= 3 else 2 if total == 4 else int(rng.integers(2, 4)))
        total -= counts[-1]
    return counts


def make_entries(questions: int, rng: np.random.Generator) -> dict[str, list[Entry]]:
    """The entries of each file by its id, with ``questions`` questions in all.

    Raises:
        InputError: the templates do not make so many.
    """
    sizes = {file: 2 * round(questions * share / 2) for file, share in SHARES.items()}  # even, for as many yes as no
    makers: dict[str, Callable[[int], list[Entry]]] = {
        "EBK": lambda count: knowledge_entries("EBK", count, rng),
        "CK": lambda count: knowledge_entries("CK", count, rng),
        "CD": lambda count: complex_entries(count, rng),
        "PRTK": lambda count: rights_entries(count, rng),
        "CMD": lambda count: ecg_entries(count, rng),
    }
    try:
        entries = {file: make(sizes[file]) for file, make in makers.items()}
    except TooFew as error:
        raise InputError(f"--questions is {questions}; the templates do not make so many, ask for fewer") from error
    rest = questions - sum(sizes.values())
    return entries | {"MROD": dialogue_entries(rest, FIRST_SUBJECT + sizes["CMD"], rng)}


def question_answers(file: str, records: list[dict]) -> list[tuple[str, str]]:
    """(question, answer) of the records of a file, wherever its shape keeps them."""
    if file == "MROD":
        return [(turn["Q"], turn["A"]) for record in records for turn in record["QA"]]
    question, answer = {"PRTK": ("Question", "Answer"), "CMD": ("A", "Q")}.get(file, ("Q", "A"))
    return [(record[question], record[answer]) for record in records]


def figures(file: str, records: list[dict]) -> str:
    """One line on a file: how much it holds, how often the answer is yes or no, how long answers are."""
    answers = [answer for _, answer in question_answers(file, records)]
    yes, no = (sum(answer.startswith(f"{verdict}, ") for answer in answers) for verdict in ("Yes", "No"))
    words = np.mean([len(answer.split()) for answer in answers])
    return f"{file}: {len(records)} records, {len(answers)} questions, {yes} yes, {no} no; {words:.1f} words an answer"


def questions_by_id(folder: Path, entries: dict[str, list[Entry]]) -> dict[str, Question]:
    """The questions of the files in ``folder`` by the ids that ``data_prep.ecg_expert_qa`` gives them."""
    found = {}
    for schema in SCHEMAS:
        if schema.id in entries:
            records, _ = read_file(folder / schema.file, schema)
            for record, entry in zip(records, entries[schema.id], strict=True):
                id = record_id(record)
                found |= {question_id(id, number): question for number, question in enumerate(entry.questions)}
    return found


def make_ecg(
    out_dir: str | Path,
    questions: int = 5000,
    seed: int = 0,
    teacher_probability: float = PROBABILITY,
) -> tuple[dict[str, list[dict]], dict[str, TeacherAnswer]]:
    """Write the files and the teacher's answers to ``out_dir``; return the records by file id, and the answers by id.

    Raises:
        InputError: ``questions`` is too small or too large, ``seed`` is negative, ``out_dir`` holds something else, the
            teacher's probability is none.
    """
    if questions < FEWEST:
        raise InputError(f"--questions is {questions}; it must be at least {FEWEST}")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must not be negative")
    check_teacher(teacher_probability)
    with demo_output(out_dir, "ecg") as folder:
        entries = make_entries(questions, np.random.default_rng(seed))
        records = {file: [entry.record for entry in file_entries] for file, file_entries in entries.items()}
        for file, name in FILES.items():
            (folder / name).write_text(json.dumps(records[file], indent=1), encoding="utf-8")
        asked = questions_by_id(folder, entries)
        answers = teach(asked, teacher_probability, seed)
        (folder / TEACHER_FILE).parent.mkdir()
        content = {id: answer.text for id, answer in answers.items()}
        (folder / TEACHER_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    return records, answers


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.make_demo_ecg",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out_dir", required=True, help="folder for the JSON files")
    parser.add_argument("--questions", type=int, default=5000, help="number of questions in all files together")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    parser.add_argument(
        "--teacher_probability", type=float, default=PROBABILITY, help="of a teacher's habit where it applies"
    )
    args = parser.parse_args(argv)
    records, answers = make_ecg(args.out_dir, args.questions, args.seed, args.teacher_probability)
    for file, file_records in records.items():
        print(figures(file, file_records))
    print(teacher_figures(answers))
    print(f"questions: {args.out_dir}")


if __name__ == "__main__":
    run_main(main)
