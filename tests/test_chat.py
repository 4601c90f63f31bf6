"""The chat in a real terminal, with real models that have learned by heart what they are to say."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from chat_helpers import HOSTILE, one_thread, trained
from conftest import REPO

from data_prep.common.errors import InputError
from data_prep.common.printable import printable
from recipes import chat
from recipes.chat_app.conversation import Conversation
from recipes.chat_app.models import ChatModel, ChatOptions, find_model, forbid_network
from recipes.chat_app.tasks import Reply
from recipes.chat_app.token_recorder import TokenRecorder
from recipes.evaluation.selector import Selector, save_selector
from recipes.evaluation.token_confidence import TOP_LOGPROBS
from recipes.tasks.ecg.chat import EcgTask
from recipes.tasks.ehrsql.chat import EhrsqlTask

PROMPT = r"\n(?:\x1b\[\?2004h)?> "  # readline may announce bracketed paste


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("HARDWARE", "cpu")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # restored after forbid_network


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    with one_thread():
        yield trained(tmp_path_factory)


@pytest.fixture(scope="module")
def loaded(output_dir) -> ChatModel:
    return load(output_dir / "models" / "grpo")


@pytest.fixture
def model(loaded, monkeypatch):
    monkeypatch.setattr(loaded, "room", loaded.room)  # restored where a test sets it
    return loaded


def load(folder: Path, **options) -> ChatModel:
    model = ChatModel(folder.name, str(folder), ChatOptions(**{"max_response_length": 200} | options))
    model.load()
    return model


def reply(conversation: Conversation, question: str) -> str:
    return "".join(piece.text for piece in conversation.ask(question))


# In a terminal


def spawn(*arguments: object) -> pexpect.spawn:
    environment = os.environ | {"HARDWARE": "cpu", "TERM": "xterm", "OMP_NUM_THREADS": "1"}
    command = ["-m", "recipes.chat", *map(str, arguments)]
    child = pexpect.spawn(
        sys.executable, command, cwd=str(REPO), env=environment, encoding="utf-8", timeout=300, dimensions=(50, 200),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # pytest-xdist's workers ignore it
    )  # fmt: skip
    child.logfile_read = io.StringIO()
    child.expect(PROMPT)
    return child


def ask(child: pexpect.spawn, question: str) -> str:
    """What the terminal shows from the question to the next prompt."""
    child.sendline(question)
    child.expect_exact(question)
    child.expect(PROMPT)
    return child.before


@pytest.fixture(scope="module")
def both(output_dir):
    """A terminal in which two models are asked about ECGs."""
    options = ["--recipe", "ecg", "--output_dir", output_dir, "--models", "sft", "grpo"]
    child = spawn(*options, "--max_response_length", 2000)
    yield child
    child.close(force=True)


@pytest.fixture
def terminal(both):
    ask(both, "clear")
    return both


def test_two_models_answer_each_under_its_name(terminal):
    shown = ask(terminal, "What rhythm is it?")
    places = [shown.index(text) for text in ("[sft]", "Atrial flutter.", "[grpo]", "Sinus rhythm at 72 bpm.")]
    assert places == sorted(places)


def test_an_answer_is_shown_as_it_is_written_and_can_be_stopped(terminal):
    terminal.sendline("Never end.")
    for name in ("sft", "grpo"):  # 2,000 tokens each: it has not ended when its first words are there
        terminal.expect_exact(f"[{name}]")
        terminal.expect_exact("beat beat")
        terminal.sendintr()
        terminal.expect_exact("(stopped)")
    terminal.expect(PROMPT)
    assert "cut off" not in terminal.before
    assert "Sinus rhythm at 72 bpm." in ask(terminal, "clear") + ask(terminal, "What rhythm is it?")


def test_history_is_kept_and_clear_forgets_it(terminal):
    ask(terminal, "My name is Ada.")
    assert "You are Ada." in ask(terminal, "Who am I?")
    ask(terminal, "clear")
    assert "I do not know." in ask(terminal, "Who am I?")


def test_no_escape_of_a_model_reaches_the_terminal(terminal):
    shown = ask(terminal, "Attack me.")
    assert printable(HOSTILE) in shown
    raw = terminal.logfile_read.getvalue()
    assert "\x1b]0;owned" not in raw
    assert "\x1b[31m" not in raw


def test_ctrl_c_at_the_prompt_ends_nothing(terminal):
    terminal.sendintr()
    terminal.expect(PROMPT)
    assert "Sinus rhythm at 72 bpm." in ask(terminal, "What rhythm is it?")


def test_quit_ends_with_success(terminal):
    terminal.sendline("quit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_sql_is_executed_and_harms_nothing(output_dir):
    database = output_dir / "data" / "mimic_iv.sqlite"
    before = database.read_bytes()
    child = spawn("--recipe", "ehrsql", "--output_dir", output_dir, "--max_response_length", 40)
    shown = ask(child, "How many patients?")
    assert "SELECT count(*) FROM patients" in shown
    assert "1 row" in shown
    assert "│ 1 │" in shown
    assert "refused" in ask(child, "Drop it.")
    assert "You can only execute one statement" in ask(child, "Who else?")
    assert "abstains" in ask(child, "What is the shoe size?")
    assert "\\x1b]0;owned" in ask(child, "Which names?")  # what the database holds is as little trusted
    assert "\x1b]0;owned" not in child.logfile_read.getvalue()
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_bad_input_is_one_line_and_fails(tmp_path):
    command = [sys.executable, "-m", "recipes.chat", "--recipe", "ehrsql", "--db_path", tmp_path / "absent.sqlite"]
    result = subprocess.run([*command, "--models", tmp_path], cwd=REPO, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert "absent.sqlite" in result.stderr


# In this process


def test_the_oldest_turns_are_forgotten_where_the_context_is_full(model):
    conversation = Conversation(model, EcgTask(think=False))
    reply(conversation, "My name is Ada.")
    reply(conversation, "What rhythm is it?")
    model.room = len(model.prompt(conversation.task.messages(conversation.turns, "Who am I?"))) - 1
    assert "forgot the oldest question" in reply(conversation, "Who am I?")
    assert [question for question, _ in conversation.turns] == ["What rhythm is it?", "Who am I?"]


def test_a_question_that_does_not_fit_is_said_and_forgets_nothing(model):
    conversation = Conversation(model, EcgTask(think=False))
    reply(conversation, "My name is Ada.")
    model.room = len(model.prompt(conversation.task.messages([], "Who am I?")))
    with pytest.raises(InputError, match=f"has room for {model.room} beside"):
        reply(conversation, "Who am I? " * 3)
    assert [question for question, _ in conversation.turns] == ["My name is Ada."]


def test_reasoning_is_shown_apart_and_not_remembered(model):
    conversation = Conversation(model, EcgTask(think=False))
    pieces = list(conversation.ask("Reason."))
    said = {kind: "".join(p.text for p in pieces if p.kind == kind).strip() for kind in {p.kind for p in pieces}}
    assert said == {"reasoning": "the rate is high", "text": "Tachycardia."}
    assert conversation.turns == [("Reason.", "Tachycardia.")]


def test_a_stopped_answer_is_remembered_as_far_as_it_came(model):
    conversation = Conversation(model, EcgTask(think=False))
    pieces = conversation.ask("Never end.")
    said = next(pieces).text + next(pieces).text
    pieces.close()
    assert conversation.turns == [("Never end.", said.strip())]


def test_an_answer_at_the_length_limit_is_said_to_be_cut_off(model):
    conversation = Conversation(model, EcgTask(think=False))
    assert reply(conversation, "Never end.").endswith("(cut off after 200 tokens)")
    assert "cut off" not in reply(Conversation(model, EcgTask(think=False)), "What rhythm is it?")


def test_questions_to_the_database_stand_alone(model, output_dir):
    conversation = Conversation(model, EhrsqlTask("question_only", output_dir / "data" / "mimic_iv.sqlite"))
    assert "1 row" in reply(conversation, "How many patients?")
    assert "1 row" in reply(conversation, "How many patients?")
    assert conversation.turns == []


@pytest.mark.parametrize("think", [False, True])
def test_the_prompt_about_a_database_asks_for_reasoning_if_the_model_learned_it(output_dir, think):
    system, _ = EhrsqlTask("compact_schema", output_dir / "data" / "mimic_iv.sqlite", think).messages([], "Who?")
    assert ("<think>" in system["content"]) == think


@pytest.mark.parametrize(
    ("text", "shown", "repeated"),
    [
        ("{}", "{}", False),
        ("<think>All.</think>\n```sql\n{}\n```", "```sql\n{}\n```", False),
        ("<answer>{}</answer>", "{}", False),
        ("The query is: {}", "The query is: {}", True),
        ("All.</think>{}", "All.{}", True),
        ("```sql\nSELECT 0\n```\n```sql\n{}\n```", "```sql\nSELECT 0\n```\n```sql\n{}\n```", True),
    ],
)
def test_a_query_is_shown_once_where_it_stands_alone(output_dir, text, shown, repeated):
    query = "SELECT count(*) FROM patients"
    task = EhrsqlTask("question_only", output_dir / "data" / "mimic_iv.sqlite")
    *also, result = task.conclude(Reply(text.format(query), shown.format(query)))
    assert result.kind == "table"
    assert [(piece.kind, piece.text) for piece in also] == [("answer", query)] * repeated


def test_sampling_is_that_of_training_whatever_the_model_prefers(output_dir, tmp_path):
    folder = shutil.copytree(output_dir / "models" / "grpo", tmp_path / "opinionated")
    own = json.loads((folder / "generation_config.json").read_text())
    preferences = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 9.0, "max_new_tokens": 1}
    (folder / "generation_config.json").write_text(json.dumps(own | preferences))
    assert reply(Conversation(load(folder), EcgTask(False)), "What rhythm is it?") == "Sinus rhythm at 72 bpm."


def test_a_seed_repeats_a_sampled_answer(output_dir):
    import torch

    model = load(output_dir / "models" / "grpo", temperature=5.0, max_response_length=20)
    answers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        answers.append("".join(model.stream(model.prompt([{"role": "user", "content": "Surprise me."}]))))
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_the_confidence_is_that_of_a_forward_pass_whatever_the_temperature(output_dir, monkeypatch, temperature):
    import torch

    written = []
    record = TokenRecorder.confidence
    monkeypatch.setattr(
        TokenRecorder, "confidence", lambda self, tokens: written.append(tokens) or record(self, tokens)
    )
    model = load(output_dir / "models" / "grpo", temperature=temperature, max_response_length=20)
    prompt = model.prompt([{"role": "user", "content": "Which names?"}])
    assert "".join(model.stream(prompt))
    (tokens,) = written
    with torch.no_grad():
        logits = model._model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    logprobs = logits.log_softmax(-1)
    own = logprobs[range(len(tokens)), tokens]
    top = logprobs.topk(TOP_LOGPROBS).values.exp()
    shares = torch.cat([top, 1 - top.sum(-1, keepdim=True)], dim=-1).clamp(min=1e-12)
    entropy = -(shares * shares.log()).sum(-1)
    expected = [own.mean(), own.min(), entropy.mean(), entropy.max()]
    assert list(vars(model.confidence).values()) == pytest.approx([each.item() for each in expected], abs=1e-4)


def test_an_answer_below_the_threshold_is_withheld(output_dir, tmp_path):
    folder = shutil.copytree(output_dir / "models" / "grpo", tmp_path / "selective")
    task = EhrsqlTask("question_only", output_dir / "data" / "mimic_iv.sqlite")
    for threshold, shown in ((-1.0, "1 row"), (1.0, "I would rather not answer: logprob_mean is -0.")):
        save_selector(Selector({"logprob_mean": 1.0}, threshold, 1.0, 0.0), str(folder), {})
        said = reply(Conversation(load(folder), task), "How many patients?")
        assert shown in said
        assert "SELECT count(*) FROM patients" in said  # the query is always shown
    (folder / "model.safetensors").write_bytes(b"others")
    with pytest.raises(InputError, match=r"selection\.json was made for other weights"):
        load(folder)


def test_the_chat_template_gets_the_date_of_training(output_dir):
    model = ChatModel("grpo", str(output_dir / "models" / "grpo"), ChatOptions())
    model.tokenizer.chat_template = "{{ date_string }}"
    date = model.tokenizer.decode(model.prompt([{"role": "user", "content": "Hello"}]))
    assert f"date_string: {date}\n" in (REPO / "configs" / "chat_template.yaml").read_text()


def test_stages_are_found_and_folders_keep_the_network_out(output_dir, monkeypatch):
    assert chat.last_stage(output_dir) == "grpo"
    assert find_model("sft", output_dir) == str(output_dir / "models" / "sft")
    assert find_model("base", output_dir) == str(output_dir / "models" / "grpo")
    assert find_model("Qwen/Qwen2.5-3B", output_dir) == "Qwen/Qwen2.5-3B"
    monkeypatch.delenv("HF_HUB_OFFLINE")
    forbid_network([str(output_dir), "Qwen/Qwen2.5-3B"])
    assert "HF_HUB_OFFLINE" not in os.environ
    forbid_network([str(output_dir)])
    assert os.environ["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--models", "nope"], "no such model folder: nope"),
        (["--models", "{tmp}"], "no config.json in"),
        (["--models", "{tmp}/no_template"], "no chat template"),
        (["--models", "{tmp}/damaged"], "cannot load the weights of"),
        (["--models", "base"], "models"),
        (["--models", "sft"], "no model in {tmp}/models/sft"),
        ([], "no trained model in {tmp}/models"),
        (["--recipe", "ehrsql", "--models", "{tmp}/damaged"], "no database at {tmp}/data/mimic_iv.sqlite"),
        (["--recipe", "ehrsql", "--prompt", "nope"], "unknown prompt 'nope'"),
        (["--recipe", "ehrsql", "--prompt", "few_shot"], "few_shot"),
        (["--temperature", "-1"], "--temperature is -1"),
        (["--max_response_length", "0"], "--max_response_length is 0"),
        (["--max_response_length", "5000", "--models", "{tmp}/damaged"], "leaves no room for a question"),
        (["--seed", "-1"], "--seed is -1"),
    ],
)
def test_errors_are_one_line(output_dir, tmp_path, arguments, named):
    good = output_dir / "models" / "grpo"
    (shutil.copytree(good, tmp_path / "no_template") / "chat_template.jinja").unlink()
    (shutil.copytree(good, tmp_path / "damaged") / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError) as error:
        options = ["--recipe", "ecg", "--output_dir", str(tmp_path)]
        chat.main([*options, *(argument.format(tmp=tmp_path) for argument in arguments)])
    assert named.format(tmp=tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_export_that_names_no_start_model(tmp_path):
    (tmp_path / "models" / "grpo").mkdir(parents=True)
    (tmp_path / "models" / "grpo" / "export.json").write_text("{}")
    with pytest.raises(InputError, match=r"grpo/export.json names no start_model"):
        find_model("base", tmp_path)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot use port {port}: Address already in use"):
            chat.main(["--ui", "--port", str(port)])
