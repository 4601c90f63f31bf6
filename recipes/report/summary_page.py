"""The page of a summary: one HTML file without any reference to another."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipes.report.page_template import page_environment

TEMPLATE = "summary_page.html.jinja"


def render_summary(
    title: str,
    tables: dict[str, list[list[str]]],
    charts: dict[str, Path],
    examples: dict[str, Any],
    labels: Sequence[str],
    commands: dict[str, str],
) -> str:
    """The page as text.

    ``tables``: title -> rows, the heading first. ``charts``: description -> PNG file. ``examples``: of
    ``recipes.report.summary_examples``, for the runs ``labels``. ``commands``: what for -> a command line to go on
    with. Texts from data and models are hostile: the template escapes them, and the page's content security policy runs
    no script and loads nothing.
    """
    environment = page_environment()
    images = {name: base64.b64encode(file.read_bytes()).decode() for name, file in charts.items()}
    template = environment.get_template(TEMPLATE)
    return template.render(
        title=title, tables=tables, images=images, examples=examples, labels=labels, commands=commands
    )
