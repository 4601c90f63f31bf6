"""Where ``evaluate`` writes, and which model the name of a run's folder stands for."""

import json
from pathlib import Path

import pytest

from data_prep.common.errors import InputError
from recipes.evaluation.folders import run_folders
from recipes.trained_models import exported_model, run_of


def titles(place: Path, *models: str) -> list[str]:
    """The names of the models' folders in ``place``; each then holds results of its model."""
    folders = run_folders([place], models, models, f"run_{len(list(place.rglob('results.json')))}")
    for folder, model in zip(folders, models, strict=True):
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"config": {"model_name": model}}))
    return [folder.parent.name for folder in folders]


def make_model(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").touch()
    return str(folder)


def test_a_models_folder_has_its_name_alone(tmp_path):
    assert titles(tmp_path / "results", "MPX0222forHF/SQL-R1-3B") == ["SQL-R1-3B"]
    assert titles(tmp_path / "results", "MPX0222forHF/SQL-R1-3B") == ["SQL-R1-3B"]
    assert titles(tmp_path / "results", make_model(tmp_path / "my_run")) == ["my_run"]


def test_owners_tell_models_of_one_name_apart(tmp_path):
    assert titles(tmp_path / "results", "a/one", "b/one", "b/two") == ["a__one", "b__one", "two"]


def test_a_folder_with_another_models_results_is_left_alone(tmp_path):
    place = tmp_path / "results"
    runs = [make_model(tmp_path / run / "models" / "grpo") for run in ("x", "y", "z")]
    assert [titles(place, model) for model in runs] == [["grpo"], ["models__grpo"], ["z__models__grpo"]]
    assert [titles(place, model) for model in runs] == [["grpo"], ["models__grpo"], ["z__models__grpo"]]
    assert titles(place, "org/grpo") == ["org__grpo"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"config": {}}', '{"config": {"model_name": 3}}'])
def test_results_of_nobody_knows_which_model_count_as_anothers(tmp_path, content):
    (tmp_path / "one" / "run_1").mkdir(parents=True)
    (tmp_path / "one" / "run_1" / "results.json").write_text(content)
    assert titles(tmp_path, "a/one") == ["a__one"]


def test_a_relative_folder_is_known_again_by_its_absolute_path(tmp_path, monkeypatch):
    model = make_model(tmp_path / "outputs" / "grpo")
    monkeypatch.chdir(tmp_path)
    assert titles(Path("results"), "./outputs/grpo") == ["grpo"]
    monkeypatch.chdir("outputs")
    assert titles(tmp_path / "results", model) == ["grpo"]


def test_models_in_folders_of_their_own_share_no_name(tmp_path):
    places = [tmp_path / "x", tmp_path / "y"]
    models = ["a/one", "b/one"]
    folders = run_folders(places, models, models, None)
    assert [folder.parent for folder in folders] == [tmp_path / "x" / "one", tmp_path / "y" / "one"]


def make_run(folder: Path, *stages: str) -> Path:
    """The folder of a run whose ``stages`` have left checkpoints and models."""
    (folder / "stages").mkdir(parents=True)
    for stage in stages:
        (folder / stage).mkdir()
        (folder / stage / "latest_checkpointed_iteration.txt").write_text("3")
        make_model(folder / "models" / stage)
    return folder


def test_a_runs_folder_stands_for_the_model_of_its_last_stage(tmp_path):
    run = make_run(tmp_path / "run", "sft", "grpo")
    assert exported_model(str(run)) == str(run / "models" / "grpo")
    assert exported_model(str(run / "sft")) == str(run / "models" / "sft")
    assert exported_model(str(make_run(tmp_path / "other", "sft"))) == f"{tmp_path}/other/models/sft"
    assert run_of(exported_model(str(run))) == run


def test_other_names_stand_for_themselves(tmp_path):
    model, empty = make_model(tmp_path / "model"), tmp_path / "empty"
    empty.mkdir()
    for name in (model, str(empty), str(tmp_path / "absent"), "org/model"):
        assert exported_model(name) == name
        assert run_of(name) is None


def test_what_is_no_model_yet_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(InputError, match=r"no trained model in .*run/models yet; let the command that trains it end"):
        exported_model(str(run))
    (run / "grpo").mkdir()
    (run / "grpo" / "latest_checkpointed_iteration.txt").write_text("3")
    with pytest.raises(InputError, match=r"run/grpo holds checkpoints, which are no model yet; .*recipes\.export"):
        exported_model(str(run / "grpo"))
