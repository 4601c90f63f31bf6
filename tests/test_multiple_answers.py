"""Figures of several answers to a question against enumeration, and in a summary."""

from dataclasses import replace
from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from recipes.evaluation.multiple_answers import majority, pass_at_k, pass_hat_k
from recipes.tasks.ehrsql.figures import Sample, summarize
from recipes.tasks.ehrsql.further import further_figures, further_table


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_one_and_all_of_k_are_means_over_all_subsets(right, data):
    k = data.draw(st.integers(1, len(right)))
    subsets = list(combinations(right, k))
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(fmean(map(any, subsets)))
    assert pass_hat_k(len(right), sum(right), k) == pytest.approx(fmean(map(all, subsets)))


@pytest.mark.parametrize("k", [0, 4])
@pytest.mark.parametrize("estimate", [pass_at_k, pass_hat_k])
def test_k_is_at_most_the_number_of_answers(estimate, k):
    with pytest.raises(ValueError, match=f"k is {k}; give 1 to 3"):
        estimate(3, 1, k)


@given(st.lists(st.sampled_from(["a", "b", "abstain", "error"]), min_size=1, max_size=8))
def test_the_winner_has_most_votes_and_was_first_among_equals(votes):
    winner = votes[majority(votes, "error")]
    valid = [vote for vote in votes if vote != "error"]
    if not valid:
        assert winner == "error"
        return
    most = max(map(valid.count, valid))
    assert winner == next(vote for vote in valid if valid.count(vote) == most)
    assert majority(votes, "error") == votes.index(winner)


SAMPLE = Sample(
    **{"id": "", "question": "", "template": "", "seen_template": "seen", "answerable": True, "gold_sql": ""},
    **{"ground_truth": "[]", "response": "", "response_tokens": 10, "finish_reason": "stop", "sql": "", "score": 0.0},
    **{"acc": 0.0, "executed": True, "reads_table": True, "abstained": False, "timed_out": False, "format_ok": True},
    error="",
)


def answer(pred, acc):
    return {"response": "", "response_tokens": 3, "acc": acc, "abstained": pred == "abstain", "pred": pred}


def test_the_figures_of_three_questions():
    samples = [
        replace(SAMPLE, further=[answer("a", 0.0), answer("b", 1.0), answer("b", 1.0), answer("error", 0.0)]),
        replace(SAMPLE, further=[answer("error", 0.0)] * 2 + [answer("abstain", 0.0), answer("a", 1.0)]),
        replace(SAMPLE, finish_reason="prompt_too_long"),  # without an answer: all four are wrong
    ]
    figures = summarize(samples)["further"]
    assert figures["answers"] == 4
    assert figures["pass_at_k"] == pytest.approx({"1": 100 * 0.25, "2": 100 * (5 / 6 + 1 / 2) / 3, "4": 200 / 3})
    assert figures["pass_hat_k"] == pytest.approx({"1": 100 * 0.25, "2": 100 * (1 / 6) / 3, "4": 0})
    # b is right, the abstention comes before a, and the third question is wrong.
    assert figures["majority"]["accuracy"] == pytest.approx(100 / 3)
    assert figures["majority"]["reliability"] == pytest.approx(
        {"RS(0)": 100 / 3, "RS(5)": -400 / 3, "RS(10)": -300, "RS(N)": -200 / 3}
    )
    assert figures["tokens"] == {"first": 30, "further": 24}
    console = Console(width=100, record=True)
    console.print(further_table(figures))
    assert "majority of 4: RS(10)" in console.export_text()


def test_without_further_answers_there_are_no_figures():
    assert further_figures([SAMPLE]) == {}
    assert "further" not in summarize([SAMPLE])
