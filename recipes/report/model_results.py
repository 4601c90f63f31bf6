"""The figures of an evaluation for a model card: numbers alone, none of the questions and answers."""

import re
from pathlib import Path
from statistics import fmean
from typing import Any

from huggingface_hub import EvalResult

from recipes.evaluation.bootstrap import bootstrap_interval
from recipes.evaluation.results import Run
from recipes.report.training_history import describe_data
from recipes.tasks.registry import TASKS

SETTINGS = ("max_response_length", "temperature", "dtype", "num_samples", "seed")  # of evaluate


def model_results(run: Run) -> dict[str, Any]:
    """``recipe``, ``dataset`` (a file name), ``synthetic``, ``settings`` and ``figures``.

    ``figures`` are those that runs of the recipe are compared by, with the number of ``questions``, ``value`` and its
    bootstrap interval ``low``, ``high``.
    """
    figures = {}
    for name, figure in TASKS[run.recipe].evaluation.FIGURES.items():
        if values := [*map(figure.value, filter(figure.belongs, run.samples))]:
            low, high = bootstrap_interval(values, run.config.get("seed") or 0)
            figures[name] = {"questions": len(values), "value": fmean(values), "low": low, "high": high}
    data = describe_data(Path(run.config["dataset_path"]))
    return {
        "recipe": run.recipe,
        "dataset": data.file,
        "synthetic": data.synthetic,
        "settings": {name: run.config.get(name) for name in SETTINGS},
        "figures": figures,
    }


def results_markdown(results: dict[str, Any]) -> str:
    """The section of a card."""
    settings = ", ".join(f"{name} {value}" for name, value in results["settings"].items() if value is not None)
    lines = [
        f"On `{results['dataset']}` ({data_kind(results['synthetic'])}), in percent unless named otherwise; evaluated "
        f"with {settings}.",
        "",
        "| | value | 95 % interval | questions |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, figure in results["figures"].items():
        interval = f"{figure['low']:.1f} to {figure['high']:.1f}"
        lines.append(f"| {name} | {figure['value']:.1f} | {interval} | {figure['questions']:,} |")
    return "\n".join(lines)


def evaluation_results(results: dict[str, Any]) -> list[EvalResult]:
    """The same for the model index, which leaderboards read."""
    title = TASKS[results["recipe"]].evaluation.TITLE
    return [
        EvalResult(
            task_type="text-generation",
            task_name=title,
            dataset_type=results["recipe"],
            dataset_name=f"{title}, {results['dataset']} ({data_kind(results['synthetic'])})",
            metric_type=re.sub(r"\W+", "_", name.lower()).strip("_"),
            metric_name=name,
            metric_value=round(figure["value"], 2),
        )
        for name, figure in results["figures"].items()
    ]


def data_kind(synthetic: bool | None) -> str:
    """In words."""
    return {True: "synthetic demo", False: "not the synthetic demo", None: "origin not recorded"}[synthetic]
