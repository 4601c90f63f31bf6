"""The chat's page: in a real browser where there is one, and the parts of it that need none."""

import html.parser
import os
import shutil
import socket
import subprocess
import sys

import psutil
import pytest
from chat_helpers import HOSTILE, one_thread, trained
from conftest import REPO
from hypothesis import given
from hypothesis import strategies as st

from data_prep.common.printable import printable
from recipes.chat_app.models import ChatModel, ChatOptions
from recipes.chat_app.text import Piece
from recipes.chat_app.ui import Session, render
from recipes.tasks.ecg.chat import EcgTask

CHROMIUM = shutil.which("chromium")


class Reader(html.parser.HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


@given(st.text(st.characters() | st.sampled_from("<>&\"'/=")), st.sampled_from(["question", "text", "error", "table"]))
def test_all_that_was_said_is_text(text, kind):
    rows = ((text, "cell"),) if kind == "table" else ()
    page = Reader(render(text, [Piece(kind, text, rows)]))
    assert page.tags <= {"div", "h3", "span", "table", "tr", "td"}
    assert page.attributes == {"class"}
    assert page.text == printable(text) * (3 if rows else 2) + ("cell" if rows else "")


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory):
    with one_thread():
        yield trained(tmp_path_factory)


def test_a_session_keeps_its_history_and_stops(output_dir, monkeypatch):
    monkeypatch.setenv("HARDWARE", "cpu")
    models = [
        ChatModel(name, str(output_dir / "models" / name), ChatOptions(max_response_length=500))
        for name in ("sft", "grpo")
    ]
    for model in models:
        model.load()
    session = Session(models, EcgTask(think=False))
    *_, panes = session.ask("My name is Ada.")
    *_, panes = session.ask("Who am I?")
    assert "You are Ada." in panes[1]

    session = Session(models, EcgTask(think=False))
    growing = session.ask("Never end.")
    assert [next(growing)[0].count("beat") for _ in range(3)] == [0, 1, 2]
    session.stop.set()
    *_, panes = growing
    assert [pane.count("(stopped)") for pane in panes] == [1, 0]
    assert len(session.conversations[0].turns) == 1
    *_, panes = session.ask("What rhythm is it?")
    assert "Atrial flutter." not in panes[1]


@pytest.fixture
def server(output_dir):
    """The address of a page on which two models are asked for SQL, and its process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "recipes.chat", "--recipe", "ehrsql", "--ui", "--port", str(port)]
    command += ["--output_dir", output_dir, "--models", "sft", "grpo", "--max_response_length", "1000"]
    environment = os.environ | {"HARDWARE": "cpu", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True) as process:
        address = f"http://127.0.0.1:{port}"
        assert process.stdout.readline().startswith(f"Chat at {address} ")
        yield address, process
        process.terminate()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium (Debian: apt-get install chromium)")
def test_a_browser(server):
    from playwright.sync_api import expect, sync_playwright

    address, process = server
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        requested: list[str] = []
        page.on("request", lambda request: requested.append(request.url))
        expect.set_options(timeout=60_000)
        page.goto(address)
        panes = page.locator(".chat")
        question = page.get_by_placeholder("Question")
        send = page.get_by_role("button", name="Send")

        # Two models side by side; the query and its result.
        question.fill("How many patients?")
        question.press("Enter")
        expect(panes.nth(1).locator("td")).to_have_text("1")
        expect(panes.nth(0)).to_contain_text("abstains")
        expect(panes.nth(1)).to_contain_text("SELECT count(*) FROM patients")
        left, right = panes.nth(0).bounding_box(), panes.nth(1).bounding_box()
        assert left["x"] + left["width"] <= right["x"]

        # What the database holds and a model says is text, to the browser and to Gradio's templates.
        page.get_by_role("button", name="Clear").click()
        expect(panes.nth(1).locator("td")).to_have_count(0)
        question.fill("Which names?")
        send.click()
        expect(panes.nth(1).locator("td")).to_have_text(printable(HOSTILE[:59] + "…"))
        expect(send).to_be_enabled()  # the answer has ended
        question.fill("Attack me.")
        question.press("Enter")
        expect(panes.nth(1)).to_contain_text(printable(HOSTILE))
        expect(panes.locator("img, b, script")).to_have_count(0)

        # An answer without end is seen while it is written, and Clear ends it.
        expect(send).to_be_enabled()
        question.fill("Never end.")
        question.press("Enter")
        expect(panes.nth(0)).to_contain_text("beat beat")
        expect(send).to_be_disabled()
        page.get_by_role("button", name="Clear").click()
        expect(panes.nth(0)).to_have_text("sft")
        expect(panes.nth(1)).to_have_text("grpo")
        expect(send).to_be_enabled()
        assert page.title() == "Chat"
        browser.close()

    outside = [url for url in requested if not url.startswith((address, "data:", "blob:"))]
    assert not outside
    listening = [c.laddr.ip for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert set(listening) == {"127.0.0.1"}
