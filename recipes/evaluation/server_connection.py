"""The connection to a server that speaks the OpenAI chat protocol, by the ``openai`` package."""

import asyncio
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data_prep.common.errors import InputError
from recipes.evaluation.chat_reply import KEY, ServerFailure, one_line
from recipes.evaluation.server_address import check_address

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

MAX_RETRIES = 4  # of a request, by the package: lost connections, time limits, 408, 409, 429 and 5xx
PROBE_S = 30.0  # for the list of models
SHOWN_MODELS = 10


@dataclass(frozen=True)
class Server:
    """A server and how it is asked: ``concurrency`` requests at a time, each with ``timeout_s`` seconds.

    Raises:
        InputError: ``url`` is no plain address, or leads out of the private networks without ``allow_remote``.
    """

    url: str
    concurrency: int = 8
    timeout_s: float = 600.0
    allow_remote: bool = False

    def __post_init__(self):
        check_address(self.url, self.allow_remote)

    def client(self, **options: Any) -> "AsyncOpenAI":
        """A client with the key in ``OPENAI_API_KEY``. Most local servers read none, but the package wants one."""
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient  # takes a second to import

        key = os.environ.get(KEY, "").strip() or "EMPTY"
        if not (key.isascii() and key.isprintable()):
            raise InputError(f"{KEY} holds characters that no key has; set it again")
        # A redirect, or a proxy that the environment names, would carry the questions to another machine.
        http_client = DefaultAsyncHttpxClient(follow_redirects=False, trust_env=self.allow_remote)
        options = {"timeout": self.timeout_s, "max_retries": MAX_RETRIES} | options
        return AsyncOpenAI(base_url=self.url, api_key=key, http_client=http_client, **options)

    def models(self) -> list[str]:
        """The models that the server lists; empty where it has no list.

        Raises:
            InputError: no server answers, or the server refuses the key or redirects.
        """
        return asyncio.run(self._models())

    async def _models(self) -> list[str]:
        from openai import APIConnectionError, APIStatusError

        async with self.client(timeout=min(self.timeout_s, PROBE_S), max_retries=0) as client:
            try:
                reply = await client.models.with_raw_response.list()
                return [model["id"] for model in json.loads(reply.content)["data"] if isinstance(model["id"], str)]
            except APIConnectionError as error:
                reason = one_line(error.__cause__ or error)
                raise InputError(f"no server answers at {self.url} ({reason}); start it, or check --server") from error
            except APIStatusError as error:
                self.check_access(error)
                return []
            except (ValueError, TypeError, KeyError, RecursionError):  # no list
                return []

    def check_access(self, error: "APIStatusError") -> None:
        """Raise an ``InputError`` if every request will end as this one did: the key is wrong, or the address."""
        if error.status_code == 401:
            raise InputError(f"{self.url} refuses the key ({one_line(said(error))}); set {KEY}") from error
        if 300 <= error.status_code < 400:
            target = one_line(error.response.headers.get("location", "nowhere"))
            raise InputError(f"{self.url} redirects to {target}; redirects are not followed: check --server") from error

    def check_model(self, error: "APIStatusError", models: list[str]) -> None:
        """Raise an ``InputError`` that names the server's ``models`` if ``error`` is that there is no such model."""
        if error.status_code == 404:
            listed = ", ".join(models[:SHOWN_MODELS]) + (", ..." if len(models) > SHOWN_MODELS else "")
            listed = f"its models: {one_line(listed)}" if listed else "most addresses end in /v1"
            reason = one_line(said(error)).rstrip(".") or "HTTP 404"
            raise InputError(f"{self.url}: {reason}; check --model_name and --server ({listed})") from error

    def failure(self, error: Exception) -> ServerFailure:
        """What ``error``, of the package or of ``asyncio.timeout``, means to the reader."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(error, ServerFailure):
            return error
        if isinstance(error, TimeoutError | APITimeoutError):
            return ServerFailure(f"no answer within {self.timeout_s:g} s")
        if isinstance(error, APIStatusError):
            return ServerFailure(f"HTTP {error.status_code}", said(error))
        if isinstance(error, APIConnectionError):
            return ServerFailure("the connection failed", error.__cause__ or error)
        return ServerFailure(type(error).__name__, error)


def said(error: "APIStatusError") -> str:
    """What a server wrote with an error status."""
    body = error.body
    return str((body.get("message") or body) if isinstance(body, dict) else body or "")
