"""``evaluate --server``: the program against a server in this process, its options, and breaks."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from chat_server import choice, completion, hangs, refusal
from conftest import REPO

from data_prep.common.errors import InputError
from recipes.evaluate import evaluate, parser
from recipes.evaluation.answer_log import Answer, AnswerLog
from recipes.evaluation.chat_reply import Usage
from recipes.evaluation.generation import GenerationOptions, Response
from recipes.evaluation.server import SERVER_ERROR, ServerGenerator
from recipes.evaluation.server_connection import Server
from recipes.evaluation.token_confidence import TokenConfidence
from reward_fns.sql.answers import canonical_answer

PATIENTS = 30
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    with closing(sqlite3.connect(folder / "ehr.sqlite")) as database:
        database.execute("CREATE TABLE patients (subject_id INTEGER)")
        database.executemany("INSERT INTO patients VALUES (?)", [(number,) for number in range(PATIENTS)])
        database.commit()
    rows = [
        {
            "data_source": "ehrsql",
            "prompt": [{"role": "user", "content": f"Is there a patient {number}?"}],
            "ability": "text2sql",
            "reward_model": {"style": "rule", "ground_truth": canonical_answer([(number,)])},
            "extra_info": {
                **{"id": f"q{number}", "split": "test", "index": number, "question": f"Is there a patient {number}?"},
                **{"template": "?", "seen_template": "seen", "answerable": True, "db_path": str(folder / "ehr.sqlite")},
                "gold_sql": gold(number),
            },
        }
        for number in range(PATIENTS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    return folder / "test.parquet"


def gold(number: int) -> str:
    return f"SELECT subject_id FROM patients WHERE subject_id = {number}"


def answer_gold(request: dict) -> web.Response:
    number = int(request["messages"][0]["content"].removeprefix("Is there a patient ").removesuffix("?"))
    return completion(choice(gold(number)))


def arguments(server, tmp_path, dataset, *more: str) -> list[str]:
    given = ["--server", server.url, "--dataset_path", str(dataset), "--output_dir", str(tmp_path / "results")]
    return [*given, *more]


def run(server, tmp_path, dataset, *more: str) -> Path:
    (folder,) = evaluate(parser().parse_args(arguments(server, tmp_path, dataset, *more)))
    return folder


def test_a_whole_evaluation(server, tmp_path, dataset):
    server.respond = answer_gold
    folder = run(server, tmp_path, dataset, "--run_name", "first", "--max_response_length", "50")
    assert folder == tmp_path / "results" / "model" / "first"
    assert [path.name for path in folder.parent.iterdir()] == ["first"]  # no answers are left beside it
    results = json.loads((folder / "results.json").read_text())
    assert results["summary"]["execution_accuracy"]["all questions"]["percent"] == 100
    config = results["config"]
    assert (config["server"], config["model_name"], config["max_response_length"]) == (server.url, "org/model", 50)
    assert config["server_cost"]["prompt_tokens"] == 10 * PATIENTS
    assert not {"dtype", "gpu_memory_utilization"} & config.keys()


def test_failed_questions_are_empty_answers_in_the_results(server, tmp_path, dataset):
    server.respond = lambda request: (
        refusal("no", 403) if "patient 7?" in request["messages"][0]["content"] else answer_gold(request)
    )
    results = json.loads((run(server, tmp_path, dataset) / "results.json").read_text())
    (failed,) = [sample for sample in results["samples"] if sample["finish_reason"] == SERVER_ERROR]
    assert (failed["id"], failed["response"], failed["acc"]) == ("q7", "", 0)
    assert results["config"]["server_cost"]["questions_failed"] == 1


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["a", "b"], r"lists 2 models \(a, b\); name one with --model_name"),
        ([], "lists no model; name one with --model_name"),
        (None, "lists no model; name one with --model_name"),
        (["..."], r"the model's name '\.\.\.' cannot name a folder; give another --model_name"),
        (["a\x1b[31m"], "cannot name a folder"),
    ],
)
def test_the_model_may_be_left_out_where_the_server_has_one(server, tmp_path, dataset, models, message):
    server.models = models
    with pytest.raises(InputError, match=message):
        run(server, tmp_path, dataset)
    assert server.requests == []


def test_several_models_of_a_server(server, tmp_path, dataset):
    options = arguments(server, tmp_path, dataset, "--model_name", "one", "two", "--num_samples", "2")
    folders = evaluate(parser().parse_args(options))
    assert [folder.parent.name for folder in folders] == ["one", "two"]
    assert [request["model"] for request in server.requests] == ["one", "one", "two", "two"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dtype", "float32"], "--dtype has no effect with --server; leave it out"),
        (["--gpu_memory_utilization", "0.9"], "--gpu_memory_utilization has no effect with --server"),
        (["--tensor_parallel_size", "1"], "--tensor_parallel_size has no effect with --server"),
        (["--data_parallel_size", "1"], "--data_parallel_size has no effect with --server"),
        (["--server_concurrency", "0"], "give at least 1 request"),
        (["--server_timeout", "0"], "give seconds above 0"),
        (["--server_timeout", "nan"], "give seconds above 0"),
        (["--server", "http://8.8.8.8/v1"], "the questions would leave it"),
    ],
)
def test_options_that_do_not_go_together(server, tmp_path, dataset, more, message):
    with pytest.raises(InputError, match=message):
        run(server, tmp_path, dataset, *more)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("option", [["--allow_remote"], ["--server_concurrency", "8"], ["--server_timeout", "600"]])
def test_options_of_a_server_need_one(tmp_path, dataset, option):
    given = ["--dataset_path", str(dataset), "--model_name", "org/model", "--output_dir", str(tmp_path), *option]
    with pytest.raises(InputError, match=f"{option[0]} has no effect without --server; leave it out"):
        evaluate(parser().parse_args(given))


def test_the_key_comes_from_the_environment_and_is_written_nowhere(server, tmp_path, dataset, monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\n")
    folder = run(server, tmp_path, dataset)
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-secret"}
    assert "secret" not in "".join(path.read_text() for path in folder.iterdir()) + "".join(capfd.readouterr())
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\u2026secret")
    with pytest.raises(InputError, match="OPENAI_API_KEY holds characters that no key has; set it again"):
        run(server, tmp_path, dataset)


# Breaks


def start(server, tmp_path, dataset, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "recipes.evaluate", *arguments(server, tmp_path, dataset, *more)]
    # A default model for vLLM here is none for a server.
    env = os.environ | {"DEFAULT_MODEL_NAME": "/absent/model"}
    return subprocess.Popen(command, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_with_the_same_command(server, tmp_path, dataset):
    before = 10

    def respond(request):
        return answer_gold(request) if len(server.requests) <= before else hangs

    server.respond = respond
    process = start(server, tmp_path, dataset)
    folder = tmp_path / "results" / "model"
    deadline = time.monotonic() + TIMEOUT_S
    while not (files := list(folder.glob("*.partial.jsonl"))) or files[0].read_bytes().count(b"\n") < before:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(TIMEOUT_S)
    (file,) = files
    assert file.stat().st_mode & 0o777 == 0o600
    with file.open("a") as answers:  # what the kill may have left
        answers.write(file.read_text()[:100])

    server.requests.clear()
    server.respond = answer_gold
    process = start(server, tmp_path, dataset)
    _, printed = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, printed
    assert f"{file} holds {before} of {PATIENTS} answers; asking for the others" in printed
    assert len(server.requests) == PATIENTS - before
    (run_folder,) = folder.iterdir()  # the file is gone
    results = json.loads((run_folder / "results.json").read_text())
    assert results["summary"]["execution_accuracy"]["all questions"]["percent"] == 100
    cost = results["config"]["server_cost"]
    assert (cost["answers"], cost["answers_of_earlier_starts"]) == (PATIENTS, before)
    assert cost["prompt_tokens"] == 10 * PATIENTS


def test_no_server_ends_the_program_in_one_line(tmp_path, dataset):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:{1}/v1".format(*taken.getsockname())
        command = [sys.executable, "-m", "recipes.evaluate", "--server", url, "--dataset_path", str(dataset)]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 1
    assert done.stdout == "" and done.stderr.startswith(f"no server answers at {url}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "other",
    [
        {"max_response_length": 32},
        {"temperature": 0.5},
        {"seed": 3},
        {"further": 1},
        {"further_temperature": 0.5},
        {"samples": 2, "temperature": 1.0},
    ],
)
def test_answers_to_other_options_are_not_taken(server, generate, tmp_path, other):
    generate("a")
    generate("a")
    assert len(server.requests) == 1
    generate("a", **other)
    assert len(server.requests) > 1
    generate("a", "b")
    assert server.requests[-1]["messages"][0]["content"] == "b"
    assert len(list((tmp_path / "answers").iterdir())) == 2


def test_answers_of_another_model_or_server_are_not_taken(server, tmp_path):
    prompts = [[{"role": "user", "content": "a"}]]
    for model, url in (("m", server.url), ("n", server.url), ("m", f"{server.url}/")):
        ServerGenerator(GenerationOptions(model), Server(url), tmp_path)(prompts)
    assert len(server.requests) == 3


def test_all_that_an_answer_holds_is_kept(server, generate):
    tokens = [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -0.5}]}]
    server.respond = lambda request: completion(
        *(choice("\u00fc\n\x85", "length") | {"logprobs": {"content": tokens}} for _ in range(request.get("n", 1)))
    )
    first = generate("a", further=2)
    assert isinstance(first[0].confidence, TokenConfidence) and len(first[0].further) == 2
    assert generate("a", further=2) == first
    assert len(server.requests) == 2


def test_an_answer_behind_a_half_line_is_read(tmp_path):
    log, answer = AnswerLog(tmp_path / "answers.partial.jsonl"), Answer((Response("x", 1, "stop"),), Usage(), 0.5)
    log.append("a", answer)
    with log.path.open("a") as file:
        file.write('{"key": "b", "respon')
    assert log.read() == {"a": answer}
    log.append("b", answer)
    assert log.read() == {"a": answer, "b": answer}


def test_a_damaged_line_within_the_file_is_named(tmp_path):
    path = tmp_path / "answers.partial.jsonl"
    path.write_text('{"key": "a"}\n')
    with pytest.raises(InputError, match="line 1 is damaged; remove that line to go on"):
        AnswerLog(path).read()


def test_answers_that_cannot_be_kept_end_the_run(server, generate, tmp_path):
    (tmp_path / "answers").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot write .*; free space, then start again"):
        generate("a")
