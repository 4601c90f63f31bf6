"""Compares runs of ``evaluate`` on the same questions: which differences are more than chance, and the answers
side by side.

``python -m recipes.compare runA runB [runC ...] --out_dir D`` takes results folders or ``results.json`` files, of ECG
or of EHRSQL, prints a table with paired differences, and writes ``comparison.html`` to ``D``: one page that needs
nothing else. It holds the questions, contexts and answers that ``results.json`` holds: treat it like the data, and
where that is patient data, keep it where patient data may be.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.table import Table

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError, run_main
from recipes.evaluation.bootstrap import RESAMPLES, holm, paired_bootstrap, paired_p_value
from recipes.evaluation.results import Run, check_same_questions, read_run, results_file
from recipes.report.compare_items import page_items
from recipes.report.compare_page import render_page
from recipes.tasks.registry import TASKS

PAGE = "comparison.html"


@dataclass(frozen=True)
class Comparison:
    """A figure of two runs: their means, and the second's less the first's with its interval and p value."""

    figure: str
    questions: int
    before: str
    after: str
    before_value: float
    after_value: float
    difference: float
    low: float
    high: float
    p: float


def compare(runs: dict[str, Run], seed: int = 0) -> list[Comparison]:
    """Every pair of runs by every figure of their recipe that some question belongs to.

    The p values of one figure are corrected for the number of pairs (Holm); figures are not corrected for each other.

    Raises:
        InputError: the runs are not about the same questions.
    """
    check_same_questions(runs)
    first, *_ = runs.values()
    results = []
    for figure, (belongs, value) in TASKS[first.recipe].evaluation.FIGURES.items():
        values = {label: [value(sample) for sample in run.samples if belongs(sample)] for label, run in runs.items()}
        if not values[next(iter(runs))]:
            continue
        pairs = list(combinations(values, 2))
        p_values = holm([paired_p_value(values[before], values[after], seed) for before, after in pairs])
        for (before, after), p in zip(pairs, p_values, strict=True):
            difference, low, high = paired_bootstrap(values[before], values[after], seed)
            means = fmean(values[before]), fmean(values[after])
            results.append(Comparison(figure, len(values[after]), before, after, *means, difference, low, high, p))
    return results


HEADING = ["figure", "n", "means", "difference [95 %]", "p"]


def tables(comparisons: Sequence[Comparison]) -> dict[str, list[list[str]]]:
    """For each pair of runs, by a title: ``HEADING`` and one row a figure, as text."""
    results: dict[str, list[list[str]]] = {}
    for each in comparisons:
        rows = results.setdefault(f"{each.before} to {each.after}", [HEADING])
        rows.append(
            [
                each.figure,
                f"{each.questions:,}",
                f"{each.before_value:.1f} to {each.after_value:.1f}",
                f"{each.difference:+.1f} [{each.low:+.1f}, {each.high:+.1f}]",
                "< 0.001" if each.p < 0.001 else f"{each.p:.3f}",
            ]
        )
    return results


def print_tables(comparisons: Sequence[Comparison], about: str, console: Console) -> None:
    """One table a pair of runs, then what their figures are."""
    for title, (heading, *rows) in tables(comparisons).items():
        table = Table(title=title)
        for name in heading:
            table.add_column(name, justify="right" if table.columns else "left", no_wrap=bool(table.columns))
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(about)


def caption(number_of_runs: int) -> str:
    """What the table's figures are."""
    pairs = number_of_runs * (number_of_runs - 1) // 2
    correction = f"p corrected for the {pairs} pairs of runs (Holm)" if pairs > 1 else "one pair, p not corrected"
    return (
        f"In percent unless named otherwise, n questions. Paired bootstrap over questions, {RESAMPLES:,} resamples; "
        f"{correction}; not corrected for the number of figures. It covers the choice of questions, not another "
        "training seed."
    )


def parse_runs(texts: Sequence[str]) -> dict[str, Path]:
    """``["start=A", "B"]`` as label -> results file; without a label it is the last two folders' names.

    Raises:
        InputError: fewer than two runs, a label without a path or twice, or a folder without results.
    """
    if len(texts) < 2:
        raise InputError("give at least two runs to compare")
    runs = {}
    for text in texts:
        label, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            label, path = "", text
        elif not label or not path:
            raise InputError(f"{text}: write LABEL=PATH or PATH")
        file = results_file(Path(path))
        label = label or "/".join(file.resolve().parent.parts[-2:])
        if label in runs:
            raise InputError(f"two runs are called {label}; name them with LABEL=PATH")
        runs[label] = file
    return runs


def write_comparison(paths: dict[str, Path], out_dir: Path, seed: int = 0) -> tuple[list[Comparison], str, Path]:
    """Write the page about the runs label -> results file or folder; return what it says of the figures, and its path.

    Raises:
        InputError: a file is missing or malformed, or the runs are not about the same questions.
    """
    runs = {label: read_run(path) for label, path in paths.items()}
    comparisons, about = compare(runs, seed), caption(len(runs))
    title = f"{TASKS[next(iter(runs.values())).recipe].evaluation.TITLE}: {', '.join(runs)}"
    with atomic_output(out_dir / PAGE) as partial:
        text = render_page(title, list(runs), tables(comparisons), about, page_items(runs))
        partial.write_text(text, encoding="utf-8")
    return comparisons, about, out_dir / PAGE


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder or results.json, or LABEL=PATH; two or more")
    parser.add_argument("--out_dir", type=Path, required=True, help=f"folder for {PAGE}, made if need be")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (default: 0)")
    args = parser.parse_args(argv)
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}; give 0 or more")

    comparisons, about, page = write_comparison(parse_runs(args.runs), args.out_dir, args.seed)
    print_tables(comparisons, about, Console(markup=False))
    print(f"Wrote {page}; it holds the questions and answers, treat it like the data")


if __name__ == "__main__":
    run_main(main)
