"""Selective prediction: what a model reaches that answers only where it is certain enough, and else abstains.

A threshold lets all answers of at least its confidence pass: answers of equal confidence pass together or not at all.
Coverage is the share of all questions that are answered then, risk the share of wrong answers among those. Abstentions
of the model itself are no answers, whatever the threshold.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from recipes.evaluation.bootstrap import percentile_interval, resamples


@dataclass(frozen=True)
class Predictions:
    """What a model says to n questions; each field has the shape (n,).

    ``confidence``: a number, or minus infinity for an answer that can be of no use. ``right``: the answer is right, or
    the abstention is. ``abstained``: the model itself abstains. ``answerable``: abstaining is not right.
    """

    confidence: np.ndarray
    right: np.ndarray
    abstained: np.ndarray
    answerable: np.ndarray

    def answered(self, threshold: float) -> np.ndarray:
        """Whether a question is answered at ``threshold``, shape (n,)."""
        return ~self.abstained & (self.confidence >= threshold)


@dataclass(frozen=True)
class RiskCoverage:
    """A curve of one point for each distinct confidence of an answer, from the highest; each field has one shape.

    ``coverage`` and ``risk`` are in [0, 1].
    """

    thresholds: np.ndarray
    coverage: np.ndarray
    risk: np.ndarray


def risk_coverage(predictions: Predictions) -> RiskCoverage:
    """The risk-coverage curve (El-Yaniv and Wiener 2010); without a point where nothing is answered."""
    answered = ~predictions.abstained
    falling, group = np.unique(-predictions.confidence[answered], return_inverse=True)
    answers = np.bincount(group, minlength=len(falling)).cumsum()
    wrong = np.bincount(group, ~predictions.right[answered], minlength=len(falling)).cumsum()
    return RiskCoverage(-falling, answers / len(answered), wrong / answers)


def coverage_and_risk(predictions: Predictions, threshold: float) -> tuple[float, float | None]:
    """Both in [0, 1]; there is no risk where nothing is answered."""
    answered = predictions.answered(threshold)
    return float(answered.mean()), float(1 - predictions.right[answered].mean()) if answered.any() else None


def aurc(predictions: Predictions) -> float | None:
    """The area under the risk-coverage curve, in [0, 1]: lower is better, None where nothing is answered.

    It is the mean, over the answers, of the risk at an answer's own confidence (Geifman, Uziel and El-Yaniv 2019,
    arXiv 1805.08206). Confidences that say nothing give the risk of answering all.
    """
    curve = risk_coverage(predictions)
    widths = np.diff(curve.coverage, prepend=0.0)
    return float(np.average(curve.risk, weights=widths)) if len(widths) else None


def aurc_interval(predictions: Predictions, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of ``aurc`` over the questions; None where nothing is answered.

    Resamples without an answer have no area and do not count.
    """
    if predictions.abstained.all():
        return None
    areas = []
    for answers, wrong in _resampled_points(predictions, seed):
        some = answers.any(axis=1)
        risk = wrong[some].cumsum(axis=1) / np.maximum(answers[some].cumsum(axis=1), 1)
        areas.append((risk * answers[some]).sum(axis=1) / answers[some].sum(axis=1))
    return percentile_interval(np.concatenate(areas))


def risk_band(predictions: Predictions, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the 95 % bootstrap interval of the risk at each threshold of ``risk_coverage``, in its shape.

    Each interval is of one threshold. It does not hold for all of them at once. Resamples without an answer at a
    threshold have no risk there and do not count.
    """
    if predictions.abstained.all():
        return np.empty(0), np.empty(0)
    risks = []
    for answers, wrong in _resampled_points(predictions, seed):
        answered = answers.cumsum(axis=1)
        risks.append(np.where(answered > 0, wrong.cumsum(axis=1) / np.maximum(answered, 1), np.nan).astype(np.float32))
    ends = [percentile_interval(risk[~np.isnan(risk)]) for risk in np.concatenate(risks).T]
    low, high = np.array(ends).T
    return low, high


def _resampled_points(predictions: Predictions, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The numbers of answers and of wrong answers that each threshold adds, in blocks of (resamples, thresholds)."""
    answered = ~predictions.abstained
    _, group = np.unique(-predictions.confidence[answered], return_inverse=True)
    groups = group.max() + 1
    place = np.full(len(answered), groups)  # of the questions without an answer: a column that is not read
    place[answered] = group
    for index in resamples(len(answered), seed):
        cell = (place[index] + (groups + 1) * np.arange(len(index))[:, None]).ravel()
        size, shape = len(index) * (groups + 1), (len(index), groups + 1)
        answers = np.bincount(cell, minlength=size).reshape(shape)[:, :-1]
        wrong = np.bincount(cell, ~predictions.right[index].ravel(), minlength=size).reshape(shape)[:, :-1]
        yield answers, wrong


def coverage_at_risk(curve: RiskCoverage, risk: float) -> float:
    """The largest coverage that some threshold reaches with at most ``risk``; 0 where none does."""
    return float(curve.coverage[curve.risk <= risk].max(initial=0.0))


def reliabilities(predictions: Predictions, threshold: float, penalty: float) -> np.ndarray:
    """What each question adds to RS(``penalty``) at ``threshold``, shape (n,): RS is the mean.

    See ``reward_fns.sql.reliability``; an answer below the threshold counts as an abstention.
    """
    answered = predictions.answered(threshold)
    right = np.where(answered, predictions.right, ~predictions.answerable)
    return np.where(right, 1.0, np.where(answered, -penalty, 0.0))


def best_threshold(predictions: Predictions, penalty: float) -> float:
    """The threshold with the highest RS(``penalty``), of several the highest one.

    It is the confidence of an answer, or infinity where abstaining always is best.
    """
    candidates = [np.inf, *risk_coverage(predictions).thresholds]
    scores = [reliabilities(predictions, threshold, penalty).sum() for threshold in candidates]
    return float(candidates[int(np.argmax(scores))])


def high_confidence_accuracy(predictions: Predictions, share: float = 0.9) -> float:
    """HCAcc@90: the accuracy, in [0, 1], on the 90 % of the questions with the highest confidence.

    EHR-R1 announced this column and never defined it: this is our definition. Abstentions count as answers, with their
    own confidence. Of questions with equal confidence, some in the 90 % and some not, each counts with the mean of all
    of them. The number of questions is rounded, and at least one.
    """
    _, group = np.unique(-predictions.confidence, return_inverse=True)
    accuracy = np.bincount(group, predictions.right) / np.bincount(group)
    kept = np.sort(group)[: max(1, round(share * len(group)))]
    return float(accuracy[kept].mean())
