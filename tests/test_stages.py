"""Which stages run again, which training runs are resumed, and what a run's folder remembers."""

import shutil
import subprocess
from pathlib import Path

import pytest

from data_prep.common.errors import InputError
from recipes.pipeline.stages import MARKER, DryRun, Stages


class Folder:
    """An output folder; each of its ``stages`` is those of a new run. ``log`` says what ran and what was skipped."""

    def __init__(self, path: Path):
        self.path = path
        self.log: list[str] = []

    def stages(self) -> Stages:
        self.log.clear()
        return Stages(self.path, self.execute, lambda name: self.log.append(f"{name} skipped"))

    def execute(self, name, program, meanwhile):
        meanwhile()
        self.log.append(name)
        if subprocess.run(program).returncode:
            raise InputError(f"stage {name} failed")

    def run(self, *programs: tuple[str, str]) -> list[str]:
        """Stages of names and shell commands, each of which writes the file or folder of its name."""
        stages = self.stages()
        for name, command in programs:
            stages.stage(name, self.path / name, ["sh", "-c", f"cd {self.path}; {command}"])
        return list(self.log)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_a_finished_stage_is_skipped_until_it_or_an_earlier_one_changes(folder):
    assert folder.run(("a", "echo 1"), ("b", "echo 2")) == ["a", "b"]
    assert folder.run(("a", "echo 1"), ("b", "echo 2")) == ["a skipped", "b skipped"]
    assert folder.run(("a", "echo 1"), ("b", "echo 3")) == ["a skipped", "b"]
    assert folder.run(("a", "echo 4"), ("b", "echo 3")) == ["a", "b"]


def test_a_stage_runs_again_where_a_file_that_it_made_is_gone(folder):
    programs = ("a", "mkdir -p 'a/of it'; touch a/x"), ("b", "touch 'a/of it/file' b")
    folder.run(*programs)
    assert folder.run(*programs) == ["a skipped", "b skipped"]
    (folder.path / "b").unlink()
    assert folder.run(*programs) == ["a skipped", "b"]
    (folder.path / "a" / "x").unlink()
    assert folder.run(*programs) == ["a", "b skipped"]


def test_a_failed_stage_ends_the_run_and_is_repeated(folder):
    with pytest.raises(InputError, match="stage a failed"):
        folder.run(("a", "false"), ("b", "true"))
    assert folder.log == ["a"]
    assert folder.run(("a", "true"), ("b", "true")) == ["a", "b"]


def test_a_stage_that_fails_after_it_has_once_succeeded_is_repeated(folder):
    folder.run(("a", "touch a"))
    with pytest.raises(InputError):
        folder.run(("a", "false"))
    assert folder.run(("a", "touch a")) == ["a"]


def test_stages_of_a_branch_do_not_count_for_those_after_it(folder):
    def run(option: str) -> list[str]:
        stages = folder.stages()
        with stages.branch():
            stages.stage("a", folder.path / "a", ["echo", option])
        stages.stage("b", folder.path / "b", ["echo"])
        return list(folder.log)

    assert run("1") == ["a", "b"]
    assert run("2") == ["a", "b skipped"]


def train(folder: Folder, *overrides: str, data: str = "1", program: str = "touch $0/run/" + MARKER) -> list[str]:
    stages = folder.stages()
    (folder.path / "run").mkdir(exist_ok=True)
    stages.stage("data", folder.path / "data", ["echo", data])
    command = ["sh", "-c", program, str(folder.path), *overrides]
    stages.training("train", folder.path / "run", command)
    stages.stage("export", folder.path / "export", ["echo"])
    return list(folder.log)


@pytest.mark.parametrize(
    "longer",
    [
        *("trainer.total_training_steps=9", "++trainer.total_epochs=9", "+trainer.save_freq=1", "recipe.grpo.steps=60"),
        *("++recipe.sft.epochs=3", "trainer.val_before_train=False", "trainer.logger=[console,file]"),
    ],
)
def test_a_training_run_is_resumed_for_longer(folder, longer):
    assert train(folder) == ["data", "train", "export"]
    assert train(folder, longer) == ["data skipped", "train", "export"]


@pytest.mark.parametrize("other", ["algo=dapo", "+trainer.seed=2", "recipe.sft.learning_rate=1e-3", "~trainer.x"])
def test_a_training_run_is_not_resumed_with_other_settings(folder, other):
    train(folder)
    with pytest.raises(InputError, match="holds a run on other data, from another model or with other settings"):
        train(folder, other)


def test_a_training_run_is_not_resumed_on_other_data(folder):
    train(folder)
    with pytest.raises(InputError, match="holds a run on other data"):
        train(folder, data="2")


def test_a_training_run_begun_anew_makes_what_follows_run_again(folder):
    train(folder)
    assert train(folder) == ["data skipped", "train skipped", "export skipped"]
    shutil.rmtree(folder.path / "run")
    assert train(folder) == ["data skipped", "train", "export"]


def test_the_time_of_a_training_run_is_that_of_all_its_starts(folder):
    with pytest.raises(InputError):  # a checkpoint, then a failure
        train(folder, program=f"touch $0/run/{MARKER}; exit 1 # $@")
    clock = folder.path / "stages" / "train.seconds"
    clock.write_text(f"{1000 + int(clock.read_text())}\n")
    (folder.path / "stages" / "train.origin").unlink()
    with pytest.raises(InputError, match="other settings"):
        train(folder)
    shutil.rmtree(folder.path / "run")
    train(folder)
    assert folder.stages().seconds("train") < 1000  # begun anew
    (folder.path / "stages" / "train").unlink()
    clock.write_text("1000\n")
    train(folder)
    assert folder.stages().seconds("train") >= 1000


@pytest.mark.parametrize("damage", [b"", b"\xff\x00"])
def test_a_damaged_stamp_or_clock_is_none(folder, damage):
    train(folder)
    for file in ("data", "train", "train.seconds"):
        (folder.path / "stages" / file).write_bytes(damage)
    assert train(folder) == ["data", "train", "export skipped"]


def test_a_folder_keeps_the_data_that_it_was_made_for(folder):
    folder.stages().same_data("demo")
    folder.stages().same_data("demo")
    with pytest.raises(InputError, match="choose another OUTPUT_DIR"):
        folder.stages().same_data("other")
    folder.stages().same_data("demo")


def test_a_changed_input_file_makes_stages_run_anew(folder):
    questions = folder.path / "questions.json"

    def run() -> list[str]:
        stages = folder.stages()
        stages.after_files([questions, folder.path / "absent.json"])
        stages.stage("a", folder.path / "a", ["echo"])
        return list(folder.log)

    questions.write_text("1")
    assert run() == ["a"]
    assert run() == ["a skipped"]
    questions.write_text("12")
    assert run() == ["a"]


def test_changed_contents_make_stages_run_anew_but_a_changed_time_does_not(folder):
    source = folder.path / "source.yaml"

    def run() -> list[str]:
        stages = folder.stages()
        stages.after_contents(folder.path, ["source.yaml"])
        stages.stage("a", folder.path / "a", ["echo"])
        return list(folder.log)

    source.write_text("1")
    assert run() == ["a"]
    source.write_text("1")
    assert run() == ["a skipped"]
    source.write_text("2")
    assert run() == ["a"]


KEYS = """
key_of() { printf '%s\\n' "$UPSTREAM" "$@" | sha256sum | cut -c1-16; }
UPSTREAM="" DIR=$1
UPSTREAM=$(key_of "$(stat -c '%n %s %Y' -- "$DIR/questions.json" "$DIR/label.json")")
UPSTREAM=$(key_of "$(sha256sum -- source.yaml)")
cat > "$DIR/stages/a" <<< "$(key_of echo 1) 1"
UPSTREAM=$(key_of echo 1)
key_of true algo=dapo > "$DIR/stages/train.origin"
cat > "$DIR/stages/train" <<< "$(key_of true algo=dapo trainer.save_freq=3) 1"
UPSTREAM=$(key_of true algo=dapo trainer.save_freq=3)
cat > "$DIR/stages/export" <<< "$(key_of echo 2) 1"
"""


def test_a_folder_of_the_versions_whose_stages_were_shell_functions_goes_on(folder):
    for name in ("questions.json", "label.json", "source.yaml"):
        (folder.path / name).write_text(name)
    (folder.path / "stages").mkdir()
    (folder.path / "run").mkdir()
    (folder.path / "run" / MARKER).touch()
    subprocess.run(["bash", "-euc", KEYS, "bash", str(folder.path)], cwd=folder.path, check=True)
    stages = folder.stages()
    stages.after_files([folder.path / "questions.json", folder.path / "label.json"])
    stages.after_contents(folder.path, ["source.yaml"])
    stages.stage("a", folder.path / "a", ["echo", "1"])
    stages.training("train", folder.path / "run", ["true", "algo=dapo", "trainer.save_freq=3"])
    stages.stage("export", folder.path / "export", ["echo", "2"])
    assert folder.log == ["a skipped", "train skipped", "export skipped"]


def test_a_dry_run_shows_programs_and_touches_nothing(tmp_path):
    shown = []
    stages = DryRun(lambda name, program: shown.append((name, program)))
    stages.same_data("demo")
    stages.after_files([tmp_path / "absent"])
    stages.after_contents(tmp_path, ["absent"])
    stages.stage("a", tmp_path / "a", ["false"])
    stages.training("b", tmp_path / "b", ["false", "x=1"])
    assert shown == [("a", ["false"]), ("b", ["false", "x=1"])]
    assert not list(tmp_path.iterdir())
