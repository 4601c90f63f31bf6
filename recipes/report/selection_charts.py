"""Charts of selective prediction: risk over coverage, and how often answers are right that are said to be."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from recipes.evaluation.calibration import Bin
from recipes.evaluation.selective import RiskCoverage


def draw_risk_coverage(
    curve: RiskCoverage,
    band: tuple[np.ndarray, np.ndarray],
    chosen: tuple[float, float | None],
    path: Path,
) -> None:
    """Write a PNG: the curve, the ``band`` around its risk, and coverage and risk of the ``chosen`` threshold.

    All are in [0, 1].
    """
    with _chart(path, "coverage: questions answered, %", "risk: wrong ones among these, %") as axes:
        low, high = band
        axes.fill_between(100 * curve.coverage, 100 * low, 100 * high, alpha=0.2, linewidth=0, label="95 % intervals")
        axes.plot(100 * curve.coverage, 100 * curve.risk, label="by threshold")
        coverage, risk = chosen
        if risk is not None:
            axes.plot(100 * coverage, 100 * risk, "o", color="tab:red", label="threshold chosen on validation")
        axes.set(xlim=(0, 100), ylim=(0, None))


def draw_calibration(bins: Sequence[Bin], path: Path) -> None:
    """Write a PNG: the reliability diagram, points as large as their bins have answers."""
    most = max((each.answers for each in bins), default=1)
    with _chart(path, "probability of being right, %", "answers that are right, %") as axes:
        axes.plot([0, 100], [0, 100], color="tab:gray", linewidth=1, label="perfect calibration")
        axes.scatter(
            [100 * each.probability for each in bins],
            [100 * each.accuracy for each in bins],
            [10 + 190 * each.answers / most for each in bins],
            label="answers",
        )
        axes.set(xlim=(0, 100), ylim=(0, 100))


@contextmanager
def _chart(path: Path, x: str, y: str) -> Iterator:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4), layout="constrained")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    yield axes
    axes.legend()
    figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)
