"""What a chat asks of a recipe."""

from collections.abc import Iterator
from typing import Protocol

from recipes.chat_app.text import Piece

Turn = tuple[str, str]  # question, answer


class ChatTask(Protocol):
    """``dialogue``: whether an answer depends on the turns before it."""

    dialogue: bool

    def messages(self, turns: list[Turn], question: str) -> list[dict[str, str]]:
        """The chat messages of training that end in ``question``."""

    def answer(self, text: str) -> str:
        """The answer in a model's raw text, empty where there is none."""

    def conclude(self, text: str, shown: str) -> Iterator[Piece]:
        """What to show after a model's raw text is complete; ``shown`` of it was shown as its answer already."""
