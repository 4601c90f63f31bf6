"""A synthetic set of questions on electrocardiography, in the files and JSON shapes of ECG-Expert-QA.

Facts, phrasings and answers are our own (``demo_ecg_facts.yaml``, ``demo_ecg_templates.yaml``); the patients are drawn
at random. Of the dataset's eleven files it has the six named in ``FILES``.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_prep.demo_ecg_sampler import (
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
from data_prep.demo_output import demo_output
from data_prep.errors import InputError

FILES = {
    "EBK": "ECG Knowledge (Basic Q&A).json",
    "CK": "Cardiology Knowledge (Basic Knowledge Q&A).json",
    "CD": "Complex diagnosis (analysis of difficult diseases).json",
    "PRTK": "Patient's right to know.json",
    "CMD": "Cross modal diagnosis (ECG Text corresponding diagnosis).json",
    "MROD": "Medical inquiry, multiple rounds of dialogue between doctors and patients.json",
}
SHARES = {"EBK": 0.28, "CK": 0.38, "CD": 0.16, "PRTK": 0.06, "CMD": 0.06}  # of all questions; MROD has the rest
FEWEST = 100  # with fewer some kind of question would be missing


def knowledge_records(file: str, count: int, rng: np.random.Generator) -> list[dict]:
    """Records ``{Q, A}`` of EBK or CK."""
    return [_pair(question) for question in knowledge_questions(file, count, rng)]


def complex_records(count: int, rng: np.random.Generator) -> list[dict]:
    """Records ``{Disease, Q, A}``."""
    return [{"Disease": question.disease} | _pair(question) for question in complex_questions(count, rng)]


def rights_records(count: int, rng: np.random.Generator) -> list[dict]:
    """Records ``{Question, Answer}``."""
    return [{"Question": question.text, "Answer": question.answer} for question in rights_questions(count, rng)]


def ecg_records(count: int, rng: np.random.Generator) -> list[dict]:
    """Records of ECG fields with ``Q`` and ``A`` exchanged, as in ECG-Expert-QA: the question stands in ``A``."""
    records: dict[str, dict] = {}
    while len(records) < count:
        number = len(records)
        kind, yes = ECG_KINDS[number % len(ECG_KINDS)], number // len(ECG_KINDS) % 2 == 0
        patient, question = ecg_question(kind, yes, FIRST_SUBJECT + number, rng)
        if question.text not in records:
            records[question.text] = ecg_fields(patient, rng) | {"Q": question.answer, "A": question.text}
    return shuffled(list(records.values()), rng)


def dialogue_records(count: int, first_subject: int, rng: np.random.Generator) -> list[dict]:
    """Records ``{subject_id, result, QA: [{Q, A}, ...]}`` that hold ``count`` questions in turns of two or three."""
    records = []
    for number, turns in enumerate(_turn_counts(count, rng)):
        subject_id = first_subject + number
        context, questions = dialogue(number % 2 == 0, turns, subject_id, rng)
        records.append({"subject_id": subject_id, "result": context, "QA": [_pair(item) for item in questions]})
    return shuffled(records, rng)


def _pair(question: Question) -> dict[str, str]:
    return {"Q": question.text, "A": question.answer}


def _turn_counts(total: int, rng: np.random.Generator) -> list[int]:
    """Twos and threes that sum up to ``total`` (at least two)."""
    counts = []
    while total:
        counts.append(total if total <= 3 else 2 if total == 4 else int(rng.integers(2, 4)))
        total -= counts[-1]
    return counts


def make_records(questions: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """The records of each file by its id, with ``questions`` questions in all.

    Raises:
        InputError: the templates do not make so many.
    """
    sizes = {file: 2 * round(questions * share / 2) for file, share in SHARES.items()}  # even, for as many yes as no
    makers: dict[str, Callable[[int], list[dict]]] = {
        "EBK": lambda count: knowledge_records("EBK", count, rng),
        "CK": lambda count: knowledge_records("CK", count, rng),
        "CD": lambda count: complex_records(count, rng),
        "PRTK": lambda count: rights_records(count, rng),
        "CMD": lambda count: ecg_records(count, rng),
    }
    try:
        records = {file: make(sizes[file]) for file, make in makers.items()}
    except TooFew as error:
        raise InputError(f"--questions is {questions}; the templates do not make so many, ask for fewer") from error
    rest = questions - sum(sizes.values())
    return records | {"MROD": dialogue_records(rest, FIRST_SUBJECT + sizes["CMD"], rng)}


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


def make_ecg(out_dir: str | Path, questions: int = 5000, seed: int = 0) -> dict[str, list[dict]]:
    """Write the files to ``out_dir``; return their records by file id.

    Raises:
        InputError: ``questions`` is too small or too large, ``seed`` is negative, ``out_dir`` holds something else.
    """
    if questions < FEWEST:
        raise InputError(f"--questions is {questions}; it must be at least {FEWEST}")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must not be negative")
    with demo_output(out_dir, "ecg") as folder:
        records = make_records(questions, np.random.default_rng(seed))
        for file, name in FILES.items():
            (folder / name).write_text(json.dumps(records[file], indent=1), encoding="utf-8")
    return records


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.make_demo_ecg",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out_dir", required=True, help="folder for the JSON files")
    parser.add_argument("--questions", type=int, default=5000, help="number of questions in all files together")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    args = parser.parse_args(argv)
    for file, records in make_ecg(args.out_dir, args.questions, args.seed).items():
        print(figures(file, records))
    print(f"questions: {args.out_dir}")


if __name__ == "__main__":
    main()
