"""EHRSQL questions to evaluate: a parquet file of ``data_prep.ehrsql``, or EHRSQL-2024's ``data.json`` itself."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from data_prep.common.errors import InputError
from data_prep.ehrsql import Options, draw_examples, execute_gold, make_prompt, rl_row
from data_prep.sql.gold import training_timeout
from data_prep.sql.prompts import PromptBuilder
from data_prep.sql.schema import open_database
from data_prep.sql.source import Question, read_split, seen_in_train
from recipes.evaluation.rows import Row, missing_fields, read_parquet
from reward_fns.sql.answers import GOLD_FAILED

PROGRAM = "python -m data_prep.ehrsql"
QUESTION_FIELDS = {
    "id": str,
    "question": str,
    "template": str,
    "seen_template": str,
    "answerable": bool,
    "db_path": str,
    "gold_sql": str,
}


def read_rows(dataset_path: Path, db_path: Path | None, prompt: str, think: bool = False) -> list[Row]:
    """Rows as ``data_prep.ehrsql.rl_row`` makes them.

    ``db_path`` replaces the database that a parquet row names: its gold query is executed on it, since the row holds
    the other one's answer. ``data.json`` needs it, and its gold queries (from ``label.json`` beside it) are executed
    here. ``prompt`` is the prompt for ``data.json``, by name or path; examples in it are of the train split beside it.
    ``think`` is that of ``PromptBuilder``.

    Raises:
        InputError: the file is missing, of another kind or shape, or empty; a database is missing or unreadable; all
            gold queries fail on it; or the answers on ``db_path`` are unknown, as a row lacks its gold query.
    """
    if not dataset_path.is_file():
        raise InputError(f"no such dataset: {dataset_path}; make one with {PROGRAM}")
    if dataset_path.suffix == ".json":
        return _json_rows(dataset_path, db_path, prompt, think)
    if dataset_path.suffix == ".parquet":
        return _parquet_rows(dataset_path, db_path)
    raise InputError(f"cannot evaluate on {dataset_path}; give a .parquet file or EHRSQL's data.json")


def _parquet_rows(path: Path, db_path: Path | None) -> list[Row]:
    rows = read_parquet(path, PROGRAM, _problem)
    if db_path:
        open_database(db_path).close()
        _move([row for row in rows if not _same_file(row["extra_info"]["db_path"], db_path)], db_path, path)
    for database in {row["extra_info"]["db_path"] for row in rows}:
        open_database(Path(database)).close()
    return rows


def _same_file(named: str, db_path: Path) -> bool:
    return Path(named).is_file() and Path(named).samefile(db_path)


def _move(rows: Sequence[Row], db_path: Path, file: Path) -> None:
    """Give ``rows``, which are of ``file`` and about other databases, the database ``db_path`` and its gold answers."""
    if not rows:
        return
    if unknown := without_gold(rows):
        info = unknown[0]["extra_info"]
        raise InputError(
            f"{file} holds the answers on {info['db_path']} and lacks the gold SQL of {len(unknown)} of {len(rows)} "
            f"questions, so their answers on {db_path} are unknown; leave --db_path out, or prepare the questions on "
            "that database"
        )
    answers, _, seconds = execute_gold((row["extra_info"]["gold_sql"] for row in rows), db_path)
    changed = 0
    for row in rows:
        info, reward = row["extra_info"], row["reward_model"]
        answer = answers.get(info["gold_sql"], reward["ground_truth"])
        changed += answer != reward["ground_truth"]
        reward["ground_truth"] = answer
        info |= {"db_path": str(db_path), "timeout_s": training_timeout(seconds.get(info["gold_sql"], 0))}
    Console(stderr=True, soft_wrap=True, markup=False).print(
        f"gold executed on {db_path}: {changed:,} of {len(rows):,} answers differ from those of {file}"
    )


def without_gold(rows: Sequence[Row]) -> list[Row]:
    """The answerable questions of ``rows`` whose gold query is not known: nobody can execute it elsewhere."""
    return [row for row in rows if row["extra_info"]["answerable"] and not row["extra_info"]["gold_sql"]]


def _problem(row: Row) -> str | None:
    if row["data_source"] != "ehrsql":
        return f"data_source is {row['data_source']!r}, not 'ehrsql' (--recipe ecg evaluates ecg/...)"
    return missing_fields(row, QUESTION_FIELDS)


def _json_rows(path: Path, db_path: Path | None, prompt: str, think: bool) -> list[Row]:
    if path.name != "data.json":
        raise InputError(f"{path}: a JSON dataset is EHRSQL's data.json with label.json beside it")
    if db_path is None:
        raise InputError(f"{path} names no database; give --db_path")
    builder = PromptBuilder(prompt, db_path, think)
    open_database(db_path).close()
    folder = path.resolve().parent
    questions = read_split(folder)
    train_folder = folder.parent / "train"
    train = read_split(train_folder) if train_folder.is_dir() else []
    if builder.takes_examples and not train:
        raise InputError(
            f"the prompt {prompt} takes examples from train, but there is no {train_folder}; choose another"
        )
    examples = _examples(train, db_path, builder.think) if builder.takes_examples else []
    answers, _, seconds = execute_gold((question.gold for question in questions), db_path)
    rows = []
    for question, seen in zip(questions, seen_in_train(questions, train), strict=True):
        messages, timeout_s = make_prompt(builder, question, examples), training_timeout(seconds.get(question.gold, 0))
        rows.append(rl_row(question, folder.name, messages, answers[question.gold], seen, db_path, True, timeout_s))
    return rows


def _examples(train: Sequence[Question], db_path: Path, think: bool) -> list[dict[str, str]]:
    """Those that ``data_prep.ehrsql`` draws where all gold is given, with its default seed."""
    answers, _, _ = execute_gold((question.gold for question in train), db_path)
    usable = [question for question in train if answers[question.gold] != GOLD_FAILED]
    return draw_examples(usable, think, Options.seed)
