"""The three questions of a summary, and its page in a real browser."""

import json
from dataclasses import asdict

import pytest
from matplotlib import pyplot
from test_summary import sample

from recipes.evaluation.results import read_run
from recipes.report.summary_examples import examples, examples_markdown
from recipes.report.summary_page import render_summary

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def run(tmp_path, label, scores):
    samples = [
        asdict(sample(id, acc, response=f"{label} {id} {HOSTILE}", sql=None))
        for id, acc in zip("abcde", scores, strict=True)
    ]
    folder = tmp_path / label
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"summary": {}, "config": {}, "samples": samples}))
    return read_run(folder)


@pytest.fixture
def runs(tmp_path):
    scores = {"start": [1, 0, 1, 0, 0], "grpo": [1, 1, 0, 0, 1]}
    return {label: run(tmp_path, label, each) for label, each in scores.items()}


def test_one_question_of_each_kind(runs):
    assert {kind: item["id"] for kind, item in examples(runs).items()} == {
        "better": "b",
        "worse": "c",
        "still wrong": "d",
    }


def test_kinds_that_no_question_is_of_are_left_out(tmp_path):
    runs = {label: run(tmp_path, label, [1, 1, 1, 1, 1]) for label in ("start", "grpo")}
    assert examples(runs) == {}


def test_texts_of_models_stay_code_in_markdown(tmp_path, runs):
    chosen = examples(runs)
    chosen["better"]["answers"][0]["texts"][0]["text"] = "first\n\n# heading"
    lines = list(examples_markdown(chosen, list(runs)))
    assert lines[lines.index("    first") :][:3] == ["    first", "    ", "    # heading"]
    assert "# heading" not in lines


@pytest.fixture
def page(browser, tmp_path, runs):
    pyplot.figure().savefig(tmp_path / "chart.png")
    pyplot.close()
    rows = [["", "questions", "start", "grpo"], ["seen templates", "864", "45.3", "65.0 +19.8 " * 9]]
    tables = {"Test results": (rows, ["in percent", "abstaining always: RS(10) 10.0"])}
    facts = {"start": {"model": HOSTILE}, "grpo": {"data set": "data/" * 40 + "test.parquet"}}
    commands = {"talk to the model": "bash scripts/chat_with_model.sh --models 'a b' <x>"}
    text = render_summary("EHRSQL", facts, tables, {"a chart": tmp_path / "chart.png"}, examples(runs), commands)
    file = tmp_path / "summary.html"
    file.write_text(text)
    page = browser.new_page()
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("request", lambda request: page.problems.append(request.url) if request.url != file.as_uri() else None)
    page.goto(file.as_uri())
    yield page
    page.close()


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert page.problems == []
    assert page.title() == "EHRSQL"
    assert page.locator("img").count() == 1
    assert HOSTILE in page.locator(".answer").first.inner_text()


def test_the_page_shows_the_chart_the_questions_and_what_to_do_next(page):
    assert page.evaluate("document.images[0].naturalWidth") > 0
    assert page.locator("article h3").all_inner_texts() == ["Better", "Still wrong", "Worse"]
    assert page.locator("pre").inner_text() == "bash scripts/chat_with_model.sh --models 'a b' <x>"


def test_the_page_names_the_runs_and_explains_the_table(page):
    assert page.locator(".runs h3").all_inner_texts() == ["start", "grpo"]
    assert page.locator(".runs dd").first.inner_text() == HOSTILE
    below = page.locator(".table + .label, .table + .label + .label").all_inner_texts()
    assert below == ["in percent", "abstaining always: RS(10) 10.0"]


def test_a_wide_table_scrolls_in_its_own_box(page):
    page.set_viewport_size({"width": 390, "height": 800})
    box = page.locator(".scroll")
    assert box.evaluate("box => { box.scrollLeft = 40; return box.scrollLeft }") == 40


@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_is_as_wide_as_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
