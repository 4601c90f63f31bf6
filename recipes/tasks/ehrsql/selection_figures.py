"""What withholding uncertain EHRSQL answers comes to, in figures."""

import math
from typing import Any

import numpy as np

from recipes.evaluation.bootstrap import bootstrap_interval
from recipes.evaluation.calibration import Bin, calibration_bins, expected_calibration_error
from recipes.evaluation.selective import (
    Predictions,
    aurc,
    aurc_interval,
    coverage_and_risk,
    coverage_at_risk,
    high_confidence_accuracy,
    reliabilities,
    risk_coverage,
)
from recipes.evaluation.selector import Selector
from reward_fns.sql.reliability import official_penalties

ALL = -math.inf  # the threshold that withholds nothing
RISKS = (5, 10)  # percent


def selection_figures(predictions: Predictions, selector: Selector, penalty: float, seed: int) -> dict[str, Any]:
    """All in percent, None where nothing is answered. ``penalty``: that of the RS by which the selector is chosen.

    ``reliability`` (100 x RS(c), by its name), ``coverage`` and ``risk`` have ``all``, which is without selection, and
    ``selected``; ``reliability`` also has the bootstrap interval ``low``, ``high`` of ``selected``. ``abstaining`` is
    what abstaining always reaches, the same in each RS(c). ``aurc`` has ``value``, ``low`` and ``high``.
    ``coverage_at_risk``: the largest at any threshold, by the risk. ``ece``: that of ``answer_bins``. ``hcacc_90``: see
    ``high_confidence_accuracy``.
    """
    curve = risk_coverage(predictions)
    low, high = aurc_interval(predictions, seed) or (None, None)
    penalties = official_penalties(len(predictions.right))
    if penalty not in penalties.values():
        penalties = {f"RS({penalty:g})": penalty, **penalties}
    return {
        "abstaining": 100 * float((~predictions.answerable).mean()),
        "reliability": {
            name: _reliability(predictions, selector, penalty, seed) for name, penalty in penalties.items()
        },
        **_coverage_and_risk(predictions, selector),
        "aurc": {"value": _percent(aurc(predictions)), "low": _percent(low), "high": _percent(high)},
        "coverage_at_risk": {str(risk): 100 * coverage_at_risk(curve, risk / 100) for risk in RISKS},
        "ece": _percent(expected_calibration_error(answer_bins(predictions, selector))),
        "hcacc_90": 100 * high_confidence_accuracy(predictions),
    }


def valid_figures(predictions: Predictions, selector: Selector, penalty: float) -> dict[str, Any]:
    """Figures on the questions that the threshold was chosen on, so better than elsewhere; names as above.

    ``reliability`` is that of ``penalty``.
    """
    return {
        "questions": len(predictions.right),
        "reliability": {
            "all": 100 * float(reliabilities(predictions, ALL, penalty).mean()),
            "selected": 100 * float(reliabilities(predictions, selector.threshold, penalty).mean()),
        },
        **_coverage_and_risk(predictions, selector),
    }


def answer_bins(predictions: Predictions, selector: Selector) -> list[Bin]:
    """The reliability diagram of the answers with a result.

    Their probabilities are those of ``selector``: of a logistic regression on the validation questions (Platt 1999).
    """
    answers = ~predictions.abstained & (predictions.confidence > ALL)
    probability = [selector.probability(confidence) for confidence in predictions.confidence[answers]]
    return calibration_bins(np.array(probability), predictions.right[answers])


def _reliability(predictions: Predictions, selector: Selector, penalty: float, seed: int) -> dict[str, float]:
    without = reliabilities(predictions, ALL, penalty)
    selected = 100 * reliabilities(predictions, selector.threshold, penalty)
    low, high = bootstrap_interval(selected, seed)
    return {"all": 100 * float(without.mean()), "selected": float(selected.mean()), "low": low, "high": high}


def _coverage_and_risk(predictions: Predictions, selector: Selector) -> dict[str, dict[str, float | None]]:
    thresholds = {"all": ALL, "selected": selector.threshold}
    pairs = {name: coverage_and_risk(predictions, threshold) for name, threshold in thresholds.items()}
    return {
        "coverage": {name: _percent(coverage) for name, (coverage, _) in pairs.items()},
        "risk": {name: _percent(risk) for name, (_, risk) in pairs.items()},
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
