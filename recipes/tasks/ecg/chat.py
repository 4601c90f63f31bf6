"""A chat about ECGs: a dialogue, with the prompts of training."""

import argparse
from collections.abc import Iterator

from data_prep.common.printable import printable
from data_prep.ecg.prompts import ChatBuilder
from recipes.chat_app.tasks import Reply, Turn
from recipes.chat_app.text import Piece
from recipes.tasks.ecg.pipeline import Ecg


def add_options(parser: argparse.ArgumentParser) -> None:
    """It has none of its own."""


def make_task(args: argparse.Namespace, run: Ecg) -> "EcgTask":
    return EcgTask(args.think or run.think)


class EcgTask:
    """ECG questions and answers: a dialogue. With ``think`` the system prompt allows reasoning."""

    dialogue = True

    def __init__(self, think: bool):
        from reward_fns.ecg import extract_answer  # takes seconds to import

        self._builder = ChatBuilder(think)
        self._extract = extract_answer

    def messages(self, turns: list[Turn], question: str) -> list[dict[str, str]]:
        questions = [*(asked for asked, _ in turns), question]
        return self._builder.messages((), questions, [answer for _, answer in turns])

    def answer(self, text: str) -> str:
        return self._extract(text)[0]

    def conclude(self, reply: Reply) -> Iterator[Piece]:
        answer = self.answer(reply.text)
        if not answer:
            yield Piece("error", "no answer in the text")
        elif printable(answer) != reply.shown:
            yield Piece("answer", answer)
