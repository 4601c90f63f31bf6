"""What a summary shows of misreadings: the wrong answers that each gives in each run, as tables and a chart.

The counts are those of a recipe's ``misreading_counts``; see ``recipes.tasks.ehrsql.misreadings``.
"""

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from recipes.evaluation.results import Run
from recipes.tasks.registry import TASKS

TITLE = "Wrong answers that a misreading of the question gives"
EXPLANATION = "in percent of the questions whose answer the misreading changes"

Counts = dict[str, dict[str, dict[str, int]]]  # label of a run -> misreading -> "changes", "wrong"


def count_misreadings(runs: dict[str, Run]) -> Counts:
    """The counts of the runs that have any: results of older evaluations and of other recipes have none."""
    counts = {}
    for label, run in runs.items():
        if counted := TASKS[run.recipe].evaluation.misreading_counts(run.samples):
            counts[label] = counted
    return counts


def misreadings_table(counts: Counts) -> Table:
    """One row a misreading, one column a run."""
    table = Table(title=TITLE, caption=EXPLANATION)
    for column in ("", *counts):
        table.add_column(column, justify="right" if column else "left")
    for row in misreadings_rows(counts)[1:]:
        table.add_row(*row)
    return table


def misreadings_rows(counts: Counts) -> list[list[str]]:
    """The table as text, the heading first."""
    return [["", *counts], *([name, *_cells(counts, name)] for name in _names(counts))]


def misreadings_markdown(counts: Counts, chart: str) -> Iterator[str]:
    """The same as lines of Markdown, with the image ``chart`` below."""
    yield from ["", f"## {TITLE}", "", f"{EXPLANATION.capitalize()}.", ""]
    (_, *labels), *body = misreadings_rows(counts)
    yield from [f"| | {' | '.join(labels)} |", f"| --- |{' ---: |' * len(labels)}"]
    yield from (f"| {' | '.join(row)} |" for row in body)
    yield from ["", f"![wrong answers by misreading]({chart})"]


def draw_misreadings(counts: Counts, path: Path) -> None:
    """Write a PNG: for each misreading a group of bars, one a run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = {name: row for row, name in enumerate(_names(counts))}
    width = 0.8 / len(counts)
    figure, axes = pyplot.subplots(figsize=(7, 1.5 + 0.5 * len(rows)), layout="constrained")
    for number, (label, counted) in enumerate(counts.items()):
        places = [rows[name] + (number + 0.5) * width - 0.4 for name in counted]
        axes.barh(places, [_percent(count) for count in counted.values()], width, label=label)
    axes.set_yticks(list(rows.values()), list(rows))
    axes.invert_yaxis()
    axes.set(title=TITLE, xlabel="% of the questions whose answer the misreading changes")
    axes.legend()
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)


def _names(counts: Counts) -> list[str]:
    """The misreadings of any run, in the order of the runs that have most of them first."""
    return list(dict.fromkeys(name for run in sorted(counts.values(), key=len, reverse=True) for name in run))


def _cells(counts: Counts, name: str) -> list[str]:
    found = [counted.get(name) for counted in counts.values()]
    return [f"{_percent(count):.1f} ({count['wrong']:,} of {count['changes']:,})" if count else "" for count in found]


def _percent(count: dict[str, int]) -> float:
    return 100 * count["wrong"] / count["changes"]
