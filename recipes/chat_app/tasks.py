"""What a chat is about: the prompts of each recipe's training, and what is made of an answer."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from data_prep.common.errors import InputError
from data_prep.ecg.prompts import ChatBuilder
from data_prep.sql.prompts import PromptBuilder
from data_prep.sql.schema import open_database
from recipes.chat_app.text import Piece, printable
from reward_fns.sql.sandbox import DatabaseError, Execution, SandboxError, shared_sandbox
from reward_fns.sql.text import extract_sql

SHOWN_ROWS = 20
SHOWN_COLUMNS = 10
SHOWN_CELL = 60  # characters

Turn = tuple[str, str]  # question, answer


class Task(Protocol):
    """``dialogue``: whether an answer depends on the turns before it."""

    dialogue: bool

    def messages(self, turns: list[Turn], question: str) -> list[dict[str, str]]:
        """The chat messages of training that end in ``question``."""

    def answer(self, text: str) -> str:
        """The answer in a model's raw text, empty where there is none."""

    def conclude(self, text: str, shown: str) -> Iterator[Piece]:
        """What to show after a model's raw text is complete; ``shown`` of it was shown as its answer already."""


class EcgTask:
    """ECG questions and answers: a dialogue. With ``think`` the system prompt allows reasoning."""

    dialogue = True

    def __init__(self, think: bool):
        from reward_fns.ecg import extract_answer  # takes seconds to import

        self._builder = ChatBuilder(think)
        self._extract = extract_answer

    def messages(self, turns: list[Turn], question: str) -> list[dict[str, str]]:
        questions = [*(asked for asked, _ in turns), question]
        return self._builder.messages((), questions, [answer for _, answer in turns])

    def answer(self, text: str) -> str:
        return self._extract(text)[0]

    def conclude(self, text: str, shown: str) -> Iterator[Piece]:
        answer = self.answer(text)
        if not answer:
            yield Piece("error", "no answer in the text")
        elif printable(answer) != shown:
            yield Piece("answer", answer)


class EhrsqlTask:
    """Questions to a database: each stands alone, as in training. The sandbox executes the query of an answer.

    Raises:
        InputError: there is no such prompt, or the database is missing or unreadable.
    """

    dialogue = False

    def __init__(self, prompt: str, db_path: Path):
        if prompt == "few_shot":
            raise InputError("the few_shot prompt takes its examples from train; choose another --prompt for a chat")
        self._builder = PromptBuilder(prompt, db_path)
        self._db_path = db_path
        open_database(db_path).close()

    def messages(self, turns: list[Turn], question: str) -> list[dict[str, str]]:
        return self._builder.messages(question)

    def answer(self, text: str) -> str:
        return extract_sql(text).sql or ""

    def conclude(self, text: str, shown: str) -> Iterator[Piece]:
        extraction = extract_sql(text)
        if extraction.abstained:
            yield Piece("note", "The model abstains: it says that the database cannot answer this question.")
        elif extraction.sql is None:
            yield Piece("error", "no query in the text")
        else:
            if printable(extraction.sql) != shown:
                yield Piece("answer", extraction.sql)
            yield self._result(extraction.sql)

    def _result(self, sql: str) -> Piece:
        try:
            return result_piece(shared_sandbox().execute(self._db_path, sql))
        except (DatabaseError, SandboxError) as error:
            return Piece("error", f"cannot execute: {error}")


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
