"""Compares runs of ``evaluate`` on the same questions: which differences are more than chance, and the answers
side by side.

``python -m recipes.compare runA runB [runC ...] --out_dir D`` takes results folders or ``results.json`` files, of any
recipe. Of the results in a folder, the newest are taken. The program prints a table with paired differences a pair of
runs, and writes ``comparison.html`` to ``D``: one page that needs nothing else.

With ``--metrics``, the files of verl's file logger, ``D`` also holds a summary of the training run: ``summary.html``,
``summary.md``, ``summary.json``, the curve of greedy validation and, where a recipe sorts its wrong answers by kind, a
chart of the kinds.

Each file holds the questions, contexts and answers that ``results.json`` holds: treat it like the data, and where that
is patient data, keep it where patient data may be.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError, run_main
from recipes.evaluation.comparison import Comparison, compare_pairs, left_out
from recipes.evaluation.results import read_run, results_file
from recipes.report.compare_items import page_items
from recipes.report.compare_page import render_page
from recipes.report.pairs import caption, print_tables, tables
from recipes.report.run_facts import abstaining_always, run_facts
from recipes.report.summary import write_summary
from recipes.tasks.registry import TASKS

PAGE = "comparison.html"


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
    comparisons, lines = compare_pairs(runs, seed), [caption(len(runs)), *abstaining_always(runs)]
    if different := left_out(runs):
        lines.append(
            f"not compared, because a run lacks the figure or was evaluated with other options: {', '.join(different)}"
        )
    about = "\n".join(lines)
    title = f"{TASKS[next(iter(runs.values())).recipe].evaluation.TITLE}: {', '.join(runs)}"
    with atomic_output(out_dir / PAGE) as partial:
        text = render_page(title, run_facts(runs), tables(comparisons), about, page_items(runs))
        partial.write_text(text, encoding="utf-8")
    return comparisons, about, out_dir / PAGE


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder or results.json, or LABEL=PATH; two or more")
    parser.add_argument("--out_dir", type=Path, required=True, help=f"folder for {PAGE}, made if need be")
    parser.add_argument(
        "--metrics", nargs="+", type=Path, help="jsonl files of verl's file logger, or their folder: adds a summary"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resamples (default: 0)")
    args = parser.parse_args(argv)
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}; give 0 or more")

    runs = parse_runs(args.runs)
    summary = write_summary(runs, args.metrics, args.out_dir, Console(), {}) if args.metrics else None
    comparisons, about, page = write_comparison(runs, args.out_dir, args.seed)
    print_tables(comparisons, about, Console(markup=False))
    print(f"Wrote {page}; it holds the questions and answers, treat it like the data")
    if summary:
        print(f"Wrote {summary}, summary.md, summary.json and charts beside it; treat them like the data, too")


if __name__ == "__main__":
    run_main(main)
