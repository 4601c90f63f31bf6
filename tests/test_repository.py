"""Facts that stand in two places agree, and the scripts say what is wrong in one line."""

import fcntl
import os
import re
import subprocess
import sys

import pytest
from conftest import REPO

VERL_RELEASES = {"0.9.0": "483b8a009ba3a97563edee3a19887e4862b8094a"}  # tag v0.9.0


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=REPO, capture_output=True, text=True).stdout


def run_script(script: str, *arguments: str, **env: str) -> subprocess.CompletedProcess:
    """Run with the environment of this test run, so that set-up has nothing to do."""
    env = os.environ | {"VENV": sys.prefix} | env
    return subprocess.run(["bash", f"scripts/{script}", *arguments], cwd=REPO, env=env, capture_output=True, text=True)


def test_submodule_is_the_release_that_the_requirements_pin():
    pins = [
        (path.name, match[1])
        for path in REPO.glob("requirements*.txt")
        if (match := re.search(r"^verl==(\S+)", path.read_text(), re.M))
    ]
    assert [name for name, _ in pins] == ["requirements-common.txt"]
    mode, commit, *_ = git("ls-files", "--stage", "verl").split()
    assert mode == "160000"
    assert commit == VERL_RELEASES[pins[0][1]]


def test_every_setting_of_the_sample_is_read_somewhere():
    names = re.findall(r"^#([A-Z_]+)=", (REPO / ".env.sample").read_text(), re.M)
    others = {"HF_HOME", "HF_TOKEN", "TMPDIR", "WANDB_API_KEY", "WANDB_MODE", "VLLM_LOGGING_LEVEL"}  # of libraries
    unread = [
        name
        for name in names
        if name not in others and not git("grep", "-lw", name, "--", "scripts", "recipes", "configs", "reward_fns")
    ]
    assert names and unread == []


@pytest.mark.parametrize(
    ("env", "arguments", "message"),
    [
        ({"HARDWARE": "tpu"}, [], "HARDWARE=tpu is unknown"),
        ({"PRESET": "bogus"}, [], "Could not find 'preset/bogus'"),
        ({}, ["preset=bogus"], "Could not find 'preset/bogus'"),
        ({}, ["trainer.savefreq=3"], "Could not override 'trainer.savefreq'"),
        ({"EHRSQL_DATA": "somewhere"}, [], "EHR_DB is not set"),
        ({}, ["recipe.prompts=x"], "recipe.prompts"),
        ({"NUM_SAMPLES": "many"}, [], "NUM_SAMPLES=many"),
    ],
)
def test_bad_input_ends_in_one_line_before_anything_is_made(tmp_path, env, arguments, message):
    env = {"HARDWARE": "cpu", "OUTPUT_DIR": str(tmp_path / "out")} | env
    result = run_script("run_grpo_ehrsql.sh", *arguments, **env)
    assert result.returncode != 0
    assert message in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.path.exists("/dev/nvidia0"), reason="this machine has a GPU")
def test_asking_for_a_gpu_without_one(tmp_path):
    result = run_script("run_grpo_ehrsql.sh", OUTPUT_DIR=str(tmp_path / "out"), HARDWARE="gpu")
    assert result.returncode != 0
    assert "HARDWARE=gpu, but nvidia-smi finds no GPU" in result.stderr.strip().splitlines()[-1]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run_script("run_grpo_ehrsql.sh", OUTPUT_DIR=str(tmp_path), HARDWARE="cpu")
    assert result.returncode != 0
    assert f"another run is using {tmp_path}" in result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("env", "arguments", "message"),
    [
        ({}, [], "no trained model in {run}/models"),
        ({}, ["--recipe", "ehrsql"], "no database at {run}/data/mimic_iv.sqlite"),
        ({"EHR_DB": "/absent.sqlite"}, ["--recipe=ehrsql"], "no database at /absent.sqlite"),
        ({"PRESET": "bogus"}, [], "Could not find 'preset/ecg/bogus'"),
        ({}, ["--recipe", "chess"], "--recipe chess is unknown"),
    ],
)
def test_the_chat_looks_where_the_settings_say(tmp_path, env, arguments, message):
    run = tmp_path / "run"
    result = run_script("chat_with_model.sh", *arguments, **{"HARDWARE": "cpu", "OUTPUT_DIR": str(run)} | env)
    assert result.returncode != 0
    assert message.format(run=run) in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr


def stages(tmp_path, script: str) -> list[str]:
    """Run a script of stages and return the lines it printed."""
    source = f'OUTPUT_DIR={tmp_path}; die() {{ echo "$*"; exit 1; }}; source scripts/stages.sh; take_lock\n{script}'
    lines = subprocess.run(["bash", "-c", source], cwd=REPO, capture_output=True, text=True).stdout.splitlines()
    return [line for line in lines if "done in" not in line]


def test_a_finished_stage_is_skipped_until_it_or_an_earlier_one_changes(tmp_path):
    assert stages(tmp_path, "stage a x echo 1; stage b x echo 2") == ["== a: echo 1", "1", "== b: echo 2", "2"]
    skipped = ["== a: finished before, skipped", "== b: finished before, skipped"]
    assert stages(tmp_path, "stage a x echo 1; stage b x echo 2") == skipped
    assert stages(tmp_path, "stage a x echo 1; stage b x echo 3") == [skipped[0], "== b: echo 3", "3"]
    assert stages(tmp_path, "stage a x echo 4; stage b x echo 3") == ["== a: echo 4", "4", "== b: echo 3", "3"]


def test_a_stage_runs_again_where_a_file_that_it_made_is_gone(tmp_path):
    made = tmp_path / "made by a"
    script = f"stage a '{made}' mkdir -p '{made}/of it'; stage b '{made}/of it/file' touch '{made}/of it/file'"
    skipped = ["== a: finished before, skipped", "== b: finished before, skipped"]
    stages(tmp_path, script)
    assert stages(tmp_path, script) == skipped
    (made / "of it" / "file").unlink()
    assert stages(tmp_path, script) == [skipped[0], f"== b: touch {made}/of it/file"]
    assert stages(tmp_path, script) == skipped


def test_a_failed_stage_ends_the_run_and_is_repeated(tmp_path):
    failed = stages(tmp_path, "stage a x false; stage b x echo 2")
    assert failed[0] == "== a: false" and "stage a failed" in failed[1] and len(failed) == 2
    assert stages(tmp_path, "stage a x true; stage b x echo 2") == ["== a: true", "== b: echo 2", "2"]


def test_a_stage_that_fails_on_a_full_disk_says_so(tmp_path):
    full = "df() { printf 'Avail\\n100\\n'; }"
    assert f"the disk of {tmp_path} is full" in stages(tmp_path, f"{full}; stage a x false")[-1]


def test_a_training_run_is_resumed_for_longer_but_not_otherwise(tmp_path):
    train = "training_stage train $OUTPUT_DIR/run echo on"
    checkpoint = "mkdir -p $OUTPUT_DIR/run; touch $OUTPUT_DIR/run/latest_checkpointed_iteration.txt"
    stages(tmp_path, f"stage data x echo 1; {train}; {checkpoint}")
    longer = stages(tmp_path, f"stage data x echo 1; {train} trainer.total_training_steps=9")
    assert longer[-1] == "on trainer.total_training_steps=9"
    for other in (f"stage data x echo 2; {train}", f"stage data x echo 1; {train} algo=dapo"):
        assert "holds a run on other data" in stages(tmp_path, other)[-1]


@pytest.mark.parametrize("end", ["exit 1", "kill -9 $PPID"])
def test_the_time_of_a_training_run_is_that_of_all_its_starts(tmp_path, end):
    clock, marker = tmp_path / "stages" / "train.seconds", tmp_path / "run" / "latest_checkpointed_iteration.txt"
    program = tmp_path / "train.sh"
    marker.parent.mkdir()
    program.write_text(f"until [ $(cat {clock}) -ge 1 ]; do sleep 0.1; done; touch {marker}; {end}")
    script = f"training_stage train {tmp_path}/run bash {program}"
    stages(tmp_path, script)
    clock.write_text(f"{1000 + int(clock.read_text())}\n")
    program.write_text("")
    stages(tmp_path, script)
    stamp = tmp_path / "stages" / "train"
    assert int(stamp.read_text().split()[1]) > 1000
    marker.unlink()  # training begins anew
    stages(tmp_path, script)
    assert int(stamp.read_text().split()[1]) < 1000


def test_settings_of_grpo_alone_leave_the_sft_stage_as_it_was():
    script = "source scripts/ehrsql.sh; echo ${SFT_CHOICES[@]}"
    arguments = ["recipe.grpo.steps=9", "recipe.sft.epochs=2", "trainer.save_freq=7"]
    result = subprocess.run(["bash", "-c", script, "x", *arguments], cwd=REPO, capture_output=True, text=True)
    assert result.stdout.split() == ["preset=tiny", "recipe.sft.epochs=2"]


def test_a_changed_input_file_makes_stages_run_anew(tmp_path):
    script = f"inputs {tmp_path}/questions.json; stage a x echo 1"
    (tmp_path / "questions.json").write_text("1")
    assert stages(tmp_path, script)[-1] == "1"
    assert stages(tmp_path, script) == ["== a: finished before, skipped"]
    (tmp_path / "questions.json").write_text("12")
    assert stages(tmp_path, script)[-1] == "1"
