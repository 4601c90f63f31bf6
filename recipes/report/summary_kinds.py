"""What a summary shows of a way to sort wrong answers: how many of each kind are in each run, as tables and a chart."""

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from recipes.evaluation.answer_kinds import AnswerKinds
from recipes.evaluation.results import Run

Counts = dict[str, dict[str, dict[str, int]]]  # label of a run -> kind -> "wrong", and what it is a share of


def count_kinds(kinds: AnswerKinds, runs: dict[str, Run]) -> Counts:
    """The counts of the runs that have any: results of older evaluations have none."""
    counts = {label: kinds.count(run.samples) for label, run in runs.items()}
    return {label: counted for label, counted in counts.items() if counted}


def kinds_table(kinds: AnswerKinds, counts: Counts) -> Table:
    """One row a kind, one column a run."""
    table = Table(title=kinds.title, caption=f"in percent of {kinds.share_of}")
    for column in ("", *counts):
        table.add_column(column, justify="right" if column else "left")
    for row in kinds_rows(kinds, counts)[1:]:
        table.add_row(*row)
    return table


def kinds_rows(kinds: AnswerKinds, counts: Counts) -> list[list[str]]:
    """The table as text, the heading first."""
    return [["", *counts], *([name, *_cells(kinds, counts, name)] for name in _names(counts))]


def kinds_markdown(kinds: AnswerKinds, counts: Counts, chart: str) -> Iterator[str]:
    """The same as lines of Markdown, with the image ``chart`` below."""
    yield from ["", f"## {kinds.title}", "", f"In percent of {kinds.share_of}.", ""]
    (_, *labels), *body = kinds_rows(kinds, counts)
    yield from [f"| | {' | '.join(labels)} |", f"| --- |{' ---: |' * len(labels)}"]
    yield from (f"| {' | '.join(row)} |" for row in body)
    yield from ["", f"![{kinds.title}]({chart})"]


def draw_kinds(kinds: AnswerKinds, counts: Counts, path: Path) -> None:
    """Write a PNG: for each kind a group of bars, one a run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = {name: row for row, name in enumerate(_names(counts))}
    width = 0.8 / len(counts)
    figure, axes = pyplot.subplots(figsize=(7, 1.5 + 0.5 * len(rows)), layout="constrained")
    for number, (label, counted) in enumerate(counts.items()):
        places = [rows[name] + (number + 0.5) * width - 0.4 for name in counted]
        axes.barh(places, [_percent(kinds, count) for count in counted.values()], width, label=label)
    axes.set_yticks(list(rows.values()), list(rows))
    axes.invert_yaxis()
    figure.suptitle(kinds.title)  # over the names, too: they take up to half of the width
    axes.set(xlabel=f"% of {kinds.share_of}")
    axes.legend()
    axes.grid(alpha=0.3, axis="x")
    figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)


def _names(counts: Counts) -> list[str]:
    """The kinds of any run, in the order of the runs that have most of them first."""
    return list(dict.fromkeys(name for run in sorted(counts.values(), key=len, reverse=True) for name in run))


def _cells(kinds: AnswerKinds, counts: Counts, name: str) -> list[str]:
    found = [counted.get(name) for counted in counts.values()]
    return [
        f"{_percent(kinds, count):.1f} ({count['wrong']:,} of {count[kinds.whole]:,})" if count else ""
        for count in found
    ]


def _percent(kinds: AnswerKinds, count: dict[str, int]) -> float:
    return 100 * count["wrong"] / count[kinds.whole]
