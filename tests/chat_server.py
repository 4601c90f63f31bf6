"""A server in this process that speaks the OpenAI chat protocol, and misbehaves as a test wants."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from aiohttp import web

LOGPROBS = (-0.25, -1.5)


def choice(text: str | None, finish_reason: str | None = "stop", **message: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text} | message
    return {"index": 0, "message": message, "finish_reason": finish_reason}


def completion(*choices: dict[str, Any], tokens: int = 7, **reply: Any) -> web.Response:
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": tokens * len(choices),
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    return web.json_response({"object": "chat.completion", "choices": list(choices), "usage": usage} | reply)


def refusal(message: str, status: int = 400, **error: Any) -> web.Response:
    return web.json_response({"error": {"message": message, "type": "invalid_request_error"} | error}, status=status)


def quickly(response: web.Response) -> web.Response:
    """The client waits half a second and more before it tries again, unless the server names a time."""
    response.headers["retry-after-ms"] = "1"
    return response


async def hangs(raw: web.Request) -> web.StreamResponse:
    """A reply that does not come."""
    await asyncio.sleep(60)
    return web.Response()


class ChatServer:
    """``respond`` makes the reply to a request's JSON: a response, or a coroutine of the raw request.

    ``requests`` are the requests for chat, in their order. ``models`` is what the server lists, None for no list.
    """

    def __init__(self):
        self.reset()
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)

    def reset(self) -> None:
        self.respond: Callable[[dict[str, Any]], Any] = lambda request: completion(choice("SELECT 1"))
        self.models: list[str] | None = ["org/model"]
        self.models_reply: web.Response | None = None
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Any] = []
        self.running = self.most_running = 0

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._list)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://127.0.0.1:{1}/v1".format(*self._runner.addresses[0])

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if self.models_reply is not None:
            return web.Response(
                status=self.models_reply.status, body=self.models_reply.body, headers=self.models_reply.headers
            )
        if self.models is None:
            raise web.HTTPNotFound
        return web.json_response({"object": "list", "data": [{"id": id, "object": "model"} for id in self.models]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        content = await request.json()
        self.requests.append(content)
        self.headers.append(request.headers)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            reply = self.respond(content)
            return reply if isinstance(reply, web.StreamResponse) else await reply(request)
        finally:
            self.running -= 1
