"""A run's summary: differences to the first model, the training curve, kinds of wrong answers, examples, as files."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.common.atomic import atomic_output, check_folder
from recipes.evaluation.answer_kinds import AnswerKinds
from recipes.evaluation.comparison import compare_with_first
from recipes.evaluation.results import read_run
from recipes.report.curves import draw_curves, read_curves
from recipes.report.summary_examples import examples, examples_markdown
from recipes.report.summary_kinds import Counts, count_kinds, draw_kinds, kinds_markdown, kinds_rows, kinds_table
from recipes.report.summary_page import render_summary
from recipes.tasks.registry import TASKS

PAGE, CHART = "summary.html", "validation_accuracy.png"

Counted = list[tuple[AnswerKinds, Counts]]


def write_summary(
    paths: dict[str, Path], metrics: Sequence[Path], out_dir: Path, console: Console, commands: dict[str, str]
) -> Path:
    """Print the tables and write everything to ``out_dir``; return the page. ``commands``: to go on with, by what for.

    Raises:
        InputError: a file is missing or malformed, the runs do not belong together, or ``out_dir`` cannot be written.
    """
    runs = {label: read_run(path) for label, path in paths.items()}
    recipe = TASKS[next(iter(runs.values())).recipe].evaluation
    curves = read_curves(metrics, recipe.VALIDATION)
    comparison = compare_with_first(runs)
    counted = [(kinds, counts) for kinds in recipe.ANSWER_KINDS if (counts := count_kinds(kinds, runs))]
    chosen = examples(runs) if len(runs) > 1 else {}
    check_folder(out_dir)
    print_table(comparison, console)
    for kinds, counts in counted:
        console.print(kinds_table(kinds, counts))

    sources = {label: str(run.file) for label, run in runs.items()}
    content = {"files": sources, "runs": comparison, "curves": curves}
    content |= {kinds.name: counts for kinds, counts in counted}
    _write(out_dir / "summary.json", json.dumps(content, indent=1) + "\n")
    lines = [markdown(comparison, curves[recipe.VALIDATION], counted).rstrip("\n")]
    _write(out_dir / "summary.md", "\n".join([*lines, *examples_markdown(chosen, list(runs))]).rstrip("\n") + "\n")
    charts = {f"greedy validation over training steps: {recipe.TITLE}": out_dir / CHART}
    with atomic_output(out_dir / CHART) as partial:
        draw_curves(curves, recipe, partial)
    first, *_ = runs
    explanation = f"in percent unless named otherwise; after each value the difference to {first}, paired 95 % interval"
    tables = {f"Test results, {explanation}": rows(comparison)}
    for kinds, counts in counted:
        charts[kinds.title] = out_dir / _chart(kinds)
        with atomic_output(out_dir / _chart(kinds)) as partial:
            draw_kinds(kinds, counts, partial)
        tables[f"{kinds.title}, in percent of {kinds.share_of}"] = kinds_rows(kinds, counts)
    page = out_dir / PAGE
    title = f"{recipe.TITLE}: {', '.join(runs)}"
    _write(page, render_summary(title, tables, charts, chosen, list(runs), commands))
    return page


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
    for name, figure in _asked(comparison[first]).items():
        values = ("\n".join(filter(None, cells(run[name]))) for run in comparison.values())
        table.add_row(name, f"{figure['questions']:,}", *values)
    console.print(table)


def rows(comparison: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The table as text, the heading first."""
    first, *_ = comparison
    heading = ["", "questions", *comparison]
    body = [
        [name, f"{figure['questions']:,}", *(" ".join(filter(None, cells(run[name]))) for run in comparison.values())]
        for name, figure in _asked(comparison[first]).items()
    ]
    return [heading, *body]


def _asked(figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of some question."""
    return {name: figure for name, figure in figures.items() if figure["questions"]}


def markdown(comparison: dict[str, dict[str, Any]], validation: dict[int, float], counted: Counted) -> str:
    """The table, the first and last validation and the chart, and wrong answers by kind, for ``summary.md``."""
    first, *_ = comparison
    explanation = f"after each value the difference to {first}, paired 95 % interval"
    lines = ["# Test results", "", f"In percent unless named otherwise; {explanation}.", ""]
    heading, *body = rows(comparison)
    lines += [f"| {' | '.join(heading)} |".replace("|  |", "| |"), f"| --- |{' ---: |' * (1 + len(comparison))}"]
    lines += [f"| {' | '.join(row)} |" for row in body]
    ends = [f"{100 * validation[step]:.1f} % at step {step}" for step in (min(validation), max(validation))]
    lines += ["", f"Greedy validation: {' and '.join(ends)}.", ""]
    lines += [f"![greedy validation over training steps]({CHART})"]
    for kinds, counts in counted:
        lines += kinds_markdown(kinds, counts, _chart(kinds))
    return "\n".join(lines) + "\n"


def _chart(kinds: AnswerKinds) -> str:
    return f"{kinds.name}.png"


def _write(path: Path, text: str) -> None:
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")
