"""Compares evaluations of one recipe's stages, and draws the training curve.

``python -m recipes.summary --runs start=RESULTS grpo=RESULTS --metrics grpo.jsonl --out_dir D`` prints a table of
the runs with paired differences to the first one. It writes ``summary.html`` (all of it, with three test questions),
``summary.md``, ``summary.json`` and ``validation_accuracy.png`` to ``D``. RESULTS is a ``results.json`` of
``evaluate``, of any recipe, or a folder; of the files in a folder the newest is taken.

Where the runs hold wrong answers that a misreading gives, a table of them and ``misreadings.png`` are added; see
``recipes.report.summary_misreadings``.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.common.atomic import atomic_output, check_folder
from data_prep.common.errors import InputError, run_main
from recipes.evaluation.bootstrap import paired_bootstrap
from recipes.evaluation.results import Run, check_same_questions, read_run, read_text
from recipes.report.summary_examples import examples, examples_markdown
from recipes.report.summary_misreadings import (
    TITLE,
    Counts,
    count_misreadings,
    draw_misreadings,
    misreadings_markdown,
    misreadings_rows,
    misreadings_table,
)
from recipes.report.summary_page import render_summary
from recipes.tasks.registry import TASKS

PAGE, CHART, MISREADINGS_CHART = "summary.html", "validation_accuracy.png", "misreadings.png"
TRAINING = "critic/score/mean"  # the mean reward of the training rollouts, as verl names it


def compare(runs: dict[str, Run], seed: int = 0) -> dict[str, dict[str, Any]]:
    """For each run and each of its recipe's ``FIGURES``: ``questions``, ``value`` and a ``difference``.

    ``difference``, which the first run lacks, is to the first run, with the paired bootstrap interval ``low`` and
    ``high``. Figures of no question are None.

    Raises:
        InputError: the runs are not about the same questions.
    """
    check_same_questions(runs)
    first, *_ = runs
    figures = TASKS[runs[first].recipe].evaluation.FIGURES
    return {
        label: {
            name: _figure(belongs, value, run.samples, None if label == first else runs[first].samples, seed)
            for name, (belongs, value) in figures.items()
        }
        for label, run in runs.items()
    }


def _figure(
    belongs: Callable[[Any], bool],
    value: Callable[[Any], float],
    samples: list[Any],
    start: list[Any] | None,
    seed: int,
) -> dict[str, Any]:
    values = [value(sample) for sample in samples if belongs(sample)]
    figure = {"questions": len(values), "value": fmean(values) if values else None}
    if start is not None:
        before = [value(sample) for sample in start if belongs(sample)]
        difference = paired_bootstrap(before, values, seed) if values else (None, None, None)
        figure |= zip(("difference", "low", "high"), difference, strict=True)
    return figure


def read_curves(paths: Sequence[Path], validation: str) -> dict[str, dict[int, float]]:
    """Step -> value of ``validation`` and ``TRAINING``, from the files of verl's file logger.

    ``validation`` is a pattern such as ``val-core/ecg/*/acc/mean@1``: the metrics of a step that match it are averaged.
    verl truncates its file when a run resumes, so a resumed run has one for each start: of a step that stands in
    several, the last file wins. The files of a folder (``*.jsonl``) are read in the order of their names.

    Raises:
        InputError: a file is missing or malformed, or no step was validated.
    """
    curves: dict[str, dict[int, float]] = {validation: {}, TRAINING: {}}
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    for file in files:
        for number, line in enumerate(read_text(file).split("\n")[:-1], 1):  # a kill leaves a last line without its end
            try:
                record = json.loads(line)
                step, metrics = int(record["step"]), record["data"]
                for pattern, curve in curves.items():
                    # verl writes NaN as null
                    found = [v for name, v in metrics.items() if v is not None and fnmatchcase(name, pattern)]
                    if found:
                        curve[step] = fmean(map(float, found))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{file}, line {number}: no record of verl's file logger; remove the file") from error
    if not curves[validation]:
        raise InputError(f"no {validation} in {', '.join(map(str, paths))}; train with trainer.test_freq above 0")
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def draw_curves(curves: dict[str, dict[int, float]], recipe: ModuleType, path: Path) -> None:
    """Write a PNG: greedy validation results over steps, and the training reward as a faint second line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    validation, training = curves[recipe.VALIDATION], curves[TRAINING]
    percents = [100 * value for value in validation.values()]
    lines = axes.plot(list(validation), percents, marker="o", label="validation, greedy")
    axes.set(xlabel="training step", ylabel=recipe.VALIDATION_LABEL, title=f"GRPO on {recipe.TITLE}")
    if training:
        right = axes.twinx()
        style = {"color": "tab:gray", "alpha": 0.4, "linewidth": 1}
        lines += right.plot(list(training), list(training.values()), label="training reward, sampled", **style)
        right.set_ylabel("mean training reward")
    axes.legend(handles=lines, loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)


def cells(figure: dict[str, Any]) -> tuple[str, str]:
    """A figure's value and its difference to the first run, as text."""
    if figure["value"] is None:
        return "", ""
    value = f"{figure['value']:.1f}"
    if "difference" not in figure:
        return value, ""
    return value, f"{figure['difference']:+.1f} [{figure['low']:+.1f}, {figure['high']:+.1f}]"


def print_table(comparison: dict[str, dict[str, Any]], console: Console) -> None:
    """One column a run; under each value the difference to the first run."""
    first, *_ = comparison
    table = Table(
        title="Test results, in percent unless named otherwise",
        caption=f"below: difference to {first}, paired 95 % interval",
    )
    for column in ("", "questions", *comparison):
        table.add_column(column, justify="right" if column else "left")
    for name, figure in comparison[first].items():
        values = ("\n".join(filter(None, cells(run[name]))) for run in comparison.values())
        table.add_row(name, f"{figure['questions']:,}", *values)
    console.print(table)


def rows(comparison: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The table as text, the heading first."""
    first, *_ = comparison
    heading = ["", "questions", *comparison]
    body = [
        [name, f"{figure['questions']:,}", *(" ".join(filter(None, cells(run[name]))) for run in comparison.values())]
        for name, figure in comparison[first].items()
    ]
    return [heading, *body]


def markdown(comparison: dict[str, dict[str, Any]], validation: dict[int, float], misreadings: Counts) -> str:
    """The table, the first and last validation and the chart, and those of misreadings if any, for ``summary.md``."""
    first, *_ = comparison
    explanation = f"after each value the difference to {first}, paired 95 % interval"
    lines = ["# Test results", "", f"In percent unless named otherwise; {explanation}.", ""]
    heading, *body = rows(comparison)
    lines += [f"| {' | '.join(heading)} |".replace("|  |", "| |"), f"| --- |{' ---: |' * (1 + len(comparison))}"]
    lines += [f"| {' | '.join(row)} |" for row in body]
    ends = [f"{100 * validation[step]:.1f} % at step {step}" for step in (min(validation), max(validation))]
    lines += ["", f"Greedy validation: {' and '.join(ends)}.", ""]
    lines += [f"![greedy validation over training steps]({CHART})"]
    if misreadings:
        lines += misreadings_markdown(misreadings, MISREADINGS_CHART)
    return "\n".join(lines) + "\n"


def parse_runs(texts: Sequence[str]) -> dict[str, Path]:
    """``["start=A", "grpo=B"]`` as label -> path.

    Raises:
        InputError: a text has no label or no path, or a label occurs twice.
    """
    runs = {}
    for text in texts:
        label, _, path = text.partition("=")
        if not label or not path:
            raise InputError(f"--runs {text}: write LABEL=PATH, e.g. start=results/model/run_1")
        if label in runs:
            raise InputError(f"--runs names {label} twice; give each run its own label")
        runs[label] = Path(path)
    return runs


def summarize(
    paths: dict[str, Path], metrics: Sequence[Path], out_dir: Path, console: Console, commands: dict[str, str]
) -> Path:
    """Print the tables and write everything to ``out_dir``; return the page. ``commands``: to go on with, by what for.

    Raises:
        InputError: a file is missing or malformed, the runs do not belong together, or ``out_dir`` cannot be written.
    """
    runs = {label: read_run(path) for label, path in paths.items()}
    recipe = TASKS[next(iter(runs.values())).recipe].evaluation
    curves = read_curves(metrics, recipe.VALIDATION)
    comparison = compare(runs)
    misreadings = count_misreadings(runs)
    chosen = examples(runs) if len(runs) > 1 else {}
    check_folder(out_dir)
    print_table(comparison, console)
    if misreadings:
        console.print(misreadings_table(misreadings))

    sources = {label: str(run.file) for label, run in runs.items()}
    content = {"files": sources, "runs": comparison, "curves": curves}
    content |= {"misreadings": misreadings} if misreadings else {}
    _write(out_dir / "summary.json", json.dumps(content, indent=1) + "\n")
    lines = [markdown(comparison, curves[recipe.VALIDATION], misreadings).rstrip("\n")]
    _write(out_dir / "summary.md", "\n".join([*lines, *examples_markdown(chosen, list(runs))]).rstrip("\n") + "\n")
    charts = {f"greedy validation over training steps: {recipe.TITLE}": out_dir / CHART}
    with atomic_output(out_dir / CHART) as partial:
        draw_curves(curves, recipe, partial)
    first, *_ = runs
    explanation = f"in percent unless named otherwise; after each value the difference to {first}, paired 95 % interval"
    tables = {f"Test results, {explanation}": rows(comparison)}
    if misreadings:
        charts["wrong answers by misreading"] = out_dir / MISREADINGS_CHART
        with atomic_output(out_dir / MISREADINGS_CHART) as partial:
            draw_misreadings(misreadings, partial)
        tables[TITLE] = misreadings_rows(misreadings)
    page = out_dir / PAGE
    title = f"{recipe.TITLE}: {', '.join(runs)}"
    _write(page, render_summary(title, tables, charts, chosen, list(runs), commands))
    return page


def _write(path: Path, text: str) -> None:
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.summary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", required=True, metavar="LABEL=PATH", help="the first is compared with")
    parser.add_argument(
        "--metrics", nargs="+", type=Path, required=True, help="jsonl files of verl's file logger, or their folder"
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the summary, made if need be")
    args = parser.parse_args(argv)
    page = summarize(parse_runs(args.runs), args.metrics, args.out_dir, Console(), {})
    print(f"Wrote {page}, summary.md, summary.json and charts beside it; they hold questions, treat them like the data")


if __name__ == "__main__":
    run_main(main)
