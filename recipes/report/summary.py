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
from recipes.report.run_facts import abstaining_always, run_facts, runs_markdown
from recipes.report.summary_examples import examples, examples_markdown
from recipes.report.summary_kinds import Counts, count_kinds, draw_kinds, kinds_markdown, kinds_rows, kinds_table
from recipes.report.summary_page import render_summary
from recipes.tasks.registry import TASKS

PAGE, CHART = "summary.html", "validation_accuracy.png"

EXPLANATION = "in percent unless named otherwise; differences are paired, with 95 % intervals"

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
    baseline = abstaining_always(runs)
    print_table(comparison, baseline, console)
    for kinds, counts in counted:
        console.print(kinds_table(kinds, counts))

    sources = {label: str(run.file) for label, run in runs.items()}
    content = {"files": sources, "runs": comparison, "curves": curves}
    content |= {kinds.name: counts for kinds, counts in counted}
    _write(out_dir / "summary.json", json.dumps(content, indent=1) + "\n")
    lines = [markdown(comparison, baseline, curves[recipe.VALIDATION], counted).rstrip("\n")]
    lines += [*runs_markdown(run_facts(runs)), *examples_markdown(chosen, list(runs))]
    _write(out_dir / "summary.md", "\n".join(lines).rstrip("\n") + "\n")
    charts = {f"greedy validation over training steps: {recipe.TITLE}": out_dir / CHART}
    with atomic_output(out_dir / CHART) as partial:
        draw_curves(curves, recipe, partial)
    tables = {"Test results": (rows(comparison), [EXPLANATION, *baseline])}
    for kinds, counts in counted:
        charts[kinds.title] = out_dir / _chart(kinds)
        with atomic_output(out_dir / _chart(kinds)) as partial:
            draw_kinds(kinds, counts, partial)
        tables[kinds.title] = kinds_rows(kinds, counts), [f"in percent of {kinds.share_of}"]
    page = out_dir / PAGE
    title = f"{recipe.TITLE}: {', '.join(runs)}"
    _write(page, render_summary(title, run_facts(runs), tables, charts, chosen, commands))
    return page


def cells(figure: dict[str, Any]) -> tuple[str, str]:
    """A figure's value and its difference to the first run, as text."""
    if figure["value"] is None:
        return "", ""
    value = f"{figure['value']:.1f}"
    if "difference" not in figure:
        return value, ""
    return value, f"{figure['difference']:+.1f} [{figure['low']:+.1f}, {figure['high']:+.1f}]"


def print_table(comparison: dict[str, dict[str, Any]], baseline: list[str], console: Console) -> None:
    """One column a run; under each value the difference to the first run. ``baseline``: lines below the table."""
    first, *_ = comparison
    table = Table(
        title="Test results, in percent unless named otherwise",
        caption="\n".join([f"below: difference to {first}, paired 95 % interval", *baseline]),
    )
    for column in ("", "questions", *comparison):
        table.add_column(column, justify="right" if column else "left")
    for name, figure in _asked(comparison[first]).items():
        values = ("\n".join(filter(None, cells(run[name]))) for run in comparison.values())
        table.add_row(name, f"{figure['questions']:,}", *values)
    console.print(table)


def rows(comparison: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The table as text, the heading first. Each run has a column; all but the first have one of differences, too."""
    first, *others = comparison
    heading = ["", "questions", first, *(text for label in others for text in (label, f"difference to {first}"))]
    body = []
    for name, figure in _asked(comparison[first]).items():
        value, _ = cells(figure)
        values = (text for label in others for text in cells(comparison[label][name]))
        body.append([name, f"{figure['questions']:,}", value, *values])
    return [heading, *body]


def _asked(figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Those of some question."""
    return {name: figure for name, figure in figures.items() if figure["questions"]}


def markdown(
    comparison: dict[str, dict[str, Any]], baseline: list[str], validation: dict[int, float], counted: Counted
) -> str:
    """The table, the first and last validation and the chart, and wrong answers by kind, for ``summary.md``."""
    (_, *heading), *body = rows(comparison)
    lines = ["# Test results", "", f"| | {' | '.join(heading)} |", f"| --- |{' ---: |' * len(heading)}"]
    lines += [f"| {' | '.join(row)} |" for row in body]
    for line in [EXPLANATION, *baseline]:
        lines += ["", f"{line[0].upper()}{line[1:]}."]
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
