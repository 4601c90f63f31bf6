"""Chat messages for ECG questions, rendered from the templates in ``configs/prompts/ecg``."""

from collections.abc import Sequence
from pathlib import Path

import jinja2

PROMPT_DIR = Path(__file__).resolve().parent.parent.parent / "configs" / "prompts" / "ecg"
PROMPT_FILES = (PROMPT_DIR / "system.jinja", PROMPT_DIR / "user.jinja")


class ChatBuilder:
    """Turns a dialogue into chat messages: the system prompt, then question and answer in turn.

    With ``think`` the system prompt allows ``<think>...</think>`` before ``<answer>...</answer>``, and written answers
    stand in ``<answer>`` alone: the data has no reasoning to imitate, so that SFT teaches the form and RL the thought.
    """

    def __init__(self, think: bool = False):
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(PROMPT_DIR),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
            autoescape=False,
        )
        self.think = think
        self.system = environment.get_template("system.jinja").render(think=think).strip()
        self.user = environment.get_template("user.jinja")

    def messages(
        self, context: Sequence[tuple[str, str]], questions: Sequence[str], answers: Sequence[str]
    ) -> list[dict[str, str]]:
        """``[{"role", "content"}, ...]``: system, then user and assistant in turn.

        The first user message holds ``context``, (label, value) pairs. ``answers`` is as long as ``questions`` (a
        dialogue to imitate) or one shorter (a prompt, which ends in a question).
        """
        chat = [{"role": "system", "content": self.system}]
        for turn, question in enumerate(questions):
            rendered = self.user.render(context=() if turn else context, question=question).strip()
            chat.append({"role": "user", "content": rendered})
            if turn < len(answers):
                answer = f"<answer>{answers[turn]}</answer>" if self.think else answers[turn]
                chat.append({"role": "assistant", "content": answer})
        return chat
