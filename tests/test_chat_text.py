"""What a model writes must reach a terminal and a page as plain text, and split into reasoning and answer."""

import io
import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from data_prep.common.printable import printable
from recipes.chat import Screen
from recipes.chat_app.tasks import Reply
from recipes.chat_app.text import Piece, TagReader
from recipes.tasks.ecg.chat import EcgTask
from recipes.tasks.ehrsql.chat import SHOWN_COLUMNS, SHOWN_ROWS, result_piece
from reward_fns.sql.answers import canonical_answer
from reward_fns.sql.sandbox import Execution

STEERING = st.sampled_from("\x00\x07\x08\r\x0b\x1b\x7f\x9b\u200f\u202e\u2066\u2028\ufeff\ud800")
HOSTILE_TEXT = st.text(st.characters() | STEERING | st.sampled_from("[]<>&\\/"))
TAGGED = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</ANSWER>", "<", "</", ">", "<a", "thin", "k>", "x ", "\x1b"])
).map("".join)


@given(HOSTILE_TEXT)
def test_no_character_that_steers_is_left(text):
    shown = printable(text)
    assert all(char in "\n\t" or unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for char in shown)
    assert printable(shown) == shown


@given(HOSTILE_TEXT, HOSTILE_TEXT)
def test_chunks_are_made_printable_as_the_whole(first, second):
    assert printable(first) + printable(second) == printable(first + second)


def test_ordinary_text_is_left_alone():
    text = "ST-Hebung in V2–V4 ≥ 2 mm,\n\tQTc 460 ms, 心电图 🫀"
    assert printable(text) == text


@given(HOSTILE_TEXT, st.sampled_from(["question", "text", "answer", "note", "table"]))
def test_the_terminal_gets_text_and_no_escape(text, kind):
    text = text.replace("\t", " ")  # rich expands them
    output = io.StringIO()
    console = Console(file=output, width=20, force_terminal=True, color_system=None, markup=False)
    Screen(console).show(Piece(kind, text, ((text, "[red]x[/red]"),) if kind == "table" else ()))
    assert "\x1b" not in output.getvalue()
    assert output.getvalue().startswith(printable(text))


@given(TAGGED, st.lists(st.integers(min_value=1, max_value=4)))
def test_chunks_are_split_as_the_whole(text, lengths):
    whole, parts = TagReader(), TagReader()
    cuts = [*itertools.accumulate(lengths), len(text)]
    chunks = [text[start:end] for start, end in itertools.pairwise([0, *cuts])]
    letters = [
        [(piece.kind, char) for piece in pieces for char in piece.text]
        for pieces in (
            whole.feed(text) + whole.end(),
            [piece for chunk in chunks for piece in parts.feed(chunk)] + parts.end(),
        )
    ]
    assert letters[0] == letters[1]
    assert whole.plain == parts.plain == "".join(char for kind, char in letters[0] if kind == "text")


@pytest.mark.parametrize(
    ("text", "shown", "also"),
    [
        ("Sinus rhythm.", "Sinus rhythm.", []),
        ("<think>fast</think><answer>Tachycardia.</answer>", "Tachycardia.", []),
        ("fast</think>Tachycardia.", "fastTachycardia.", [("answer", "Tachycardia.")]),
        ("It is <answer>a</answer> or <answer>b</answer>", "It is ab", [("answer", "b")]),
        ("<think>fast and", "", [("error", "no answer in the text")]),
        ("<answer>Tachy", "Tachy", [("error", "no answer in the text")]),
        ("a < b", "a < b", []),
    ],
)
def test_the_answer_alone_is_shown_as_such(text, shown, also):
    reader = TagReader()
    reader.feed(text)
    reader.end()
    assert reader.plain.strip() == shown
    assert [(piece.kind, piece.text) for piece in EcgTask(think=True).conclude(Reply(text, shown))] == also


def test_a_large_result_is_bounded():
    answer = canonical_answer([(f"{row:03}", "x" * 1000, 3, *range(50)) for row in range(500)])
    piece = result_piece(Execution("ok", answer, reads_table=True, rows=500))
    assert piece.kind == "table"
    assert (len(piece.rows), len(piece.rows[0])) == (SHOWN_ROWS, SHOWN_COLUMNS)
    assert piece.text == f"500 rows, the first {SHOWN_ROWS} in the grader's order, {SHOWN_COLUMNS} of 53 columns"
    assert max(len(cell) for row in piece.rows for cell in row) <= 60
    assert piece.rows[1][2] == "3"


@pytest.mark.parametrize(
    ("execution", "kind", "said"),
    [
        (Execution("ok", "[]", reads_table=True), "table", "0 rows"),
        (Execution("ok", '[["1.0"]]', rows=1), "table", "1 row (a constant: the query reads no table)"),
        (Execution("timeout", error="over the deadline"), "error", "(timeout): over the deadline"),
        (Execution("too_large", error="over 5 rows"), "error", "(too large): over 5 rows"),
    ],
)
def test_every_outcome_is_said(execution, kind, said):
    piece = result_piece(execution)
    assert piece.kind == kind
    assert said in piece.text
