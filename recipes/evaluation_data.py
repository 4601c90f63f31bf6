"""Questions to evaluate: a parquet file of ``data_prep.ehrsql``, or EHRSQL-2024's ``data.json`` itself."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.ehrsql import Options, execute_gold, rl_row
from data_prep.ehrsql_source import read_split, seen_in_train
from data_prep.errors import InputError
from data_prep.prompts import PromptBuilder
from data_prep.schema_prompt import open_database

QUESTION_FIELDS = {
    "id": str,
    "question": str,
    "template": str,
    "seen_template": str,
    "answerable": bool,
    "db_path": str,
    "gold_sql": str,
}


def load_rows(dataset_path: Path, db_path: Path | None, prompt: str) -> list[dict[str, Any]]:
    """Rows as ``data_prep.ehrsql.rl_row`` makes them.

    ``db_path`` replaces the database that a parquet row names; ``data.json`` needs it, and its gold queries (from
    ``label.json`` beside it) are executed here. ``prompt`` is the prompt template for ``data.json``.

    Raises:
        InputError: the file is missing, of another kind or shape, or empty; a database is missing or unreadable.
    """
    if not dataset_path.is_file():
        raise InputError(f"no such dataset: {dataset_path}; make one with python -m data_prep.ehrsql")
    if dataset_path.suffix == ".json":
        return _json_rows(dataset_path, db_path, prompt)
    if dataset_path.suffix == ".parquet":
        return _parquet_rows(dataset_path, db_path)
    raise InputError(f"cannot evaluate on {dataset_path}; give a .parquet file or EHRSQL's data.json")


def choose_rows(rows: list[dict[str, Any]], number: int | None, seed: int) -> list[dict[str, Any]]:
    """``number`` of the rows drawn at random, in the order of the file; all of them where ``number`` is None.

    Drawn, because neighbours in EHRSQL's files share a template.
    """
    if number is None:
        return rows
    if not 1 <= number <= len(rows):
        raise InputError(f"--num_samples is {number}; give 1 to {len(rows)}, the number of questions")
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), number))]


def _parquet_rows(path: Path, db_path: Path | None) -> list[dict[str, Any]]:
    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {path} as parquet: {str(error).splitlines()[0]}; prepare it again") from error
    if not rows:
        raise InputError(f"{path} has no rows; prepare it again with python -m data_prep.ehrsql")
    ids = set()
    for number, row in enumerate(rows):
        if problem := _problem(row):
            raise InputError(f"{path}, row {number}: {problem}; prepare it with python -m data_prep.ehrsql")
        info = row["extra_info"]
        if info["id"] in ids:
            raise InputError(f"{path}, row {number}: the id {info['id']} occurs twice; remove one of the rows")
        ids.add(info["id"])
        if db_path:
            info["db_path"] = str(db_path)
    for database in {row["extra_info"]["db_path"] for row in rows}:
        open_database(Path(database)).close()
    return rows


def _problem(row: dict[str, Any]) -> str | None:
    """What keeps a row from being evaluated, None if nothing does."""
    if missing := [column for column in ("data_source", "prompt", "reward_model", "extra_info") if column not in row]:
        return f"no column {', '.join(missing)}"
    if row["data_source"] != "ehrsql":
        return f"data_source is {row['data_source']!r}, not 'ehrsql'"
    prompt = row["prompt"]
    if not isinstance(prompt, list) or not prompt or not all(_is_message(message) for message in prompt):
        return "the prompt is not a list of chat messages"
    if not isinstance(row["reward_model"], dict) or not isinstance(row["reward_model"].get("ground_truth"), str):
        return "reward_model has no ground_truth"
    info = row["extra_info"] if isinstance(row["extra_info"], dict) else {}
    missing = [name for name, kind in QUESTION_FIELDS.items() if not isinstance(info.get(name), kind)]
    return f"extra_info has no {', '.join(missing)}" if missing else None


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def _json_rows(path: Path, db_path: Path | None, prompt: str) -> list[dict[str, Any]]:
    if path.name != "data.json":
        raise InputError(f"{path}: a JSON dataset is EHRSQL's data.json with label.json beside it")
    if db_path is None:
        raise InputError(f"{path} names no database; give --db_path")
    if prompt == "few_shot":
        raise InputError("the few_shot prompt takes examples from train; prepare a parquet file with data_prep.ehrsql")
    builder = PromptBuilder(prompt, db_path)
    open_database(db_path).close()
    folder = path.resolve().parent
    questions = read_split(folder)
    train_folder = folder.parent / "train"
    train = read_split(train_folder) if train_folder.is_dir() else []
    answers, _ = execute_gold(questions, Options(data_dir=folder, db=db_path, out_dir=folder))
    return [
        rl_row(question, folder.name, builder.messages(question.text), answers[question.gold], seen, db_path, True)
        for question, seen in zip(questions, seen_in_train(questions, train), strict=True)
    ]
