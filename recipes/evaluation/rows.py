"""Rows to evaluate, from the parquet files of ``data_prep``."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.common.errors import InputError

Row = dict[str, Any]
COLUMNS = ("data_source", "prompt", "reward_model", "extra_info")


def read_parquet(path: Path, program: str, problem: Callable[[Row], str | None]) -> list[Row]:
    """The rows of ``path``, which ``program`` wrote, each with a unique ``extra_info.id``.

    ``problem`` says what keeps a row, which has all columns, a chat prompt and a ground truth, from being evaluated.

    Raises:
        InputError: the file is no parquet file, has no rows, or has a bad one.
    """
    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"cannot read {path} as parquet: {str(error).splitlines()[0]}; prepare it again") from error
    if not rows:
        raise InputError(f"{path} has no rows; prepare it again with {program}")
    ids = set()
    for number, row in enumerate(rows):
        if reason := _missing(row) or problem(row):
            raise InputError(f"{path}, row {number}: {reason}; prepare it with {program}")
        id = row["extra_info"]["id"]
        if id in ids:
            raise InputError(f"{path}, row {number}: the id {id} occurs twice; remove one of the rows")
        ids.add(id)
    return rows


def _missing(row: Row) -> str | None:
    if missing := [column for column in COLUMNS if column not in row]:
        return f"no column {', '.join(missing)}"
    prompt = row["prompt"]
    if not isinstance(prompt, list) or not prompt or not all(_is_message(message) for message in prompt):
        return "the prompt is not a list of chat messages"
    if not isinstance(row["reward_model"], dict) or not isinstance(row["reward_model"].get("ground_truth"), str):
        return "reward_model has no ground_truth"
    return None


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def missing_fields(row: Row, fields: dict[str, type]) -> str | None:
    """Which of ``fields`` (name -> type) ``extra_info`` lacks, None if none."""
    info = row["extra_info"] if isinstance(row["extra_info"], dict) else {}
    missing = [name for name, kind in fields.items() if not isinstance(info.get(name), kind)]
    return f"extra_info has no {', '.join(missing)}" if missing else None


def choose_rows(rows: list[Row], number: int | None, seed: int) -> list[Row]:
    """``number`` of the rows drawn at random, in the order of the file; all where there are no more, or it is None.

    Drawn, because neighbours in a file are alike.
    """
    if number is not None and number < 1:
        raise InputError(f"--num_samples is {number}; give 1 or more, or leave it out for all questions")
    if number is None or number >= len(rows):
        return rows
    return [rows[index] for index in sorted(random.Random(seed).sample(range(len(rows)), number))]
