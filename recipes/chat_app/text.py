"""The text of a chat as it is shown: pieces by kind, without control characters, split at think and answer tags.

What a model writes is not to be trusted. A ``Piece`` holds no character that steers a terminal, and those who show
one take its text as plain text: never as rich's markup, never as HTML.
"""

import re
from dataclasses import dataclass
from typing import Literal

from data_prep.common.printable import printable

Kind = Literal["question", "text", "reasoning", "answer", "note", "error", "table"]

_TAG = re.compile(r"(</?(?:think|answer)>)", re.IGNORECASE)
_KIND_AFTER: dict[str, Kind] = {
    "<think>": "reasoning",
    "</think>": "text",
    "<answer>": "text",
    "</answer>": "reasoning",  # text after the answer is not part of it
}


@dataclass(frozen=True)
class Piece:
    """A part of a chat, in the order in which it is shown.

    ``text`` and ``reasoning`` grow while a model writes and follow each other on one line. The other kinds stand on
    lines of their own. A ``table`` has ``rows``, lists of as many cells each, under ``text`` as its heading.
    """

    kind: Kind
    text: str
    rows: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "text", printable(self.text))
        object.__setattr__(self, "rows", tuple(tuple(printable(cell) for cell in row) for row in self.rows))


class TagReader:
    """Splits a growing text at ``<think>`` and ``<answer>`` tags; the tags themselves are not shown.

    ``plain`` is what the pieces of kind ``text`` say so far.
    """

    def __init__(self):
        self.plain = ""
        self._kind: Kind = "text"
        self._held = ""  # the end of the text so far, where it may be the beginning of a tag

    def feed(self, chunk: str) -> list[Piece]:
        """The pieces that ``chunk`` completes."""
        *parts, rest = _TAG.split(self._held + chunk)
        start = rest.rfind("<")
        is_open = start >= 0 and any(tag.startswith(rest[start:].lower()) for tag in _KIND_AFTER)
        rest, self._held = (rest[:start], rest[start:]) if is_open else (rest, "")
        pieces: list[Piece] = []
        for text, tag in zip(parts[::2], parts[1::2], strict=True):
            pieces += self._piece(text)
            self._kind = _KIND_AFTER[tag.lower()]
        return pieces + self._piece(rest)

    def end(self) -> list[Piece]:
        """What was held back: no tag after all."""
        return self._piece(self._held)

    def _piece(self, text: str) -> list[Piece]:
        piece = Piece(self._kind, text)
        if self._kind == "text":
            self.plain += piece.text
        return [piece] if text else []
