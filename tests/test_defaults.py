"""What ``evaluate`` takes where options are left out, and what ``.env`` has to say."""

import os
from pathlib import Path

import pytest

from data_prep.common.errors import InputError
from recipes.defaults import fill_evaluation
from recipes.evaluate import main, parser
from recipes.pipeline import settings


def finished_run(folder: Path, trained_at: float, *stages: str, test_set: str = "test.parquet") -> Path:
    (folder / "stages").mkdir(parents=True)
    (folder / "data" / "parquet").mkdir(parents=True)
    (folder / "data" / "parquet" / test_set).touch()
    for stage in stages:
        model = folder / "models" / stage
        model.mkdir(parents=True)
        (model / "config.json").touch()
        os.utime(model, (trained_at, trained_at))
    return folder


def filled(*arguments: str, **environ: str):
    args = parser().parse_args(list(arguments))
    fill_evaluation(args, dict(environ))
    return args.model_name, args.dataset_path, args.output_dir


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_alone_it_takes_the_newest_run(place, capsys):
    finished_run(place / "outputs" / "ehrsql_tiny", 2000, "sft", "grpo")
    newest = finished_run(place / "outputs" / "ehrsql_qwen2_5_1_5b", 3000, "sft", test_set="valid.parquet")
    finished_run(place / "outputs" / "ehrsql_new", 4000, "grpo", test_set="train.parquet")  # nothing to evaluate on
    finished_run(place / "outputs" / "ehrsql_running", 4000)
    finished_run(place / "outputs" / "ecg_tiny", 5000, "grpo", test_set="grpo_test.parquet")
    data = newest / "data" / "parquet" / "valid.parquet"
    assert filled() == ([str(newest)], data, [Path("results")])
    assert capsys.readouterr().err == f"evaluating {newest} on {data}\n"
    ecg = place / "outputs" / "ecg_tiny"
    assert filled("--recipe", "ecg")[:2] == ([str(ecg)], ecg / "data" / "parquet" / "grpo_test.parquet")


def test_a_run_in_the_outputs_folder_itself_is_one_of_them(place):
    finished_run(place / "outputs" / "ehrsql_tiny", 2000, "grpo")
    finished_run(place / "outputs", 3000, "grpo")
    assert filled()[0] == [str(place / "outputs")]
    assert filled(PRESET="tiny")[0] == [str(place / "outputs" / "ehrsql_tiny")]


def test_preset_and_output_folder_choose_the_run(place):
    tiny = finished_run(place / "outputs" / "ehrsql_tiny", 2000, "grpo")
    finished_run(place / "outputs" / "ehrsql_new", 3000, "grpo")
    own = finished_run(place / "own", 1000, "grpo")
    assert filled(PRESET="tiny")[0] == [str(tiny)]
    assert filled(OUTPUT_DIR=str(own))[0] == [str(own)]


def test_the_settings_come_first(place, capsys):
    finished_run(place / "outputs" / "ehrsql_tiny", 2000, "grpo")
    named = {"DEFAULT_MODEL_NAME": "org/model", "DEFAULT_DATASET_PATH": "/q/test/data.json", "DEFAULT_OUTPUT_DIR": "/r"}
    assert filled(**named) == (["org/model"], Path("/q/test/data.json"), [Path("/r")])
    assert capsys.readouterr().err == ""
    given = filled("--model_name", "o/a", "o/b", "--dataset_path", "c.parquet", "--output_dir", "d", **named)
    assert given == (["o/a", "o/b"], Path("c.parquet"), [Path("d")])


def test_the_settings_name_models_and_questions_of_ehrsql_alone(place):
    run = finished_run(place / "r" / "ecg_tiny", 2000, "grpo", test_set="grpo_test.parquet")
    named = {"DEFAULT_MODEL_NAME": "org/model", "DEFAULT_DATASET_PATH": "/q/test/data.json", "DEFAULT_OUTPUT_DIR": "r"}
    assert filled("--recipe", "ecg", **named)[0] == [str(run)]


def test_the_model_of_a_run_is_evaluated_on_that_runs_questions(place):
    finished_run(place / "outputs" / "ehrsql_tiny", 2000, "grpo")
    own = finished_run(place / "my_run", 1000, "grpo")
    data = own / "data" / "parquet" / "test.parquet"
    for name in ("my_run", "my_run/models/grpo"):
        assert filled("--model_name", name)[:2] == ([name], data)
    other = filled("--model_name", "org/model")
    assert other[:2] == (["org/model"], place / "outputs" / "ehrsql_tiny" / "data" / "parquet" / "test.parquet")


@pytest.mark.parametrize("environ", [{}, {"PRESET": "tiny"}, {"DEFAULT_MODEL_NAME": "org/model"}])
def test_without_any_run_it_says_what_to_run(place, environ):
    with pytest.raises(InputError, match=r"no finished run in .*/ehrsql_.*; run bash scripts/run_grpo_ehrsql\.sh"):
        filled(**environ)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--model_name", "absent"], "no such model folder: absent"),
        (["--predictions", "absent.json"], r"--predictions absent\.json does not exist"),
        (["--predictions", "."], r"--predictions \. is a folder"),
    ],
)
def test_what_is_named_and_missing_is_named_even_without_questions(place, option, message):
    with pytest.raises(InputError, match=message):
        main(option)


def test_paths_of_env_are_below_the_repository(place, monkeypatch):
    (place / "models" / "mine").mkdir(parents=True)
    lines = ["DEFAULT_MODEL_NAME=models/mine", "DEFAULT_DATASET_PATH=data/mimic_iv/test/data.json", "DEFAULT_DB_PATH=d"]
    (place / ".env").write_text("\n".join(lines))
    monkeypatch.setattr(settings, "REPO", place)
    (place / "caller").mkdir()
    monkeypatch.chdir(place / "caller")
    environ = {"HARDWARE": "cpu", "DEFAULT_OUTPUT_DIR": "out"}
    settings.load_environment(environ)
    assert environ == {
        "HARDWARE": "cpu",
        "DEFAULT_MODEL_NAME": f"{place}/models/mine",
        "DEFAULT_DATASET_PATH": f"{place}/data/mimic_iv/test/data.json",
        "DEFAULT_DB_PATH": f"{place}/d",
        "DEFAULT_OUTPUT_DIR": f"{place}/caller/out",
    }


@pytest.mark.parametrize("name", ["MPX0222forHF/SQL-R1-3B", "tiny"])
def test_a_hub_id_is_no_path(place, monkeypatch, name):
    (place / "tiny").mkdir()
    monkeypatch.setattr(settings, "REPO", place)
    environ = {"HARDWARE": "cpu", "DEFAULT_MODEL_NAME": name}
    settings.load_environment(environ)
    assert environ["DEFAULT_MODEL_NAME"] == name
