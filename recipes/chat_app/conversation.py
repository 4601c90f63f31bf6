"""One model's side of a chat: its memory, and a reply as a stream of pieces."""

from collections.abc import Iterator
from contextlib import closing

from data_prep.common.errors import InputError
from recipes.chat_app.models import ChatModel
from recipes.chat_app.tasks import ChatTask, Reply, Turn
from recipes.chat_app.text import Piece, TagReader


class Conversation:
    """``turns`` is what the model is told of the chat so far, oldest first; none where the task is no dialogue."""

    def __init__(self, model: ChatModel, task: ChatTask):
        self.model = model
        self.task = task
        self.turns: list[Turn] = []

    def ask(self, question: str) -> Iterator[Piece]:
        """The reply to ``question``, piece by piece as it is written.

        A turn with an answer is remembered, as far as it came, even where the caller stops before the end.

        Raises:
            InputError: the question does not fit the model's context, or the memory of the GPU is full.
        """
        prompt, turns = self._fit(question)
        if dropped := len(self.turns) - len(turns):
            yield Piece("note", f"(the chat is longer than the model's context: it forgot the {_oldest(dropped)})")
        self.turns = turns
        reader, text = TagReader(), ""
        try:
            with closing(self.model.stream(prompt)) as chunks:
                for chunk in chunks:
                    text += chunk
                    yield from reader.feed(chunk)
        finally:
            if self.task.dialogue and (answer := self.task.answer(text)):
                self.turns = [*turns, (question, answer)]
        yield from reader.end()
        if self.model.cut_off:
            yield Piece("note", f"(cut off after {self.model.options.max_response_length} tokens)")
        yield from self.task.conclude(Reply(text, reader.plain.strip(), self.model.confidence, self.model.selector))

    def _fit(self, question: str) -> tuple[list[int], list[Turn]]:
        """The prompt's tokens and the turns in it: as many of the latest as fit beside the longest answer."""
        for first in range(len(self.turns) + 1):
            turns = self.turns[first:]
            prompt = self.model.prompt(self.task.messages(turns, question))
            if self.model.room is None or len(prompt) <= self.model.room:
                return prompt, turns
        raise InputError(
            f"the question takes {len(prompt)} tokens with its prompt, {self.model.name} has room for "
            f"{self.model.room} beside an answer; ask a shorter one, or lower --max_response_length"
        )


def _oldest(turns: int) -> str:
    return "oldest question" if turns == 1 else f"{turns} oldest questions"
