"""Requests to servers that refuse some of the OpenAI chat protocol's parameters."""

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from data_prep.common.chat_template import chat_template_variables
from recipes.evaluation.chat_reply import says_context_is_full
from recipes.evaluation.server_connection import said
from recipes.evaluation.token_confidence import TOP_LOGPROBS

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

# How errors name the parameters. Plain words count in quotes only: a server may repeat the question.
_NAMED = {
    "chat_template_kwargs": r"chat_template_kwargs",
    "logprobs": r"logprobs",
    "max_tokens": r"max_tokens",
    "n": r"""['"`]n['"`]""",
    "seed": r"""['"`]seed['"`]""",
    "temperature": r"""['"`]temperature['"`]""",
}
# Left out one after the other where a server says that the request is bad, but not why.
_GUESSED = ("chat_template_kwargs", "logprobs", "n", "seed")


class ChatRequests:
    """Sends requests for ``model``. ``refused`` are the parameters that the server has answered without.

    ``max_tokens`` is the limit of a response. Models that refuse it, as OpenAI's reasoning models do, get it as
    ``max_completion_tokens``.
    """

    def __init__(self, model: str, max_tokens: int):
        self.refused: set[str] = set()
        self._model = model
        self._max_tokens = max_tokens
        self._answered = False

    async def send(
        self,
        client: "AsyncOpenAI",
        messages: list[dict[str, str]],
        temperature: float,
        seed: int,
        count: int = 1,
        logprobs: bool = False,
    ) -> bytes:
        """The body of the reply to a request for ``count`` responses, without the parameters that the server refuses.

        Raises ``openai.OpenAIError`` where the server fails, or refuses a request for another reason.
        """
        from openai import APIStatusError

        # The variables of the chat template are an addition of vLLM, SGLang and llama.cpp.
        parameters: dict[str, dict[str, Any]] = {
            "chat_template_kwargs": {"extra_body": {"chat_template_kwargs": chat_template_variables()}},
            "max_tokens": {"max_tokens": self._max_tokens},
            "seed": {"seed": seed},
            "temperature": {"temperature": temperature},
        }
        if count > 1:
            parameters["n"] = {"n": count}
        if logprobs:
            parameters["logprobs"] = {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        refused, limited = set(self.refused), True
        while True:
            arguments = {"max_completion_tokens": self._max_tokens} if limited and "max_tokens" in refused else {}
            for name in parameters.keys() - refused - (set() if limited else {"max_tokens"}):
                arguments |= parameters[name]
            try:
                reply = await client.chat.completions.with_raw_response.create(
                    model=self._model, messages=messages, **arguments
                )
            except APIStatusError as error:
                if limited and says_context_is_full(said(error)):
                    limited = False  # the prompt leaves less room than the limit: the response may fill it
                elif name := self._refused_by(error, parameters.keys() - refused):
                    refused.add(name)
                else:
                    raise
            else:
                self._answered = True
                self._note(refused)
                return reply.content

    def _refused_by(self, error: "APIStatusError", sent: set[str]) -> str | None:
        text = f"{said(error)} '{error.param}'"
        if re.search(
            r"""['"]messages['"]""", text
        ):  # an echo of the request names all parameters, and says nothing of any
            text = ""
        names: Iterator[str] = (name for name in _NAMED if name in sent and re.search(_NAMED[name], text))
        guesses: Iterator[str] = iter(())
        if error.status_code in (400, 422) and not self._answered:
            guesses = (name for name in _GUESSED if name in sent)
        return next(names, None) or next(guesses, None)

    def _note(self, refused: set[str]) -> None:
        for name in sorted(refused - self.refused):
            print(f"warning: the server refuses {name}; the questions are asked without", file=sys.stderr)
        self.refused |= refused
