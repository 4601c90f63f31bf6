"""A chat with a database: questions that stand alone, with the prompts of training. The sandbox executes the SQL."""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path

from data_prep.common.errors import InputError
from data_prep.common.printable import printable
from data_prep.sql.prompts import PromptBuilder
from data_prep.sql.schema import open_database
from recipes.chat_app.tasks import Reply, Turn
from recipes.chat_app.text import Piece
from recipes.evaluation.selector import Selector
from recipes.tasks.ehrsql.confidence import confidence
from recipes.tasks.ehrsql.pipeline import Ehrsql
from reward_fns.sql.sandbox import DatabaseError, Execution, SandboxError, shared_sandbox
from reward_fns.sql.text import extract_sql

SHOWN_ROWS = 20
SHOWN_COLUMNS = 10
SHOWN_CELL = 60  # characters


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--db_path", type=Path, help="ehrsql: the database; default: EHR_DB, or the run's demo")
    parser.add_argument("--prompt", help="ehrsql: as in training; default: by PRESET")


def make_task(args: argparse.Namespace, run: Ehrsql) -> "EhrsqlTask":
    """Raises an ``InputError`` where there is no such prompt, or the database is missing or unreadable."""
    own = Path(run.environ.get("EHR_DB") or args.output_dir / "data" / "mimic_iv.sqlite")
    return EhrsqlTask(args.prompt or run.prompt, args.db_path or own, args.think or run.think)


class EhrsqlTask:
    """Questions to a database: each stands alone, as in training. The sandbox executes the query of an answer.

    With ``think`` the prompt asks for reasoning, if it has words for that.
    What the query returns tells how certain the answer is, too. So an uncertain answer is withheld after it has run.

    Raises:
        InputError: there is no such prompt, or the database is missing or unreadable.
    """

    dialogue = False

    def __init__(self, prompt: str, db_path: Path, think: bool = False):
        self._builder = PromptBuilder(prompt, db_path, think)
        if self._builder.takes_examples:
            raise InputError(f"the prompt {prompt} takes its examples from train; choose another --prompt for a chat")
        self._db_path = db_path
        open_database(db_path).close()

    def messages(self, turns: list[Turn], question: str) -> list[dict[str, str]]:
        return self._builder.messages(question)

    def answer(self, text: str) -> str:
        return extract_sql(text).sql or ""

    def conclude(self, reply: Reply) -> Iterator[Piece]:
        extraction = extract_sql(reply.text)
        if extraction.abstained:
            yield Piece("note", "The model abstains: it says that the database cannot answer this question.")
        elif extraction.sql is None:
            yield Piece("error", "no query in the text")
        else:
            shown = extract_sql(reply.shown)
            if printable(extraction.sql) != (shown.sql if shown.format_ok else reply.shown):
                yield Piece("answer", extraction.sql)
            yield self._result(extraction.sql, reply)

    def _result(self, sql: str, reply: Reply) -> Piece:
        try:
            execution = shared_sandbox().execute(self._db_path, sql)
        except (DatabaseError, SandboxError) as error:
            return Piece("error", f"cannot execute: {error}")
        if reply.selector and execution.answer is not None:
            certain = reply.selector.confidence(confidence(reply.confidence, False, execution))
            if certain < reply.selector.threshold:
                return withheld_piece(reply.selector, certain)
        return result_piece(execution)


def withheld_piece(selector: Selector, confidence: float) -> Piece:
    """In the place of a result that the model is not certain enough of."""
    certain = f"{selector.name} is {confidence:.3g}, below the threshold {selector.threshold:.3g}"
    probability = f"such a query is right with a probability of about {selector.probability(confidence):.0%}"
    return Piece("note", f"I would rather not answer: {certain}; {probability}.")


def result_piece(execution: Execution) -> Piece:
    """A table of the first rows and columns of a result, or an error that says why there is none.

    Rows are sorted and numbers rounded to three decimals, as the grader compares them; it knows no column names.
    """
    if execution.answer is None:
        return Piece("error", f"the query gives no result ({execution.status.replace('_', ' ')}): {execution.error}")
    rows = json.loads(execution.answer)[:SHOWN_ROWS]
    heading = f"{execution.rows:,} {'row' if execution.rows == 1 else 'rows'}"
    if execution.rows > len(rows):
        heading += f", the first {len(rows)} in the grader's order"
    if rows and len(rows[0]) > SHOWN_COLUMNS:
        heading += f", {SHOWN_COLUMNS} of {len(rows[0])} columns"
    if not execution.reads_table:
        heading += " (a constant: the query reads no table)"
    return Piece("table", heading, tuple(tuple(map(_cell, row[:SHOWN_COLUMNS])) for row in rows))


def _cell(text: str) -> str:
    """One line of a cell: ``7`` for 7.0, which the grader does not tell from 7."""
    if re.fullmatch(r"-?\d+\.0", text):
        return text.removesuffix(".0")
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CELL else text[: SHOWN_CELL - 1] + "…"
