"""The table and the chart of several seeds for RESULTS.md, from the summaries of ``benchmarks.baselines``.

``python -m benchmarks.seeds --seeds 0=outputs/ehrsql_seed_0/baselines 1=outputs/ehrsql_seed_1/baselines --chart F``
prints one row a seed and model, and draws greedy validation over GRPO's steps, one line a seed.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError, run_main
from recipes.evaluation.results import read_text
from recipes.report.curves import TRAINING
from recipes.report.summary import cells
from recipes.summary import parse_runs

MODELS = {
    "start": "SFT on the teacher (start)",
    "sft": "SFT on the teacher (start)",
    "grpo": "GRPO",
    "continued_sft": "SFT continued",
    "rejection_sampling": "rejection-sampling fine-tuning",
}

Summary = dict[str, Any]  # the content of a summary.json


def read_summary(folder: Path) -> Summary:
    """Raises ``InputError`` for anything but a folder of ``recipes.summary``."""
    path = folder / "summary.json"
    try:
        summary = json.loads(read_text(path))
        return {"runs": summary["runs"], "curves": summary["curves"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no summary of recipes.summary; run benchmarks.baselines again") from error


def table(summaries: dict[str, Summary]) -> Iterator[str]:
    """The lines of a Markdown table: all figures of all models of all seeds, and the means of the differences.

    The heading has a figure's number of questions, or the least and the largest where the seeds differ.
    """
    runs = {seed: summary["runs"] for seed, summary in summaries.items()}
    names = list(next(iter(next(iter(runs.values())).values())))
    columns = []
    for name in names:
        numbers = {figures[name]["questions"] for models in runs.values() for figures in models.values()}
        columns.append(f"{name} ({' to '.join(f'{number:,}' for number in sorted({min(numbers), max(numbers)}))})")
    yield f"| seed | model | {' | '.join(columns)} |"
    yield f"| --- | --- |{' ---: |' * len(columns)}"
    for seed, models in runs.items():
        for model, figures in models.items():
            values = (", ".join(filter(None, cells(figures[name]))) for name in names)
            yield f"| {seed} | {MODELS.get(model, model)} | {' | '.join(values)} |"
    for model in dict.fromkeys(model for models in runs.values() for model in models):
        found = [models[model] for models in runs.values() if model in models]
        compared = [figures for figures in found if "difference" in figures[names[0]]]
        if len(compared) > 1:
            means = (_mean([figures[name]["difference"] for figures in compared]) for name in names)
            yield f"| mean of {len(compared)} | {MODELS.get(model, model)} | {' | '.join(means)} |"


def _mean(differences: list[float | None]) -> str:
    """Nothing where a figure is of no question in some seed."""
    return "" if None in differences else f"{fmean(differences):+.1f}"


def draw(summaries: dict[str, Summary], path: Path) -> None:
    """Write a PNG: greedy validation over the steps of GRPO, one line a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for seed, summary in summaries.items():
        curve = next(curve for name, curve in summary["curves"].items() if name != TRAINING)
        axes.plot(
            [int(step) for step in curve], [100 * value for value in curve.values()], marker="o", label=f"seed {seed}"
        )
    axes.set(xlabel="step of GRPO", ylabel="greedy validation, %")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, format="png")
    pyplot.close(figure)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", required=True, metavar="SEED=FOLDER", help="folders of recipes.summary")
    parser.add_argument("--chart", type=Path, required=True, help="PNG file")
    args = parser.parse_args(argv)
    summaries = {seed: read_summary(folder) for seed, folder in parse_runs(args.seeds).items()}
    with atomic_output(args.chart) as partial:
        draw(summaries, partial)
    print("\n".join(table(summaries)))


if __name__ == "__main__":
    run_main(main)
