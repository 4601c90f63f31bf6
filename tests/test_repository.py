"""Facts that stand in two places agree, and the scripts say what is wrong in one line."""

import os
import re
import shutil
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
        ({}, ["trainer.savefreq=3"], "no setting trainer.savefreq; did you mean trainer.save_freq"),
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


@pytest.mark.parametrize("script", ["run_grpo_ehrsql", "run_grpo_ecg", "run_sft_ehrsql", "run_sft_ecg"])
def test_the_run_scripts_look_for_files_in_the_callers_folder(tmp_path, script):
    env = os.environ | {"VENV": sys.prefix, "HARDWARE": "cpu", "OUTPUT_DIR": "out"}
    command = ["bash", str(REPO / "scripts" / f"{script}.sh"), "--dry_run", "recipe.sft.epochs=3"]
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert f"trainer.default_local_dir={tmp_path}/out/sft" in result.stdout
    assert ("# grpo" in result.stdout) == ("grpo" in script)
    assert "recipe.sft.epochs=3" in result.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("exported", "folders"), [("", "of_env:cpu"), ("own", "caller/own:gpu")])
def test_set_up_takes_its_settings_from_the_environment_or_else_from_env(tmp_path, exported, folders):
    (tmp_path / "scripts").mkdir()
    shutil.copy(REPO / "scripts" / "env.sh", tmp_path / "scripts")
    (tmp_path / ".env").write_text("VENV=of_env\nHARDWARE=cpu\n")
    (tmp_path / "caller").mkdir()
    env = {"PATH": os.environ["PATH"], "VENV": exported, "HARDWARE": "gpu" if exported else ""}
    program = 'source ../scripts/env.sh; echo "$VENV:$HARDWARE"'
    result = subprocess.run(["bash", "-euc", program], cwd=tmp_path / "caller", env=env, capture_output=True, text=True)
    assert result.stdout.strip() == (folders.replace("caller", f"{tmp_path}/caller"))


@pytest.mark.parametrize(
    ("env", "arguments", "message"),
    [
        ({}, ["--recipe", "ecg"], "no trained model in {run}/models"),
        ({}, [], "no database at {run}/data/mimic_iv.sqlite"),
        ({"EHR_DB": "/absent.sqlite"}, ["--recipe=ehrsql"], "no database at /absent.sqlite"),
        ({"PRESET": "bogus"}, ["--recipe", "ecg"], "Could not find 'preset/ecg/bogus'"),
        ({}, ["--recipe", "chess"], "invalid choice: 'chess'"),
    ],
)
def test_the_chat_looks_where_the_settings_say(tmp_path, env, arguments, message):
    run = tmp_path / "run"
    result = run_script("chat_with_model.sh", *arguments, **{"HARDWARE": "cpu", "OUTPUT_DIR": str(run)} | env)
    assert result.returncode != 0
    assert message.format(run=run) in result.stderr.strip().splitlines()[-1]
    assert "Traceback" not in result.stderr
