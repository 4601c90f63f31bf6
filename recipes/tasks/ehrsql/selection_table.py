"""The table of what withholding uncertain EHRSQL answers comes to."""

from typing import Any

from rich.table import Table

from recipes.evaluation.selector import in_words

WHAT = {"coverage": "answered, % (coverage)", "risk": "wrong among these, % (risk)"}


def selection_table(selection: dict[str, Any]) -> Table:
    """``selection`` is that of the summary (``recipes.tasks.ehrsql.selection``). At most 100 columns wide."""
    valid = selection["valid"]
    before, after = (f"{valid['reliability'][name]:.1f}" for name in ("all", "selected"))
    chosen = f"chosen on {valid['questions']:,} validation questions by RS({selection['penalty']:g})"
    table = Table(
        title=f"Selection: {in_words(selection)}",
        caption=f"{chosen}: {before} without, {after} with selection\nabstaining always: {selection['abstaining']:.1f}",
    )
    for column in ("", "all answers", "selected", "95 % interval"):
        table.add_column(column, justify="right" if table.columns else "left")
    for name, values in selection["reliability"].items():
        table.add_row(name, _text(values["all"]), _text(values["selected"]), _interval(values))
    for name, text in WHAT.items():
        table.add_row(text, _text(selection[name]["all"]), _text(selection[name]["selected"]), "")
    table.add_section()
    area = selection["aurc"]
    table.add_row("AURC, %", _text(area["value"]), "", _interval(area))
    for risk, coverage in selection["coverage_at_risk"].items():
        table.add_row(f"coverage at {risk} % risk, %", _text(coverage), "", "")
    table.add_row("HCAcc@90, %", _text(selection["hcacc_90"]), "", "")
    table.add_row("ECE, points", _text(selection["ece"]), "", "")
    return table


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _interval(values: dict[str, float | None]) -> str:
    return "" if values["low"] is None else f"{values['low']:.1f} to {values['high']:.1f}"
