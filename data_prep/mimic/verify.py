"""Whether a database is the one that published answers were computed on: gold queries are executed and compared."""

import ast
import re
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data_prep.common.errors import InputError
from data_prep.common.json_file import read_json
from data_prep.sql.gold import execute_all
from data_prep.sql.schema import open_database, table_names
from data_prep.sql.source import read_labels
from reward_fns.sql.answers import ABSTAIN, canonical_answer
from reward_fns.sql.text import extract_sql

TIMEOUT_S = 60.0
SHOWN_CHARS = 100  # of an answer that differs


@dataclass(frozen=True)
class Comparison:
    """One gold query: its answer here, its published answer (canonical JSON), and the tables it reads."""

    id: str
    tables: frozenset[str]
    here: str
    published: str

    @property
    def equal(self) -> bool:
        return self.here == self.published


def compare_answers(db: Path, labels: Path, answers: Path) -> list[Comparison]:
    """Execute the gold queries of ``labels`` (label.json) and compare with ``answers`` (answer.json).

    Unanswerable questions, which have no query, are left out. Raises ``InputError`` where a file is missing, has
    another shape or does not fit the other.
    """
    published = _published(answers)
    gold = {id: sql for id, sql in read_labels(labels).items() if sql != ABSTAIN}
    if lacking := gold.keys() - published.keys():
        raise InputError(f"{answers} lacks {len(lacking)} of the answers to {labels}; give those of the same split")
    if not gold:
        raise InputError(f"{labels} has no gold query; nothing can be compared")
    with closing(open_database(db)) as database:
        names = set(table_names(database))
    results = execute_all(db, gold.values(), TIMEOUT_S)
    here = {sql: result.answer or f"{result.status}: {result.error}" for sql, result in results.items()}
    return [Comparison(id, _words(sql) & names, here[sql], published[id]) for id, sql in gold.items()]


def print_comparisons(console: Console, splits: dict[str, list[Comparison]]) -> None:
    """Print the match rate of each split, in all and by table, and each query that differs."""
    tables = sorted({table for comparisons in splits.values() for one in comparisons for table in one.tables})
    report = Table("", *splits, title="Gold answers equal to the published ones")
    report.add_row("all", *(_rate(comparisons) for comparisons in splits.values()))
    for table in tables:
        report.add_row(table, *(_rate([one for one in c if table in one.tables]) for c in splits.values()))
    console.print(report)
    for split, comparisons in splits.items():
        for one in comparisons:
            if not one.equal:
                here, there = (text[:SHOWN_CHARS] for text in (one.here, one.published))
                console.print(f"{split} {one.id} ({', '.join(sorted(one.tables))}): {here}, published {there}")


def _published(path: Path) -> dict[str, str]:
    """Question id -> canonical answer, from the Python lists of rows that EHRSQL-2024 publishes as text."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected {{id: answer}}; is it an answer.json of EHRSQL-2024?")
    answers = {}
    for id, text in content.items():
        try:
            answers[id] = ABSTAIN if extract_sql(text).abstained else canonical_answer(ast.literal_eval(text))
        except (ValueError, TypeError, SyntaxError) as error:
            raise InputError(f"{path}: the answer to {id} is no list of rows; fetch the file again") from error
    return answers


def _words(sql: str) -> frozenset[str]:
    """What stands after FROM or JOIN: tables, and words in quoted values."""
    return frozenset(name.lower() for name in re.findall(r"\b(?:from|join)\s+(\w+)", sql, re.IGNORECASE))


def _rate(comparisons: list[Comparison]) -> str:
    equal = sum(one.equal for one in comparisons)
    return f"{equal / len(comparisons):.1%} of {len(comparisons):,}" if comparisons else ""
