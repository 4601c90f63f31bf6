"""A text on a page."""

from collections.abc import Sequence
from typing import Any

Edit = tuple[int, int, str]  # a text from start to end, and what another text has in its place; either may be empty


def page_text(label: str, text: str, code: bool = False, edits: Sequence[Edit] = ()) -> dict[str, Any]:
    """``code``: whether the text is code. ``edits``: where it differs from another text, in order, for marks."""
    return {"label": label, "text": text, "code": code} | ({"edits": [*edits]} if edits else {})
