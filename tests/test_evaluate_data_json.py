"""``evaluate`` on EHRSQL-2024's own ``data.json``: which prompt and which database it takes."""

import json
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep import ehrsql
from data_prep.common.errors import InputError
from data_prep.sql.prompts import PromptBuilder
from recipes.evaluate import evaluate, parser
from recipes.evaluation.generation import Response

LABELS = {
    "How many women?": "SELECT count(*) FROM patients WHERE gender = 'f'",
    "Who is there?": "SELECT subject_id FROM patients",
    "What is the shoe size of patient 1?": "null",
}


@pytest.fixture(autouse=True)
def no_default_database(monkeypatch):
    monkeypatch.delenv("DEFAULT_DB_PATH", raising=False)


@pytest.fixture
def data(tmp_path) -> Path:
    """The folder of EHRSQL-2024's layout: splits, and the database beside them."""
    folder = tmp_path / "mimic_iv"
    functions = ("count", "min", "max", "sum", "avg", "total", "group_concat", "hex", "quote")
    train = {f"What is the {name} of them?": f"SELECT {name}(subject_id) FROM patients" for name in functions}
    train |= {"What is their hat size?": "null", "And the dropped ones?": "SELECT a FROM dropped"}
    for split, labels in {"train": train, "test": LABELS}.items():
        (folder / split).mkdir(parents=True)
        questions = [{"id": question, "question": question} for question in labels]
        (folder / split / "data.json").write_text(json.dumps({"data": questions}))
        (folder / split / "label.json").write_text(json.dumps(labels))
    with closing(sqlite3.connect(folder / "mimic_iv.sqlite")) as database:
        database.executescript(
            "CREATE TABLE patients (subject_id INTEGER, gender TEXT);"
            "INSERT INTO patients VALUES (1, 'f'), (2, 'm'), (3, 'f');"
        )
    return folder


def run(data: Path, *arguments: str, models: tuple[str, ...] = ("org/model",)) -> tuple[list, dict]:
    """The prompts that the last model saw, and its ``results.json``."""
    seen = []

    def answer(prompts):
        seen[:] = prompts
        return [Response(LABELS[prompt[-1]["content"]], 1, "stop") for prompt in prompts]

    given = ["--dataset_path", str(data / "test" / "data.json"), "--output_dir", str(data.parent / "results")]
    args = parser().parse_args([*given, "--run_name", uuid.uuid4().hex, "--model_name", *models, *arguments])
    *_, folder = evaluate(args, lambda options: answer)
    return seen, json.loads((folder / "results.json").read_text())


def trained(folder: Path, prompt: str | None, think: bool = False) -> str:
    """A model as ``recipes.export`` writes it, by a version that knows the prompt or does not."""
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    known = {"prompt": prompt, "think": think} if prompt else {}
    (folder / "export.json").write_text(json.dumps({"start_model": "x"} | known))
    return str(folder)


def messages(data: Path, prompt: str, think: bool = False) -> list:
    builder = PromptBuilder(prompt, data / "mimic_iv.sqlite", think)
    return [builder.messages(question) for question in LABELS]


def test_a_pretrained_model_sees_the_full_schema_and_the_database_beside_the_splits(data, capsys):
    seen, results = run(data)
    assert seen == messages(data, "full_schema")
    assert results["config"]["prompt"] == "full_schema"
    assert results["config"]["db_path"] == str(data / "mimic_iv.sqlite")
    assert results["summary"]["execution_accuracy"]["all questions"]["percent"] == 100
    assert "warning" not in capsys.readouterr().err


def test_a_model_sees_the_prompt_of_its_training_unless_another_is_given(data, capsys):
    model = trained(data / "model", "question_only")
    seen, results = run(data, models=(model,))
    assert seen == messages(data, "question_only")
    assert results["config"]["prompt"] == "question_only"
    assert "warning" not in capsys.readouterr().err
    assert run(data, "--prompt", "compact_schema", models=(model,))[0] == messages(data, "compact_schema")
    assert run(data, models=(trained(data / "older", None),))[0] == messages(data, "full_schema")


def test_a_model_that_was_trained_to_think_is_asked_to_think(data):
    model = trained(data / "model", "compact_schema", think=True)
    seen, results = run(data, models=(model,))
    assert seen == messages(data, "compact_schema", think=True) != messages(data, "compact_schema")
    assert results["config"]["think"] is True
    assert run(data, "--prompt", "full_schema", models=(model,))[0] == messages(data, "reasoning")
    other = trained(data / "other", "compact_schema")
    assert run(data, models=(other,))[1]["config"]["think"] is False
    with pytest.raises(InputError, match="some of the models were trained to think, others not; evaluate one after"):
        run(data, models=(model, other))


def test_models_of_different_prompts_are_evaluated_one_after_the_other(data):
    models = (trained(data / "model", "question_only"), "org/model")
    with pytest.raises(InputError, match=r"different prompts \(full_schema, question_only\); evaluate one after"):
        run(data, models=models)
    assert run(data, "--prompt", "full_schema", models=models)[0] == messages(data, "full_schema")


def test_bare_questions_to_a_model_that_was_not_trained_on_them_are_warned_of(data, capsys):
    run(data, "--prompt", "question_only", models=("org/model", trained(data / "model", "question_only")))
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert "without a schema, and no recipe here has trained org/model; give --prompt full_schema" in warning


def test_the_same_warning_for_a_parquet_file(data, capsys):
    database = str(data / "mimic_iv.sqlite")
    ehrsql.main(["--data_dir", str(data), "--db", database, "--out_dir", str(data / "p"), "--prompt", "question_only"])
    capsys.readouterr()
    run(data, "--dataset_path", str(data / "p" / "test.parquet"))
    assert "no recipe here has trained org/model" in capsys.readouterr().err


def test_few_shot_examples_are_those_of_data_prep(data):
    database = str(data / "mimic_iv.sqlite")
    ehrsql.main(["--data_dir", str(data), "--db", database, "--out_dir", str(data / "p"), "--prompt", "few_shot"])
    prepared = pq.read_table(data / "p" / "test.parquet")["prompt"].to_pylist()
    seen, _ = run(data, "--prompt", "few_shot")
    assert seen == prepared
    assert seen[0][0]["content"].count("Question: ") == ehrsql.FEW_SHOT_EXAMPLES
    (data / "train").rename(data / "away")
    with pytest.raises(InputError, match=r"few_shot takes examples from train, but there is no .*/train; choose anoth"):
        run(data, "--prompt", "few_shot")


def test_a_template_by_its_path(data, tmp_path):
    own = tmp_path / "own.jinja"
    own.write_text("{% block system %}Hi{% endblock %}{% block user %}{{ question }}{% endblock %}")
    seen, results = run(data, "--prompt", str(own))
    assert seen[0][0]["content"] == "Hi"
    assert results["config"]["prompt"] == str(own)


def test_the_database_of_the_settings(data, monkeypatch):
    own = data.parent / "own.sqlite"
    (data / "mimic_iv.sqlite").rename(own)
    with pytest.raises(InputError, match=r"names no database, and there is no .*/mimic_iv\.sqlite; give --db_path"):
        run(data)
    monkeypatch.setenv("DEFAULT_DB_PATH", str(own))
    assert run(data)[1]["config"]["db_path"] == str(own)
