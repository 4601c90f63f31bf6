"""Responses to chat prompts by a server that speaks the OpenAI chat protocol: vLLM, llama.cpp, Ollama, hosted ones."""

import asyncio
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from data_prep.common.errors import InputError
from recipes.evaluation.answer_log import Answer, AnswerLog
from recipes.evaluation.chat_reply import ServerFailure, Usage, read_reply, says_context_is_full
from recipes.evaluation.generation import TOO_LONG, GenerationOptions, Response
from recipes.evaluation.server_connection import MAX_RETRIES, Server
from recipes.evaluation.server_request import ChatRequests

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Messages = list[dict[str, str]]

SERVER_ERROR = "server_error"
MAX_FAILURES = 20  # in a row: then the server is taken for broken


class ServerGenerator:
    """Called like ``Generator``. The server applies the chat template, and its defaults for other sampling options.

    A parameter that the server refuses is left out, with a warning. Without log-probabilities a response has no
    ``confidence``. Reasoning that the server separates from the answer is put back (``chat_reply.read_reply``).

    Each prompt has a seed of its own, drawn from ``options.seed``: equal seeds share their noise.

    Answers are kept in a file in ``folder`` as they come. The same call after a break asks for the others only.
    ``finish`` removes the file. ``cost`` says what the answers took.

    Raises:
        InputError: no server answers, or the server refuses the key or redirects.
    """

    def __init__(self, options: GenerationOptions, server: Server, folder: Path):
        if options.samples > 1 and options.temperature == 0:
            raise InputError(f"{options.samples} greedy responses to a prompt are equal; give a temperature above 0")
        self.options = options
        self.server = server
        self.models = server.models()
        offline = ("dtype", "gpu_memory_utilization", "tensor_parallel_size", "data_parallel_size")
        settings = {name: value for name, value in asdict(options).items() if name not in offline}
        self.log = AnswerLog(folder / f"answers_{_digest(server.url, settings)[:16]}.partial.jsonl")
        self.cost: dict[str, Any] = {}
        self._requests = ChatRequests(options.model_name, options.max_response_length)
        self._answers: dict[str, Answer] = {}
        self._failures: dict[str, ServerFailure] = {}
        self._failed_in_a_row = 0

    def __call__(self, prompts: Sequence[Messages]) -> list[Response]:
        """``samples`` responses a prompt, in the order of ``prompts``.

        A prompt that fills the model's context, and one on which the server fails, get an empty response with
        ``finish_reason`` ``TOO_LONG`` or ``SERVER_ERROR``. Each cause is counted on stderr.

        Raises:
            InputError: the server refuses the key or the model, or fails ``MAX_FAILURES`` times in a row or always.
        """
        self._failures, self._failed_in_a_row = {}, 0
        prompts = dict(zip(_keys(prompts), prompts, strict=True))
        self._answers = {key: answer for key, answer in self.log.read().items() if key in prompts}
        known = len(self._answers)
        if known:
            _say(f"{self.log.path} holds {known:,} of {len(prompts):,} answers; asking for the others")
        if waiting := {key: messages for key, messages in prompts.items() if key not in self._answers}:
            asyncio.run(self._answer_all(waiting))
        self._report_failures(len(prompts))
        self._sum_cost(known)
        return [response for key in prompts for response in self._responses(key)]

    def finish(self) -> None:
        """To call when the results are on disk: the file of answers is no longer needed."""
        self.log.remove()

    def _responses(self, key: str) -> Sequence[Response]:
        if key in self._answers:
            return self._answers[key].responses
        reason = TOO_LONG if says_context_is_full(self._failures[key].text) else SERVER_ERROR
        return [Response("", 0, reason)] * self.options.samples

    async def _answer_all(self, prompts: dict[str, Messages]) -> None:
        waiting = iter(prompts.items())
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("Asking the server", total=len(prompts))

            async def work(client: "AsyncOpenAI") -> None:
                for key, messages in waiting:
                    await self._answer(client, key, messages)
                    progress.advance(task)

            try:
                async with self.server.client() as client, asyncio.TaskGroup() as workers:
                    for _ in range(self.server.concurrency):
                        workers.create_task(work(client))
            except ExceptionGroup as group:  # what ended one worker ends the run
                raise group.exceptions[0] from None

    async def _answer(self, client: "AsyncOpenAI", key: str, messages: Messages) -> None:
        """Ask for all that is wanted of one prompt, and keep it."""
        from openai import OpenAIError

        options, seed = self.options, int(_digest(self.options.seed, key)[:7], 16)
        started = time.monotonic()
        try:
            responses, usage = await self._ask(
                client, messages, options.samples, seed, temperature=options.temperature, logprobs=True
            )
            if options.further:
                further, more = await self._ask(
                    client, messages, options.further, seed + options.samples, temperature=options.further_temperature
                )
                responses = [replace(response, further=tuple(further)) for response in responses]
                usage += more
        except (OpenAIError, TimeoutError, ServerFailure) as error:
            self._note_failure(key, error)
            return
        self._failed_in_a_row = 0
        self._answers[key] = Answer(tuple(responses), usage, round(time.monotonic() - started, 3))
        self.log.append(key, self._answers[key])

    async def _ask(
        self, client: "AsyncOpenAI", messages: Messages, count: int, seed: int, **options: Any
    ) -> tuple[list[Response], Usage]:
        """``count`` responses: by several requests, where the server gives fewer than it is asked for."""
        responses, usage = [], Usage()
        while (have := len(responses)) < count:
            # The package limits the silence between two bytes. This also ends a reply that drips.
            async with asyncio.timeout(self.server.timeout_s * (MAX_RETRIES + 1)):
                reply = await self._requests.send(client, messages, count=count - have, seed=seed + have, **options)
            some, tokens = read_reply(reply)
            responses += some
            usage += tokens
        return responses[:count], usage

    def _note_failure(self, key: str, error: Exception) -> None:
        """Raises an ``InputError`` if asking further makes no sense."""
        from openai import APIStatusError

        if isinstance(error, APIStatusError):
            self.server.check_access(error)
            self.server.check_model(error, self.models)
        failure = self._failures[key] = self.server.failure(error)
        if says_context_is_full(failure.text):
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row == MAX_FAILURES:
            kept = f"{len(self._answers):,} answers are in {self.log.path}, and the same command goes on from there"
            raise InputError(
                f"{self.server.url} failed on {MAX_FAILURES} questions in a row, at last with {failure.text}; "
                f"{kept if self._answers else 'nothing was answered'}"
            )

    def _report_failures(self, total: int) -> None:
        """A line for each cause.

        Raises:
            InputError: there is no answer at all.
        """
        causes = Counter(failure.kind for failure in self._failures.values())
        examples = {failure.kind: failure.text for failure in self._failures.values()}
        for kind, count in causes.most_common():
            if not self._answers:
                raise InputError(f"{self.server.url} answered none of {total:,} questions: {examples[kind]}")
            _say(f"warning: {count:,} of {total:,} questions got no answer, and count as wrong: {examples[kind]}")

    def _sum_cost(self, known: int) -> None:
        answers = self._answers.values()
        usage = reduce(add, (answer.usage for answer in answers), Usage())
        self.cost = {
            "answers": len(answers),
            "answers_of_earlier_starts": known,
            "questions_failed": len(self._failures),
            **asdict(usage),
            "request_seconds": round(sum(answer.seconds for answer in answers), 1),
            "refused_parameters": sorted(self._requests.refused),
        }
        _say(
            f"{self.options.model_name}: {len(answers):,} answers, {usage.prompt_tokens:,} prompt tokens "
            f"({usage.cached_tokens:,} of them cached), {usage.completion_tokens:,} completion tokens, "
            f"{self.cost['request_seconds']:,.1f} s of requests"
        )


def _keys(prompts: Sequence[Messages]) -> list[str]:
    """A key for each prompt; equal prompts have different ones."""
    seen: Counter[str] = Counter()
    keys = []
    for messages in prompts:
        digest = _digest(messages)
        keys.append(f"{digest}-{seen[digest]}")
        seen[digest] += 1
    return keys


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _say(line: str) -> None:
    print(line, file=sys.stderr)
