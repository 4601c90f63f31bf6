"""The page of a summary: one HTML file without any reference to another."""

import base64
from pathlib import Path
from typing import Any

from recipes.report.page_template import page_environment
from recipes.report.run_facts import Facts

TEMPLATE = "summary_page.html.jinja"


def render_summary(
    title: str,
    runs: Facts,
    tables: dict[str, tuple[list[list[str]], list[str]]],
    charts: dict[str, Path],
    examples: dict[str, Any],
    commands: dict[str, str],
) -> str:
    """The page as text.

    ``runs`` are ``run_facts``. ``tables``: title -> rows, the heading first, and the lines below them. ``charts``:
    description -> PNG file. ``examples``: of ``recipes.report.summary_examples``. ``commands``: what for -> a command
    line to go on with. Texts from data and models are hostile: the template escapes them, and the page's content
    security policy runs no script and loads nothing.
    """
    environment = page_environment()
    images = {name: base64.b64encode(file.read_bytes()).decode() for name, file in charts.items()}
    template = environment.get_template(TEMPLATE)
    return template.render(
        title=title, runs=runs, tables=tables, images=images, examples=examples, labels=list(runs), commands=commands
    )
