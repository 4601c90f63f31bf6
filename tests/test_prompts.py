"""Prompt templates of a user's own: by path, with what the built-in ones see."""

import json
import sqlite3
from contextlib import closing

import pytest

from data_prep import ehrsql
from data_prep.common.errors import InputError
from data_prep.sql.prompts import PROMPT_DIR, PromptBuilder
from recipes.export import prompt_settings

OWN = """{% block system %}
Think first.
{% include "_rules.jinja" %}
{{ compact_schema() }}
{% endblock %}
{% block user %}Q: {{ question }}{% endblock %}
"""


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "ehr.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE birds (name TEXT); INSERT INTO birds VALUES ('owl');")
    return path


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.jinja2"
    path.write_text(OWN)
    return path


def test_a_path_is_a_prompt_that_may_include_the_rules(db, own):
    system, user = PromptBuilder(str(own), db).messages("Which birds?")
    assert user == {"role": "user", "content": "Q: Which birds?"}
    assert system["content"].startswith("Think first.\nAnswer with one SQLite query") and "birds" in system["content"]


@pytest.mark.parametrize(("prompt", "takes"), [("few_shot", True), ("full_schema", False), ("question_only", False)])
def test_a_template_that_shows_examples_is_known(db, own, prompt, takes):
    assert PromptBuilder(prompt, db).takes_examples == takes
    own.write_text(OWN.replace("Think first.", "{{ examples }}" if takes else ""))
    assert PromptBuilder(str(own), db).takes_examples == takes


def test_a_template_of_ones_own_may_ask_for_reasoning(db, own):
    assert not PromptBuilder(str(own), db).asks_to_think
    assert PromptBuilder(str(own), db, think=True).asks_to_think  # by the rules that it includes
    own.write_text(OWN.replace("Think first.", "Reason in <think>."))
    builder = PromptBuilder(str(own), db)
    assert builder.asks_to_think and builder.think


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% block system %}{% endblock %}", r"own\.jinja2 has no block user; write {% block user %}"),
        ("{{ question }}", "has no block system"),
        ("{% block system %}\n{% if %}{% endblock %}", r"own\.jinja2, line 2: .*; correct the template"),
        (OWN.replace("question", "db_schema"), "'db_schema' is undefined; a template sees question, examples, current"),
        (OWN.replace("_rules", "_rulez"), r"_rulez\.jinja"),
        (b"\xff", "no UTF-8 text"),
    ],
)
def test_a_bad_template_is_one_line(db, own, text, message):
    own.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as raised:
        PromptBuilder(str(own), db).messages("Who?")
    assert "\n" not in str(raised.value)


def test_an_unknown_name_is_told_where_the_templates_are(db, tmp_path):
    with pytest.raises(InputError, match=rf"unknown prompt 'haiku'; .*full_schema.* from {PROMPT_DIR}, .*\.jinja file"):
        PromptBuilder("haiku", db)
    with pytest.raises(InputError, match=r"no prompt template at .*/absent\.jinja; check the path"):
        PromptBuilder(f"{tmp_path}/absent.jinja", db)


@pytest.mark.parametrize("named", ["full_schema", "own.jinja2"])
def test_prepared_data_say_which_prompt_they_have(db, own, tmp_path, monkeypatch, named):
    folder = tmp_path / "questions" / "train"
    folder.mkdir(parents=True)
    questions = [{"id": "1", "question": "Which birds?"}, {"id": "2", "question": "How many birds?"}]
    (folder / "data.json").write_text(json.dumps({"data": questions}))
    (folder / "label.json").write_text(json.dumps({"1": "SELECT name FROM birds", "2": "null"}))
    monkeypatch.chdir(tmp_path)
    program = ["--data_dir", "questions", "--db", str(db), "--out_dir", "parquet", "--prompt", named]
    for think in (False, True):
        ehrsql.main([*program, *(["--think"] if think else [])])
        prompt = str(own) if named == "own.jinja2" else named
        assert prompt_settings(tmp_path / "parquet") == {"prompt": prompt, "think": think}
    assert prompt_settings(tmp_path) == {"prompt": None, "think": None}
