"""What a chat asks of a recipe."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from recipes.chat_app.text import Piece
from recipes.evaluation.selector import Selector
from recipes.evaluation.token_confidence import TokenConfidence

Turn = tuple[str, str]  # question, answer


@dataclass(frozen=True)
class Reply:
    """What a model has written. ``shown``: what of the raw ``text`` was shown as its answer already.

    ``selector`` says which answers of the model to show; without one, all are shown.
    """

    text: str
    shown: str
    confidence: TokenConfidence | None = None
    selector: Selector | None = None


class ChatTask(Protocol):
    """``dialogue``: whether an answer depends on the turns before it."""

    dialogue: bool

    def messages(self, turns: list[Turn], question: str) -> list[dict[str, str]]:
        """The chat messages of training that end in ``question``."""

    def answer(self, text: str) -> str:
        """The answer in a model's raw text, empty where there is none."""

    def conclude(self, reply: Reply) -> Iterator[Piece]:
        """What to show after a model's raw text is complete."""
