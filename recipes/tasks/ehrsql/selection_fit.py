"""Chooses by which score, or scores, and from which threshold on a model's answers are shown."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from recipes.evaluation.bootstrap import paired_bootstrap
from recipes.evaluation.selective import Predictions, best_threshold, reliabilities
from recipes.evaluation.selector import Selector
from recipes.tasks.ehrsql.figures import Sample

FOLDS = 5


def predictions(samples: Sequence[Sample], selector: Selector) -> Predictions:
    """What ``samples`` say, with the confidences of ``selector``: minus infinity for an answer without a result."""
    return Predictions(
        confidence=np.array([confidence_of(sample, selector) for sample in samples]),
        right=np.array([sample.acc > 0 for sample in samples], dtype=bool),
        abstained=np.array([sample.abstained for sample in samples], dtype=bool),
        answerable=np.array([sample.answerable for sample in samples], dtype=bool),
    )


def confidence_of(sample: Sample, selector: Selector) -> float:
    """That of ``selector``, minus infinity for an answer without a result: no score speaks for such an answer."""
    return selector.confidence(sample.confidence) if sample.executed or sample.abstained else -math.inf


def score_names(samples: Sequence[Sample]) -> list[str]:
    """The scores that every abstention and every answer with a result has."""
    useful = [sample.confidence for sample in samples if sample.abstained or sample.executed]
    first, *others = useful or [sample.confidence for sample in samples]
    return [name for name in first if all(name in other for other in others)]


def choose(
    samples: Sequence[Sample], names: Sequence[str], penalty: float, seed: int
) -> tuple[Selector, dict[str, Any]]:
    """The selector with the highest RS(``penalty``) on ``samples``, and what was compared.

    It is one of the scores ``names``, or a logistic regression on all of them: where the cross-validated RS of the
    latter is higher, with a paired 95 % interval above 0. For each fold, scores and thresholds are chosen on the other
    folds. What was compared, times 100: in ``scores`` the RS of each score at its best threshold, in ``combination``
    that difference.
    """
    scores = {name: 100 * _earned(samples, fit(samples, [name], penalty), penalty).mean() for name in names}
    single = _cross_validated(samples, lambda part: best_single(part, names, penalty), penalty, seed)
    combined = _cross_validated(samples, lambda part: fit(part, names, penalty), penalty, seed)
    difference, low, high = paired_bootstrap(100 * single, 100 * combined, seed)
    selector = fit(samples, names, penalty) if low > 0 else best_single(samples, names, penalty)
    return selector, {"scores": scores, "combination": {"difference": difference, "low": low, "high": high}}


def best_single(samples: Sequence[Sample], names: Sequence[str], penalty: float) -> Selector:
    """The score with the highest RS(``penalty``) at its best threshold, the first of several."""
    selectors = [fit(samples, [name], penalty) for name in names]
    return max(selectors, key=lambda selector: _earned(samples, selector, penalty).sum())


def fit(samples: Sequence[Sample], names: Sequence[str], penalty: float) -> Selector:
    """A selector by the scores ``names``, with the threshold of the highest RS(``penalty``).

    A single score is its own confidence; of several, the confidence is the log-odds of being right, up to a constant.
    """
    answers = [sample for sample in samples if sample.executed]
    features = np.array([[sample.confidence[name] for name in names] for sample in answers]).reshape(-1, len(names))
    slopes, offset = _logistic(features, np.array([sample.acc > 0 for sample in answers], dtype=bool))
    if len(names) == 1:
        selector = Selector({names[0]: 1.0}, -math.inf, float(slopes[0]), offset)
    else:
        selector = Selector(dict(zip(names, slopes.tolist(), strict=True)), -math.inf, 1.0, offset)
    return replace(selector, threshold=best_threshold(predictions(samples, selector), penalty))


def _logistic(features: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
    """Slopes and offset of the log-odds of being right; ``features`` are (answers, scores), ``right`` (answers,)."""
    if len(set(right.tolist())) < 2:  # nothing to tell apart: the odds of all answers, with one more of each kind
        return np.zeros(features.shape[1]), math.log((right.sum() + 1) / ((~right).sum() + 1))
    from sklearn.linear_model import LogisticRegression  # takes seconds to import
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    model = LogisticRegression().fit(scaler.transform(features), right)
    slopes = model.coef_[0] / scaler.scale_
    return slopes, float(model.intercept_[0] - slopes @ scaler.mean_)


def _earned(samples: Sequence[Sample], selector: Selector, penalty: float) -> np.ndarray:
    return reliabilities(predictions(samples, selector), selector.threshold, penalty)


def _cross_validated(
    samples: Sequence[Sample], choose_on: Callable[[Sequence[Sample]], Selector], penalty: float, seed: int
) -> np.ndarray:
    """What each question adds to RS(``penalty``) under what ``choose_on`` chooses on the other folds' questions."""
    fold = np.random.default_rng(seed).permutation(len(samples)) % FOLDS
    earned = np.empty(len(samples))
    for each in range(FOLDS):
        chosen = choose_on([sample for sample, of in zip(samples, fold, strict=True) if of != each])
        rest = [sample for sample, of in zip(samples, fold, strict=True) if of == each]
        earned[fold == each] = _earned(rest, chosen, penalty)
    return earned
