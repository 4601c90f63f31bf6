"""Read and check question files in EHRSQL-2024's JSON format.

A split is a folder with ``data.json`` (``{"version": ..., "data": [{"id", "question"}, ...]}``),
``label.json`` (``{id: SQL, or "null" where the database cannot answer}``) and optionally
``annotated.json`` (``[{"id", "template", ...}, ...]``). A teacher's labels are a file like ``label.json`` for some of
the train questions. There reasoning in ``<think>`` may stand before a label.
"""

import random
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.common.errors import InputError
from data_prep.common.json_file import read_json
from reward_fns.sql.answers import ABSTAIN
from reward_fns.sql.text import extract_sql

SPLITS = ("train", "valid", "test")
NO_TEMPLATE = "-"  # what EHRSQL-2024 writes for unanswerable questions
REASONED = re.compile(r"<think>(.*?)</think>.*", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """One question with its labels, which are SQL or ``ABSTAIN``.

    ``teacher`` is a teacher's unverified label, "" where it gave none, and ``reasoning`` what the teacher wrote before
    it. ``gold`` is "" where a teacher's label is all there is. ``template`` is "" where it is not known.
    """

    id: str
    index: int
    text: str
    gold: str
    template: str
    teacher: str = ""
    reasoning: str = ""

    @property
    def label(self) -> str:
        """What is known best: the gold, or else the teacher's label."""
        return self.gold or self.teacher

    @property
    def target(self) -> str:
        """What SFT teaches: the teacher's label, or else the gold."""
        return self.teacher or self.gold

    @property
    def answerable(self) -> bool:
        return self.label != ABSTAIN


def split_files(folder: Path) -> list[Path]:
    """The files of a split that exist, ``data.json`` first."""
    return [path for name in ("data", "label", "annotated") if (path := folder / f"{name}.json").exists()]


def read_split(folder: Path, teacher_file: Path | None = None) -> list[Question]:
    """The questions of one split, in the order of ``data.json``.

    Those that ``teacher_file`` labels need no gold label.

    Raises:
        InputError: a file is missing, unreadable or of another shape, the split is empty, an id occurs twice,
            questions and labels do not match, the teacher labels all questions, none, or others, or no label follows
            the teacher's reasoning.
    """
    texts = _questions(folder / "data.json")
    teacher, reasoning = _teacher_labels(teacher_file, folder, texts) if teacher_file else ({}, {})
    labels = read_labels(folder / "label.json")
    if unlabelled := [id for id in texts if id not in labels and id not in teacher]:
        raise InputError(f"{folder}: {_some(unlabelled)} in data.json but not in label.json; add the labels")
    if unasked := [id for id in labels if id not in texts]:
        raise InputError(f"{folder}: {_some(unasked)} in label.json but not in data.json; add the questions")
    templates = _templates(folder / "annotated.json") if (folder / "annotated.json").exists() else {}
    return [
        Question(id, index, text, labels.get(id, ""), templates.get(id, ""), teacher.get(id, ""), reasoning.get(id, ""))
        for index, (id, text) in enumerate(texts.items())
    ]


def sql_skeleton(sql: str) -> str:
    """``sql`` with its strings and numbers masked, in lower case with single spaces."""
    masked = re.sub(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b", "?", sql)
    return " ".join(masked.lower().split())


def draw_share(templates: dict[str, str], share: float, seed: int) -> set[str]:
    """Draw a share of the questions, whose ids are the keys of ``templates``, evenly over their templates.

    The share holds within each template to within one question, and over all questions to the nearest number.
    """
    generator = random.Random(seed)
    by_template = defaultdict(list)
    for id, template in templates.items():
        by_template[template].append(id)
    # Each template's questions are spread evenly over [0, 1) from a random start; the lowest are taken.
    place = {}
    for ids in by_template.values():
        generator.shuffle(ids)
        start = generator.random()
        place |= {id: (number + start) / len(ids) for number, id in enumerate(ids)}
    return set(sorted(place, key=place.__getitem__)[: round(share * len(place))])


def seen_in_train(questions: list[Question], train: list[Question]) -> list[str]:
    """``"seen"``, ``"unseen"`` or ``"unknown"`` for each question: does its template occur in train?

    By annotated template where both sides have them. Otherwise by SQL skeleton: a template is seen if the
    skeleton of any of its questions' gold occurs among train's (or, of a train question without gold, its teacher's);
    a question without a template counts alone.
    Unanswerable questions have no template and are unknown, as are all where there is no train split.
    """
    train_templates = {q.template for q in train if q.answerable and q.template}
    train_skeletons = {sql_skeleton(q.label) for q in train if q.answerable}
    seen_templates = train_templates or {
        q.template for q in questions if q.answerable and sql_skeleton(q.label) in train_skeletons
    }

    def status(question: Question) -> str:
        if not question.answerable or not train_skeletons:
            return "unknown"
        if question.template:
            return "seen" if question.template in seen_templates else "unseen"
        return "seen" if sql_skeleton(question.label) in train_skeletons else "unseen"

    return [status(question) for question in questions]


def _questions(path: Path) -> dict[str, str]:
    content = read_json(path)
    records = content.get("data") if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise InputError(f'{path}: expected {{"data": [...]}}; is it a data.json of EHRSQL-2024?')
    texts = {}
    for number, record in enumerate(records):
        _check_record(path, number, record, "id", "question")
        if record["id"] in texts:
            raise InputError(f"{path}: id {record['id']} occurs twice; remove one of the questions")
        texts[record["id"]] = record["question"]
    if not texts:
        raise InputError(f"{path}: the split has no questions; remove its folder to leave it out")
    return texts


def read_labels(path: Path) -> dict[str, str]:
    """Question id -> SQL or ``ABSTAIN``. Raises ``InputError`` for anything but a label.json.

    A label abstains where the reward takes the same text of a model for an abstention: ``NULL`` and ``null;`` too.
    """
    return _labels(_label_texts(path))


def _labels(texts: dict[str, str]) -> dict[str, str]:
    return {id: ABSTAIN if extract_sql(text).abstained else text for id, text in texts.items()}


def _label_texts(path: Path) -> dict[str, str]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f'{path}: expected {{id: SQL or "null"}}; is it a label.json of EHRSQL-2024?')
    for id, label in content.items():
        if not isinstance(label, str) or not label.strip():
            raise InputError(f'{path}: the label of {id} must be SQL or the string "null"')
    return {id: label.strip() for id, label in content.items()}


def _teacher_labels(path: Path, folder: Path, texts: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The labels of ``path``, which are about some of the questions ``texts`` of the split in ``folder``.

    Also the reasoning before them, of those that have some.
    """
    if not path.is_file():
        raise InputError(f"no teacher's labels at {path}; check the path of --teacher_labels")
    written = _label_texts(path)
    labels = _labels(written)
    if not labels:
        raise InputError(f"{path} labels no question; write the teacher's queries to it, or leave --teacher_labels out")
    if unknown := [id for id in labels if id not in texts]:
        raise InputError(
            f"{path} labels {_some(unknown)}: no questions of {folder}; remove them, or give the right --data_dir"
        )
    if len(labels) == len(texts):
        raise InputError(
            f"{path} labels all {len(texts)} questions of {folder}, which leaves none for GRPO; remove some of them"
        )
    reasoning = {}
    for id, text in written.items():
        if "<think>" not in text.lower():
            continue
        reasoned, read = REASONED.fullmatch(text), extract_sql(text)
        if not (reasoned and read.format_ok):
            raise InputError(
                f"{path}: the label of {id} holds reasoning; write <think>...</think>, and behind it one query, bare "
                "or in a fence, or null"
            )
        labels[id], reasoning[id] = read.sql or ABSTAIN, reasoned[1].strip()
    return labels, reasoning


def _templates(path: Path) -> dict[str, str]:
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path}: expected a list of annotated questions; remove the file to do without")
    templates = {}
    for number, record in enumerate(content):
        _check_record(path, number, record, "id", "template")
        templates[record["id"]] = "" if record["template"] == NO_TEMPLATE else record["template"]
    return templates


def _check_record(path: Path, number: int, record: Any, *keys: str) -> None:
    if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in keys):
        raise InputError(f"{path}: record {number} needs the strings {' and '.join(keys)}")


def _some(ids: list[str], shown: int = 3) -> str:
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return f"{', '.join(ids[:shown])}{more}"
