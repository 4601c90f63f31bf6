"""How many rows each rule keeps and drops, for a user who audits a build."""

from rich.console import Console
from rich.table import Table as Report

from data_prep.mimic.source import EhrSource
from data_prep.mimic.tables import Table


def count_rules(source: EhrSource, table: Table) -> list[int]:
    """The rows of the file, then those that are left after each rule. Reads the file once more."""
    rules = [f"r{number}" for number in range(len(table.rules))]
    conditions = ", ".join(f"{rule} AS {name}" for name, rule in zip(rules, table.rules.values(), strict=True))
    counts = [f"count(*) FILTER (WHERE {' AND '.join(rules[: number + 1])})" for number in range(len(rules))]
    query = f"SELECT {', '.join(['count(*)', *counts])} FROM (SELECT {conditions} FROM {table.rows})"
    with source.tree.reading(table.file):
        return list(source.db.execute(query).fetchone())


def print_rules(console: Console, table: Table, counts: list[int]) -> None:
    report = Report("a row is kept if", "dropped", "kept", title=f"{table.name}: {counts[0]:,} rows in the file")
    for column in report.columns[1:]:
        column.justify = "right"
    for rule, before, after in zip(table.rules, counts, counts[1:], strict=False):
        report.add_row(rule, f"{before - after:,}", f"{after:,}")
    console.print(report)
