"""Where a query differs from the gold query: the marks of the comparison page."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.tasks.ehrsql.sql_diff import sql_edits

TOKEN = re.compile(r"'[^']*'?|\w+|\S")
WORDS = st.sampled_from(["SELECT", "a", "b", "'a b'", "'A'", "(", ")", ",", "1", "=", "\U0001f48a"])
TEXTS = st.lists(WORDS, max_size=12).map(" ".join)


@pytest.mark.parametrize(
    ("gold", "predicted", "edits"),
    [
        ("SELECT max(age) FROM a", "SELECT min(age) FROM a", [(7, 10, "max")]),
        ("SELECT a FROM b", "select  a\nfrom b", []),
        ("SELECT a FROM b LIMIT 1", "SELECT a FROM b", [(15, 15, "LIMIT 1")]),
        ("SELECT a FROM b", "SELECT a FROM b LIMIT 1", [(16, 23, "")]),
        ("SELECT a FROM b WHERE c = 'x y'", "SELECT a FROM b WHERE c = 'X y'", [(26, 31, "'x y'")]),
        ("a WHERE b >= 2 AND c", "a WHERE b = 2.5 AND c", [(10, 15, ">= 2")]),
        ("a AND b = 'x' AND c", "a AND b = 'x AND c", [(10, 18, "'x' AND c")]),
        ("", "SELECT 1", [(0, 8, "")]),
        ("SELECT 1", "", [(0, 0, "SELECT 1")]),
    ],
)
def test_edits_by_hand(gold, predicted, edits):
    assert sql_edits(gold, predicted) == edits


def with_edits_made(predicted, edits):
    pieces, end = [], 0
    for start, next_end, missing in edits:
        pieces += [predicted[end:start], missing]
        end = next_end
    return " ".join([*pieces, predicted[end:]])


@given(TEXTS, TEXTS)
def test_edits_turn_the_prediction_into_gold(gold, predicted):
    edits = sql_edits(gold, predicted)
    assert TOKEN.findall(with_edits_made(predicted, edits)) == TOKEN.findall(gold)
    assert (edits == []) == (TOKEN.findall(gold) == TOKEN.findall(predicted))


@given(st.text(), st.text())
def test_edits_of_any_text_are_in_order_and_within_it(gold, predicted):
    places = [place for start, end, _ in sql_edits(gold, predicted) for place in (start, end)]
    assert places == sorted(places)
    assert all(0 <= place <= len(predicted) for place in places)
