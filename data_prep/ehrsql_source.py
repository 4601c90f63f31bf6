"""Read and check question files in EHRSQL-2024's JSON format.

A split is a folder with ``data.json`` (``{"version": ..., "data": [{"id", "question"}, ...]}``),
``label.json`` (``{id: SQL, or "null" where the database cannot answer}``) and optionally
``annotated.json`` (``[{"id", "template", ...}, ...]``).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from reward_fns.answers import ABSTAIN

SPLITS = ("train", "valid", "test")
NO_TEMPLATE = "-"  # what EHRSQL-2024 writes for unanswerable questions


@dataclass(frozen=True)
class Question:
    """One question; ``gold`` is its SQL or ``ABSTAIN``, ``template`` is "" where it is not known."""

    id: str
    index: int
    text: str
    gold: str
    template: str

    @property
    def answerable(self) -> bool:
        return self.gold != ABSTAIN


def split_files(folder: Path) -> list[Path]:
    """The files of a split that exist, ``data.json`` first."""
    return [path for name in ("data", "label", "annotated") if (path := folder / f"{name}.json").exists()]


def read_split(folder: Path) -> list[Question]:
    """The questions of one split, in the order of ``data.json``.

    Raises:
        InputError: a file is missing, unreadable or of another shape, the split is empty, an id occurs twice,
            or questions and labels do not match.
    """
    texts = _questions(folder / "data.json")
    labels = read_labels(folder / "label.json")
    if unlabelled := [id for id in texts if id not in labels]:
        raise InputError(f"{folder}: {_some(unlabelled)} in data.json but not in label.json; add the labels")
    if unasked := [id for id in labels if id not in texts]:
        raise InputError(f"{folder}: {_some(unasked)} in label.json but not in data.json; add the questions")
    templates = _templates(folder / "annotated.json") if (folder / "annotated.json").exists() else {}
    return [
        Question(id, index, text, labels[id], templates.get(id, "")) for index, (id, text) in enumerate(texts.items())
    ]


def sql_skeleton(sql: str) -> str:
    """``sql`` with its strings and numbers masked, in lower case with single spaces."""
    masked = re.sub(r"'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b", "?", sql)
    return " ".join(masked.lower().split())


def seen_in_train(questions: list[Question], train: list[Question]) -> list[str]:
    """``"seen"``, ``"unseen"`` or ``"unknown"`` for each question: does its template occur in train?

    By annotated template where both sides have them. Otherwise by SQL skeleton: a template is seen if the
    skeleton of any of its questions' gold occurs among train's; a question without a template counts alone.
    Unanswerable questions have no template and are unknown, as are all where there is no train split.
    """
    train_templates = {q.template for q in train if q.answerable and q.template}
    train_skeletons = {sql_skeleton(q.gold) for q in train if q.answerable}
    seen_templates = train_templates or {
        q.template for q in questions if q.answerable and sql_skeleton(q.gold) in train_skeletons
    }

    def status(question: Question) -> str:
        if not question.answerable or not train_skeletons:
            return "unknown"
        if question.template:
            return "seen" if question.template in seen_templates else "unseen"
        return "seen" if sql_skeleton(question.gold) in train_skeletons else "unseen"

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
    """Question id -> SQL or ``ABSTAIN``. Raises ``InputError`` for anything but a label.json."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f'{path}: expected {{id: SQL or "null"}}; is it a label.json of EHRSQL-2024?')
    for id, label in content.items():
        if not isinstance(label, str) or not label.strip():
            raise InputError(f'{path}: the label of {id} must be SQL or the string "null"')
    return {id: label.strip() for id, label in content.items()}


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


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ``InputError`` where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no {path}; a split needs data.json and label.json") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: bad JSON in {where}: {error.msg}; fetch or write the file again") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _some(ids: list[str], shown: int = 3) -> str:
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return f"{', '.join(ids[:shown])}{more}"
