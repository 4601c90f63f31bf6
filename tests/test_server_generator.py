"""What ``recipes.evaluation.server`` asks a server, and how it reads the replies."""

import asyncio
import json
import math

import pytest
from chat_server import choice, completion, quickly, refusal

from data_prep.common.errors import InputError
from recipes.evaluation.generation import TOO_LONG, Response
from recipes.evaluation.server import MAX_FAILURES, SERVER_ERROR


def test_a_request_has_the_options_and_a_response_what_the_server_says(server, generate):
    server.respond = lambda request: completion(choice("SELECT 1", "length"), tokens=5)
    assert generate("How many?", max_response_length=64, temperature=0.5) == [Response("SELECT 1", 5, "length")]
    (request,) = server.requests
    seed = request.pop("seed")
    assert isinstance(seed, int) and 0 <= seed < 2**31
    assert request == {
        "model": "org/model",
        "messages": [{"role": "user", "content": "How many?"}],
        "max_tokens": 64,
        "temperature": 0.5,
        "logprobs": True,
        "top_logprobs": 20,
        "chat_template_kwargs": {"date_string": "26 Jul 2024"},  # as in training
    }


def test_prompts_have_seeds_of_their_own_that_do_not_change(server, generate):
    generate("a", "b", "a")
    seeds = {index: request["seed"] for index, request in enumerate(server.requests)}
    assert len(set(seeds.values())) == 3  # the equal prompts too
    generate.generator.finish()
    generate("a", "b", "a")
    assert sorted(request["seed"] for request in server.requests[3:]) == sorted(seeds.values())
    generate("a", "b", "a", seed=1)
    assert not {request["seed"] for request in server.requests[6:]} & set(seeds.values())


def test_answers_come_in_the_order_of_the_prompts(server, generate):
    async def respond(raw):
        text = (await raw.json())["messages"][0]["content"]
        await asyncio.sleep(0.05 if text == "0" else 0)
        return completion(choice(f"answer {text}"))

    server.respond = lambda request: respond
    responses = generate(*map(str, range(20)))
    assert [response.text for response in responses] == [f"answer {number}" for number in range(20)]


def test_no_more_requests_at_a_time_than_asked_for(server, generate):
    async def respond(raw):
        await asyncio.sleep(0.02)
        return completion(choice("x"))

    server.respond = lambda request: respond
    generate(*map(str, range(12)), server_options={"concurrency": 3})
    assert server.most_running == 3


def test_token_confidences_from_log_probabilities(server, generate):
    tokens = [
        {"token": "a", "logprob": -0.25, "top_logprobs": [{"token": "a", "logprob": -0.25}]},
        {
            "token": "b",
            "logprob": -1.5,
            "top_logprobs": [{"token": t, "logprob": p} for t, p in (("c", -2), ("b", -1.5))],
        },
    ]
    server.respond = lambda request: completion(choice("ab") | {"logprobs": {"content": tokens}})
    (response,) = generate("?")

    def entropy(*logprobs):
        shares = [math.exp(logprob) for logprob in logprobs]
        return -sum(share * math.log(share) for share in (*shares, 1 - sum(shares)))

    entropies = entropy(-0.25), entropy(-1.5, -2)
    confidence = response.confidence
    assert (confidence.logprob_mean, confidence.logprob_min) == (pytest.approx(-0.875), -1.5)
    assert (confidence.entropy_mean, confidence.entropy_max) == (pytest.approx(sum(entropies) / 2), max(entropies))


@pytest.mark.parametrize(
    "logprobs",
    [
        *(None, [], {}, {"content": None}, {"content": []}, {"content": [None]}, {"content": "abc"}),
        *(
            {"content": [{"token": "a", "logprob": value, "top_logprobs": []}]}
            for value in (None, "x", 3, float("nan"))
        ),
        {"content": [{"token": "a", "logprob": -1, "top_logprobs": None}]},
        {"content": [{"token": "a", "logprob": -1}]},
        {"content": [{"token": "a", "logprob": -float("inf"), "top_logprobs": []}]},
    ],
)
def test_without_usable_log_probabilities_there_is_no_confidence(server, generate, logprobs):
    server.respond = lambda request: completion(choice("ab") | {"logprobs": logprobs})
    assert generate("?") == [Response("ab", 7, "stop")]


@pytest.mark.parametrize(
    ("message", "finish_reason", "text"),
    [
        ({"content": "SELECT 1", "reasoning_content": "Hm."}, "stop", "<think>Hm.</think>SELECT 1"),
        ({"content": "SELECT 1", "reasoning": "Hm."}, "stop", "<think>Hm.</think>SELECT 1"),
        ({"content": None, "reasoning_content": "Hm."}, "length", "<think>Hm."),
        ({"content": "", "reasoning_content": "Hm."}, "length", "<think>Hm."),
        ({"content": "SELEC", "reasoning_content": "Hm."}, "length", "<think>Hm.</think>SELEC"),
        ({"content": "SELECT 1", "reasoning_content": None}, "stop", "SELECT 1"),
        ({"content": "SELECT 1", "reasoning_content": ""}, "stop", "SELECT 1"),
        ({"content": None}, "content_filter", ""),
        ({"content": ""}, "stop", ""),
        ({"content": "half \ud83d a character"}, "stop", "half ? a character"),
    ],
)
def test_reasoning_is_put_back_where_the_grader_looks_for_it(server, generate, message, finish_reason, text):
    server.respond = lambda request: completion(choice(None, finish_reason, **message))
    (response,) = generate("?")
    assert (response.text, response.finish_reason) == (text, finish_reason)


@pytest.mark.parametrize(
    ("reason", "expected"), [("model_length", "length"), ("max_tokens", "length"), ("eos", "eos"), (None, "unknown")]
)
def test_words_of_other_servers_for_the_end(server, generate, reason, expected):
    server.respond = lambda request: completion(choice("x", reason))
    assert generate("?")[0].finish_reason == expected


def numbered(server, count: int | None = None):
    """A server that gives as many answers as it is asked for, or ``count``; each text is another one."""
    given = iter(range(1000))

    def respond(request):
        return completion(*(choice(f"answer {next(given)}") for _ in range(count or request.get("n", 1))))

    server.respond = respond


def test_further_answers_come_in_one_request(server, generate):
    numbered(server)
    (response,) = generate("?", further=4, further_temperature=0.7)
    assert [response.text, *(answer.text for answer in response.further)] == [f"answer {i}" for i in range(5)]
    first, second = server.requests
    assert "n" not in first and "logprobs" in first and first["temperature"] == 0
    assert second["n"] == 4 and "logprobs" not in second and second["temperature"] == 0.7
    assert first["seed"] != second["seed"]
    assert generate.generator.cost["completion_tokens"] == 35


@pytest.mark.parametrize("given", [1, 3])
def test_a_server_that_gives_fewer_is_asked_again_with_other_seeds(server, generate, given):
    numbered(server, given)
    (response,) = generate("?", further=4)
    assert len({answer.text for answer in response.further}) == 4
    requests = server.requests[1:]
    assert len(requests) == math.ceil(4 / given)
    assert len({request["seed"] for request in requests}) == len(requests)


def test_samples(server, generate):
    numbered(server)
    assert [response.text for response in generate("a", samples=3, temperature=1.0)] == [
        f"answer {i}" for i in range(3)
    ]
    with pytest.raises(InputError, match="greedy responses to a prompt are equal"):
        generate("a", samples=2)


def test_what_a_run_cost(server, generate, capsys):
    generate("a", "b")
    cost = generate.generator.cost
    assert cost.pop("request_seconds") >= 0
    assert cost == {
        **{"answers": 2, "answers_of_earlier_starts": 0, "questions_failed": 0, "refused_parameters": []},
        **{"prompt_tokens": 20, "completion_tokens": 14, "cached_tokens": 8},
    }
    assert "2 answers, 20 prompt tokens (8 of them cached), 14 completion tokens" in capsys.readouterr().err


@pytest.mark.parametrize("usage", [None, [], {}, {"prompt_tokens": "many"}, {"prompt_tokens_details": 3}])
def test_a_server_that_counts_no_tokens(server, generate, usage):
    server.respond = lambda request: completion(choice("x"), usage=usage)
    assert generate("?") == [Response("x", 0, "stop")]


# Parameters that a server refuses


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("logprobs", "This model does not support top_logprobs"),
        ("seed", 'Unknown name "seed": Cannot find field.'),
        ("temperature", "Unsupported value: 'temperature' does not support 0 with this model."),
        ("chat_template_kwargs", "Unrecognized request argument supplied: chat_template_kwargs"),
    ],
)
@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_parameter_that_the_server_refuses_is_left_out(server, generate, capsys, name, message, status):
    def respond(request):
        return quickly(refusal(message, status)) if name in request else completion(choice("x"))

    server.respond = respond
    assert [response.text for response in generate("a", "b", server_options={"concurrency": 1})] == ["x", "x"]
    assert capsys.readouterr().err.count(f"warning: the server refuses {name};") == 1
    assert generate.generator.cost["refused_parameters"] == [name]
    assert name not in server.requests[-1]
    refused = [request for request in server.requests if name in request]
    assert len({request["messages"][0]["content"] for request in refused}) == 1  # the second question knows


def test_the_parameter_that_the_error_names_apart(server, generate):
    def respond(request):
        return refusal("Unsupported value", param="seed") if "seed" in request else completion(choice("x"))

    server.respond = respond
    generate("a")
    assert generate.generator.cost["refused_parameters"] == ["seed"]


def test_a_server_that_refuses_log_probabilities_without_saying_so(server, generate):
    server.respond = lambda request: refusal("Bad request") if "logprobs" in request else completion(choice("x"))
    assert generate("a") == [Response("x", 7, "stop")]


def test_a_server_that_refuses_n(server, generate):
    server.respond = lambda request: refusal("'n' must be 1") if "n" in request else completion(choice("x"))
    (response,) = generate("a", further=3)
    assert len(response.further) == 3


def test_a_reasoning_model_takes_another_name_for_the_limit(server, generate):
    said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    server.respond = lambda request: refusal(said) if "max_tokens" in request else completion(choice("x"))
    generate("a", max_response_length=33)
    assert server.requests[-1]["max_completion_tokens"] == 33


def test_a_question_about_the_temperature_costs_no_parameter(server, generate):
    """The error repeats the question, as the errors of some servers do."""

    def respond(request):
        text = request["messages"][0]["content"]
        return refusal(f"rejected: {text}") if "seed of" in text else completion(choice("x"))

    server.respond = respond
    answers = generate("a", "temperature and seed of patient 1", server_options={"concurrency": 1})
    assert [answer.finish_reason for answer in answers] == ["stop", SERVER_ERROR]
    assert generate.generator.cost["refused_parameters"] == []
    assert len(server.requests) == 2  # nothing is left out to see whether that helps


@pytest.mark.parametrize("repeat", [json.dumps, str])
def test_an_error_that_repeats_the_whole_request_costs_no_parameter(server, generate, repeat):
    def respond(request):
        repeated = request["messages"][0]["content"] == "b"
        return refusal(f"rejected: {repeat(request)}") if repeated else completion(choice("x"))

    server.respond = respond
    answers = generate("a", "b", server_options={"concurrency": 1})
    assert [answer.finish_reason for answer in answers] == ["stop", SERVER_ERROR]
    assert generate.generator.cost["refused_parameters"] == []


FULL = [
    "This model's maximum context length is 1024 tokens. However, you requested 1020 output tokens",  # vLLM
    "request (14429 tokens) exceeds the available context size (8192 tokens), try increasing it",  # llama.cpp
]


@pytest.mark.parametrize("message", FULL)
def test_a_prompt_that_leaves_less_room_than_the_limit_has_the_rest(server, generate, message):
    server.respond = lambda request: refusal(message) if "max_tokens" in request else completion(choice("x"))
    assert [response.text for response in generate("a", "b")] == ["x", "x"]
    assert generate.generator.cost["refused_parameters"] == []


@pytest.mark.parametrize("message", FULL)
def test_a_prompt_that_fills_the_context_is_counted_and_ends_nothing(server, generate, capsys, message):
    server.respond = lambda request: (
        refusal(message) if "long" in request["messages"][0]["content"] else completion(choice("x"))
    )
    texts = [f"long {number}" for number in range(MAX_FAILURES + 5)]
    responses = generate("short", *texts)
    assert [response.finish_reason for response in responses] == ["stop", *[TOO_LONG] * len(texts)]
    assert f"warning: {len(texts)} of {len(texts) + 1} questions got no answer" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"answered none of 1 questions: HTTP 400: .*context"):
        generate("long")
