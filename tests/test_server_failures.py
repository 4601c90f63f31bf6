"""Servers that fail in every way: no question ends the run, and a server that only fails does."""

import asyncio
import json
import socket

import pytest
from aiohttp import web
from chat_server import ChatServer, choice, completion, hangs, quickly, refusal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.common.errors import InputError
from recipes.evaluation import server as server_module
from recipes.evaluation import server_connection
from recipes.evaluation.generation import GenerationOptions, Response
from recipes.evaluation.server import MAX_FAILURES, SERVER_ERROR, ServerGenerator
from recipes.evaluation.server_connection import Server


async def closes(raw: web.Request) -> web.StreamResponse:
    raw.transport.close()
    return web.Response()


async def drips(raw: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(raw)
    for _ in range(600):
        await response.write(b" ")
        await asyncio.sleep(0.02)
    return response


async def ends_early(raw: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(raw)
    await response.write(b'{"choices": [')
    raw.transport.close()
    return response


NONSENSE = {
    "HTML": (
        lambda _: web.Response(text="<html>Bad <b>gateway</b></html>", content_type="text/html"),
        "no JSON: <html>",
    ),
    "an empty body": (lambda _: web.Response(), "the reply is no JSON"),
    "half of it": (lambda _: web.Response(text='{"choices": [{"mess'), 'no JSON: {"choices"'),
    "bytes": (lambda _: web.Response(body=b"\xff\xfe\x00\x1b[31m"), "the reply is no JSON"),
    "endless brackets": (lambda _: web.Response(text="[" * 100_000), "the reply is no JSON"),
    "a list": (lambda _: web.json_response([]), "the reply holds no answer: []"),
    "null": (lambda _: web.json_response(None), "the reply holds no answer: None"),
    "an error with status 200": (lambda _: web.json_response({"error": "busy"}), "no answer: {'error': 'busy'}"),
    "no choices": (lambda _: completion(), "the reply holds no answer"),
    "choices of another kind": (lambda _: completion(choices={"a": 1}), "the reply holds no answer"),
    "a choice that is none": (lambda _: completion("x"), "the reply holds no answer: x"),
    "no message": (lambda _: completion({"index": 0}), "the reply holds no answer"),
    "no content": (lambda _: completion(choice(None)), "the reply holds no text"),
    "content of another kind": (lambda _: completion(choice(None, content=[1])), "the reply holds no text"),
    "status 400": (lambda _: refusal("the policy forbids it"), "HTTP 400: the policy forbids it"),
    "status 403": (lambda _: refusal("flagged", 403), "HTTP 403: flagged"),
    "status 429": (lambda _: quickly(refusal("slow down", 429)), "HTTP 429: slow down"),
    "status 500": (lambda _: quickly(web.Response(text="<html>\x1b[31mOops", status=500)), r"HTTP 500: <html>\x1b[31m"),
    "a closed connection": (lambda _: closes, "the connection failed"),
    "a connection that is closed within the reply": (lambda _: ends_early, "the connection failed"),
    "silence": (lambda _: hangs, "no answer within 0.05 s"),
    "a reply that drips": (lambda _: drips, "no answer within 0.05 s"),
}


@pytest.fixture
def no_retries(monkeypatch):
    """The package waits for seconds before it asks again after a lost connection, and no server can shorten that."""
    monkeypatch.setattr(server_connection, "MAX_RETRIES", 0)
    monkeypatch.setattr(server_module, "MAX_RETRIES", 0)


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_costs_its_question_and_one_line(server, generate, capsys, no_retries, nonsense):
    respond, cause = NONSENSE[nonsense]
    server.respond = lambda request: (
        respond(request) if "bad" in request["messages"][0]["content"] else completion(choice("x"))
    )
    timeout_s = 0.05 if "0.05" in cause else 10.0
    generate_all = {"server_options": {"timeout_s": timeout_s, "concurrency": 1}}
    responses = generate("a", "bad 1", "b", "bad 2", **generate_all)
    assert [response.text for response in responses] == ["x", "", "x", ""]
    assert [response.finish_reason for response in responses] == ["stop", SERVER_ERROR] * 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(lines) == 1 and lines[0].startswith("warning: 2 of 4 questions got no answer, and count as wrong: ")
    assert cause in lines[0]
    assert lines[0].isprintable() and len(lines[0]) < 400
    assert generate.generator.cost["questions_failed"] == 2


def test_a_line_for_each_cause(server, generate, capsys):
    def respond(request):
        text = request["messages"][0]["content"]
        return {"a": refusal("one", 403), "b": refusal("two", 403), "c": web.Response(text="?")}.get(
            text, completion(choice("x"))
        )

    server.respond = respond
    generate("a", "b", "c", "d")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert [line.split("questions")[0] for line in lines] == ["warning: 2 of 4 ", "warning: 1 of 4 "]


def test_a_failure_that_passes_is_tried_again(server, generate):
    def respond(request):
        return quickly(refusal("busy", 503)) if len(server.requests) < 3 else completion(choice("x"))

    server.respond = respond
    assert generate("a") == [Response("x", 7, "stop")]
    assert len(server.requests) == 3


def test_a_broken_server_ends_the_run_and_the_answers_stay(server, generate, tmp_path):
    server.respond = lambda request: (
        completion(choice("x")) if len(server.requests) <= 3 else refusal("out of memory", 403)
    )
    texts = [str(number) for number in range(50)]
    with pytest.raises(InputError) as raised:
        generate(*texts, server_options={"concurrency": 1})
    (file,) = (tmp_path / "answers").iterdir()
    assert str(raised.value) == (
        f"{server.url} failed on {MAX_FAILURES} questions in a row, at last with HTTP 403: out of memory; "
        f"3 answers are in {file}, and the same command goes on from there"
    )
    assert len(server.requests) == 3 + MAX_FAILURES
    server.respond = lambda request: completion(choice("y"))
    assert [response.text for response in generate(*texts)] == [*"xxx", *["y"] * 47]


def test_an_answer_between_failures_lets_the_run_go_on(server, generate):
    server.respond = lambda request: (
        completion(choice("x")) if len(server.requests) % MAX_FAILURES == 0 else refusal("no", 403)
    )
    responses = generate(*map(str, range(3 * MAX_FAILURES)), server_options={"concurrency": 1})
    assert [response.text for response in responses].count("x") == 3


def test_a_server_that_always_fails_ends_the_run(server, generate, tmp_path):
    server.respond = lambda request: refusal("no", 403)
    with pytest.raises(InputError, match="answered none of 3 questions: HTTP 403: no"):
        generate("a", "b", "c")
    with pytest.raises(InputError, match=f"failed on {MAX_FAILURES} questions in a row.*; nothing was answered"):
        generate(*map(str, range(100)))
    assert not (tmp_path / "answers").exists()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters()),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "choices",
                            "message",
                            "content",
                            "usage",
                            "logprobs",
                            "top_logprobs",
                            "logprob",
                            "error",
                            "finish_reason",
                            "reasoning_content",
                            "completion_tokens",
                            "prompt_tokens_details",
                        ]  # fmt: skip
                    ),
                    inner,
                    max_size=4,
                )
            ),
        ).map(lambda content: json.dumps(content).encode()),
    )
)
def test_no_reply_raises_anything_else(server, generate, body):
    server.respond = lambda request: (
        web.Response(body=body) if request["messages"][0]["content"] == "bad" else completion(choice("x"))
    )
    good, response = generate("good", "bad")
    generate.generator.finish()
    assert good.text == "x"
    assert isinstance(response.text, str) and isinstance(response.tokens, int)
    json.dumps(response.text).encode()


# Access


def test_no_server_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but nothing listens
        url = "http://127.0.0.1:{1}/v1".format(*taken.getsockname())
        with pytest.raises(InputError, match=f"no server answers at {url} .*; start it, or check --server"):
            ServerGenerator(GenerationOptions("m"), Server(url), tmp_path)


def test_a_refused_key_ends_the_run_at_once(server, generate):
    server.models_reply = refusal("bad key", 401)
    with pytest.raises(InputError, match=r"refuses the key \(bad key\); set OPENAI_API_KEY"):
        generate("a")
    server.models_reply = None
    server.respond = lambda request: refusal("expired", 401)
    with pytest.raises(InputError, match=r"refuses the key \(expired\)"):
        generate(*map(str, range(30)), server_options={"concurrency": 1})
    assert len(server.requests) == 1


def test_a_key_that_the_server_repeats_is_not_shown(server, generate, monkeypatch, capsys):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server.respond = lambda request: refusal("bad request with Bearer sk-secret", 400)
    with pytest.raises(InputError, match=r"Bearer \*\*\*") as raised:
        generate("a")
    assert "sk-secret" not in str(raised.value) + capsys.readouterr().err


def test_a_wrong_model_name_names_the_models(server, generate):
    server.models = [f"model-{number}" for number in range(30)]
    server.respond = lambda request: refusal("The model `org/model` does not exist.", 404)
    with pytest.raises(
        InputError, match=r"does not exist; check --model_name and --server \(its models: model-0, .*model-9, \.\.\.\)"
    ):
        generate("a", "b")


def test_an_address_without_the_protocol(server, generate, tmp_path):
    generator = ServerGenerator(GenerationOptions("m"), Server(server.url.removesuffix("/v1")), tmp_path)
    with pytest.raises(InputError, match="most addresses end in /v1"):
        generator([[{"role": "user", "content": "a"}]])


def test_a_redirect_is_not_followed(server, generate):
    elsewhere = ChatServer()
    try:
        redirect = web.Response(status=307, headers={"Location": f"{elsewhere.url}/chat/completions"})
        server.respond = lambda request: web.Response(status=307, headers=redirect.headers)
        with pytest.raises(
            InputError, match=f"redirects to {elsewhere.url}/chat/completions; redirects are not followed"
        ):
            generate("a")
        server.models_reply = redirect
        with pytest.raises(InputError, match="redirects are not followed"):
            generate("a")
        assert elsewhere.requests == []
    finally:
        elsewhere.stop()


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_proxy_of_the_environment_gets_nothing(server, generate, monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens: what went there would fail
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert generate("a") == [Response("SELECT 1", 7, "stop")]
    with pytest.raises(InputError, match="no server answers"):
        generate("b", server_options={"allow_remote": True})


def test_local_servers_need_no_key(server, generate):
    generate("a")
    assert server.headers[0]["Authorization"] == "Bearer EMPTY"
