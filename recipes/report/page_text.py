"""A text on a page."""

from typing import Any


def page_text(label: str, text: str, code: bool = False) -> dict[str, Any]:
    """``code``: whether the text is code."""
    return {"label": label, "text": text, "code": code}
