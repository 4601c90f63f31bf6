"""The page of ``recipes.compare``: one HTML file without any reference to another."""

import base64
import hashlib
from typing import Any

from recipes.report.page_template import page_environment
from recipes.report.run_facts import Facts

TEMPLATE = "compare_page.html.jinja"


def render_page(title: str, runs: Facts, tables: dict[str, list[list[str]]], caption: str, items: list[dict]) -> str:
    """The page as text.

    ``runs`` are ``run_facts``; ``tables``: title -> rows, the heading first; ``items`` are ``page_items``. Texts from
    data and models are hostile: the template escapes them, its script shows them as text only, and the page's content
    security policy runs no script but that one and loads nothing.
    """
    environment = page_environment()
    environment.filters["csp_hash"] = _csp_hash
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": True, "separators": (",", ":")}
    template = environment.get_template(TEMPLATE)
    data: dict[str, Any] = {"labels": list(runs), "items": items}
    return template.render(title=title, runs=runs, tables=tables, caption=caption, data=data)


def _csp_hash(text: str) -> str:
    """The source expression that allows an inline script or style of exactly this text."""
    digest = hashlib.sha256(str(text).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
