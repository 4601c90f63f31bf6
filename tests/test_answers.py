"""Equality of canonical answers is the official scorer's verdict."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from official_scorer import process_answer, process_item

from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, canonical_answer

TEXT = st.text(max_size=4) | st.sampled_from(
    ["1", "1.0", " 1 ", "1_0", "١", "nan", "inf", "-Infinity", "1e999", "None", "0.0004"]
)
CELL = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-2, 2)
    | st.floats()
    | st.sampled_from([0.1235, 0.12349, 1.0, -0.0, 2.0**53])
    | TEXT
    | TEXT.map(lambda text: text.encode())
)
ROWS = st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[CELL] * width), max_size=8))


@given(ROWS, ROWS)
def test_equality_is_the_official_verdict(one, other):
    assert (canonical_answer(one) == canonical_answer(other)) == (process_answer(one) == process_answer(other))


@given(ROWS, st.randoms(use_true_random=False))
def test_row_order_is_ignored_as_officially(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert canonical_answer(rows) == canonical_answer(shuffled)
    assert json.loads(canonical_answer(rows)) == [list(row) for row in sorted(
        [process_item(cell) for cell in row] for row in rows
    )]  # fmt: skip


def test_only_the_first_hundred_sorted_rows_count():
    rows = [(f"{n:04}x",) for n in range(300)]
    assert canonical_answer(reversed(rows)) == canonical_answer(rows[:100] + [("zzz",)])
    assert canonical_answer(rows) != canonical_answer(rows[1:])


def test_a_long_result_is_streamed():
    assert len(json.loads(canonical_answer((n,) for n in range(1_000_000)))) == 100


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (1, "1.0"), ("1", "1.0"), (" 1 ", "1.0"), (2.0004, "2.0"), (2.0006, "2.001"), (None, "None"), ("None", "None"),
        (float("inf"), "inf"), ("1e999", "inf"), ("nan", "nan"), (2**53 + 1, str(float(2**53))), (b"1", "1.0"),
        (b"\xff", "b'\\xff'"), ("icd9|4019", "icd9|4019"), ("", ""),
    ],
)  # fmt: skip
def test_cells(cell, text):
    assert json.loads(canonical_answer([(cell,)])) == [[text]]


def test_columns_and_duplicates_count():
    assert canonical_answer([(1, 2)]) != canonical_answer([(2, 1)])
    assert canonical_answer([(1,), (1,)]) != canonical_answer([(1,)])


@given(ROWS)
def test_an_answer_is_never_taken_for_the_other_ground_truths(rows):
    assert canonical_answer(rows) not in (ABSTAIN, GOLD_FAILED)
    assert canonical_answer(rows).isascii()
