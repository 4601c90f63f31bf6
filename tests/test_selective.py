"""The estimators of selective prediction against what enumeration gives."""

import math
from fractions import Fraction
from itertools import permutations
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.evaluation.bootstrap import percentile_interval, resamples
from recipes.evaluation.calibration import BINS, calibration_bins, expected_calibration_error
from recipes.evaluation.selective import (
    Predictions,
    aurc,
    aurc_interval,
    best_threshold,
    coverage_and_risk,
    coverage_at_risk,
    high_confidence_accuracy,
    reliabilities,
    risk_band,
    risk_coverage,
)
from reward_fns.sql.reliability import Verdict, reliability_score

# Few values, so that many are equal. An abstention is right where the question has no answer, an answer only where it
# has one.
QUESTION = st.tuples(
    st.sampled_from([-math.inf, -1.5, 0.0, 0.25, 7.0]),
    st.sampled_from(["right", "wrong", "answered unanswerable", "abstained rightly", "abstained wrongly"]),
)
QUESTIONS = st.lists(QUESTION, min_size=1, max_size=7)
THRESHOLDS = st.sampled_from([-math.inf, -1.5, -1.0, 0.25, 7.0, math.inf])


def predictions(questions) -> Predictions:
    kinds = [kind for _, kind in questions]
    return Predictions(
        confidence=np.array([confidence for confidence, _ in questions]),
        right=np.array([kind in ("right", "abstained rightly") for kind in kinds]),
        abstained=np.array([kind.startswith("abstained") for kind in kinds]),
        answerable=np.array([kind in ("right", "wrong", "abstained wrongly") for kind in kinds]),
    )


def answered(questions, threshold):
    return [kind for confidence, kind in questions if not kind.startswith("abstained") and confidence >= threshold]


def risk(questions, threshold):
    kinds = answered(questions, threshold)
    return Fraction(sum(kind != "right" for kind in kinds), len(kinds))


def thresholds(questions):
    return sorted({confidence for confidence, kind in questions if not kind.startswith("abstained")}, reverse=True)


@given(QUESTIONS)
def test_the_curve_has_a_point_for_each_threshold(questions):
    curve = risk_coverage(predictions(questions))
    assert curve.thresholds.tolist() == thresholds(questions)
    assert curve.coverage.tolist() == [len(answered(questions, t)) / len(questions) for t in thresholds(questions)]
    assert curve.risk.tolist() == pytest.approx([float(risk(questions, t)) for t in thresholds(questions)])


@given(QUESTIONS, THRESHOLDS)
def test_coverage_and_risk_at_a_threshold(questions, threshold):
    coverage, wrong = coverage_and_risk(predictions(questions), threshold)
    assert coverage == len(answered(questions, threshold)) / len(questions)
    assert wrong == (pytest.approx(float(risk(questions, threshold))) if coverage else None)


@given(QUESTIONS)
def test_aurc_is_the_mean_risk_at_the_answers_own_confidences(questions):
    own = [risk(questions, confidence) for confidence, kind in questions if not kind.startswith("abstained")]
    assert aurc(predictions(questions)) == (pytest.approx(float(sum(own) / len(own))) if own else None)


def test_aurc_by_hand():
    # Risks at the four answers: 0, 1/2, 1/2 (equal confidences count together), 2/4.
    by_hand = [(3.0, "right"), (2.0, "wrong"), (1.0, "right"), (1.0, "wrong"), (9.0, "abstained wrongly")]
    assert aurc(predictions(by_hand)) == pytest.approx(fmean([0, 1 / 2, 2 / 4, 2 / 4]))


@settings(max_examples=5, deadline=None)
@given(QUESTIONS, st.integers(0, 3))
def test_the_interval_of_aurc_is_that_of_a_slow_loop_over_the_same_resamples(questions, seed):
    whole = predictions(questions)
    areas = []
    for block in resamples(len(questions), seed):
        for index in block:
            drawn = Predictions(*(getattr(whole, name)[index] for name in Predictions.__dataclass_fields__))
            areas.append(aurc(drawn))
    areas = [area for area in areas if area is not None]
    expected = pytest.approx(percentile_interval(np.array(areas))) if areas else None
    assert aurc_interval(whole, seed) == expected


@settings(max_examples=5, deadline=None)
@given(QUESTIONS, st.integers(0, 3))
def test_the_band_is_the_interval_of_the_risk_at_each_threshold(questions, seed):
    risks = {threshold: [] for threshold in thresholds(questions)}
    for block in resamples(len(questions), seed):
        for index in block:
            drawn = [questions[place] for place in index]
            for threshold in risks:
                if answered(drawn, threshold):
                    risks[threshold].append(float(risk(drawn, threshold)))
    low, high = risk_band(predictions(questions), seed)
    expected = [percentile_interval(np.array(values)) for values in risks.values()]
    assert list(zip(low, high, strict=True)) == [pytest.approx(ends, abs=1e-6) for ends in expected]


@given(QUESTIONS, st.sampled_from([0, 0.05, 0.1, 1 / 3, 0.5, 1]))
def test_coverage_at_a_risk_is_the_largest_of_all_thresholds(questions, limit):
    enough = [len(answered(questions, t)) for t in thresholds(questions) if float(risk(questions, t)) <= limit]
    assert coverage_at_risk(risk_coverage(predictions(questions)), limit) == max(enough, default=0) / len(questions)


def verdicts(questions, threshold) -> list[Verdict]:
    """The questions with the answers below the threshold turned into abstentions."""
    return [
        Verdict(float(kind == "right"), False)
        if not kind.startswith("abstained") and confidence >= threshold
        else Verdict(float(kind in ("answered unanswerable", "abstained rightly")), True)
        for confidence, kind in questions
    ]


@given(QUESTIONS, THRESHOLDS, st.sampled_from([0, 5, 10, 100]))
def test_the_reliability_is_the_official_one_of_answers_turned_into_abstentions(questions, threshold, penalty):
    earned = reliabilities(predictions(questions), threshold, penalty)
    assert earned.mean() == pytest.approx(reliability_score(verdicts(questions, threshold), penalty))


@given(QUESTIONS, st.sampled_from([0, 1, 10]))
def test_the_best_threshold_is_the_highest_of_the_best(questions, penalty):
    scores = {t: reliability_score(verdicts(questions, t), penalty) for t in (math.inf, *thresholds(questions))}
    best = [t for t, score in scores.items() if score == pytest.approx(max(scores.values()))]
    assert best_threshold(predictions(questions), penalty) == max(best)


@settings(deadline=None)
@given(st.lists(QUESTION, min_size=1, max_size=6), st.sampled_from([0.1, 0.5, 0.9]))
def test_accuracy_of_the_most_certain_is_the_mean_over_all_their_orders(questions, share):
    number = max(1, round(share * len(questions)))
    accuracies = [
        fmean(kind in ("right", "abstained rightly") for _, kind in order[:number])
        for order in permutations(questions)
        if all(before[0] >= after[0] for before, after in zip(order, order[1:], strict=False))
    ]
    assert high_confidence_accuracy(predictions(questions), share) == pytest.approx(fmean(accuracies))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30))
def test_the_calibration_error_by_hand(answers):
    error = 0.0
    for number in range(BINS):
        inside = [(p, right) for p, right in answers if min(int(p * BINS), BINS - 1) == number]
        if inside:
            said, found = fmean(p for p, _ in inside), fmean(right for _, right in inside)
            error += len(inside) / len(answers) * abs(said - found)
    probability, right = (np.array(column) for column in zip(*answers, strict=True))
    bins = calibration_bins(probability, right)
    assert sum(each.answers for each in bins) == len(answers)
    assert expected_calibration_error(bins) == pytest.approx(error)


def test_without_answers_there_is_no_calibration_error():
    assert expected_calibration_error(calibration_bins(np.array([]), np.array([], dtype=bool))) is None
