"""Tables of paired differences, one a pair of runs."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from recipes.evaluation.bootstrap import RESAMPLES
from recipes.evaluation.comparison import Comparison

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
