"""What a server that speaks the OpenAI chat protocol replies, read into responses. Servers write nonsense at times."""

import json
import math
import os
import re
from dataclasses import dataclass
from typing import Any

from data_prep.common.printable import printable
from recipes.evaluation.generation import Response
from recipes.evaluation.token_confidence import TOP_LOGPROBS, TokenConfidence, token_confidence

SHOWN_CHARS = 200
KEY = "OPENAI_API_KEY"
FINISH_REASONS = {"model_length": "length", "max_tokens": "length"}  # other servers' words for the protocol's
_CONTEXT_FULL = re.compile(r"context[ _-]?(length|size|window)", re.IGNORECASE)


class ServerFailure(Exception):
    """Why a prompt got no answer. ``kind`` is the same for all failures of one cause, ``text`` a line on this one."""

    def __init__(self, kind: str, detail: Any = ""):
        self.kind = kind
        self.text = f"{kind}: {shown}" if (shown := one_line(detail)) else kind
        super().__init__(self.text)


def says_context_is_full(text: str) -> bool:
    """Whether a server's error says that prompt and response do not fit into the model's context."""
    return bool(_CONTEXT_FULL.search(text))


@dataclass(frozen=True)
class Usage:
    """Tokens that a server counted. ``cached_tokens`` are those of the prompts that it had read before."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


def one_line(text: Any) -> str:
    """What a server wrote, in at most ``SHOWN_CHARS`` characters that a terminal may show, without the key."""
    line = printable(" ".join(str(text).split()))
    if key := os.environ.get(KEY, "").strip():
        line = line.replace(key, "***")
    return line if len(line) <= SHOWN_CHARS else f"{line[:SHOWN_CHARS]}..."


def read_reply(content: bytes) -> tuple[list[Response], Usage]:
    """The responses in the body of a reply, at least one, and their usage.

    Servers that separate a model's reasoning from its answer send it as ``reasoning_content`` or ``reasoning``. It is
    put back as ``<think>...</think>`` before the answer: graders read a text as the model wrote it. The block of a
    response that was cut off while it reasoned stays open, as it is in the text of the offline engine.

    ``tokens`` of a response is its share of the usage, since a server counts all responses together.

    Raises:
        ServerFailure: the body is no JSON, or holds no answer.
    """
    try:
        reply = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ServerFailure("the reply is no JSON", content[:SHOWN_CHARS].decode(errors="replace")) from error
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices:
        raise ServerFailure("the reply holds no answer", reply)
    usage = _usage(reply.get("usage"))
    return [_response(choice, usage.completion_tokens // len(choices)) for choice in choices], usage


def _response(choice: Any, tokens: int) -> Response:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise ServerFailure("the reply holds no answer", choice)
    text, reason = message.get("content"), choice.get("finish_reason")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if text is None and (reasoning or reason == "content_filter"):
        text = ""
    if not isinstance(text, str):
        raise ServerFailure("the reply holds no text", message)
    if isinstance(reasoning, str):
        text = f"<think>{reasoning}" if reason == "length" and not text else f"<think>{reasoning}</think>{text}"
    return Response(
        text=text.encode(errors="replace").decode(),  # JSON can hold half a character, files cannot
        tokens=tokens,
        finish_reason=FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else "unknown",
        confidence=_confidence(choice.get("logprobs")),
    )


def _confidence(logprobs: Any) -> TokenConfidence | None:
    """None where the server gave no log-probabilities, or none that can be."""
    try:
        return token_confidence(
            [
                (_logprob(token), sorted(map(_logprob, token["top_logprobs"]), reverse=True)[:TOP_LOGPROBS])
                for token in logprobs["content"]
            ]
        )
    except (TypeError, KeyError, ValueError):
        return None


def _logprob(token: dict[str, Any]) -> float:
    if not -math.inf < token["logprob"] <= 1e-3:  # a rounded 0 may lie above 0
        raise ValueError(f"no log-probability: {token['logprob']}")
    return min(float(token["logprob"]), 0.0)


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(*(_count(value) for value in (usage.get("prompt_tokens"), usage.get("completion_tokens"), cached)))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
