"""The pipeline for real, on the CPU: verl's trainers, Ray, FSDP2 and vLLM on a database and a model made here."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conftest import REPO

from data_prep import build_ehr_db, ehrsql, make_demo_ecg, make_demo_ehr

pytestmark = pytest.mark.skipif(os.environ.get("HARDWARE") == "gpu", reason="written for the CPU requirements")

STEP_TIMEOUT_S = 600  # of one stage; a hang must end the test run, a slow machine must not


def recipe(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"recipes.{module}", *map(str, arguments)]


def run(command: list[str], **variables: str) -> str:
    """Run a stage to its end and return what it printed."""
    env = os.environ | {"HARDWARE": "cpu"} | variables
    result = subprocess.run(
        command, cwd=REPO, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=STEP_TIMEOUT_S
    )
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout


def metrics(run_dir: Path) -> dict[int, dict[str, float]]:
    """All metrics of a run by step, from the files of all its starts."""
    return metrics_of(*sorted((run_dir / "metrics").glob("*.jsonl")))


def metrics_of(*files: Path) -> dict[int, dict[str, float]]:
    steps: dict[int, dict[str, float]] = {}
    for path in files:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            steps.setdefault(entry["step"], {}).update(entry["data"])
    return steps


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with parquet files of one question type (few tokens, soon learned) and a tiny start model."""
    work = tmp_path_factory.mktemp("end_to_end")
    make_demo_ehr.main(["--out_dir", str(work / "tree"), "--patients", "40"])
    build_ehr_db.main(["--data_dir", str(work / "tree"), "--out_dir", str(work)])
    with closing(sqlite3.connect(work / "mimic_iv.sqlite")) as database:
        patients = [row[0] for row in database.execute("SELECT subject_id FROM patients")]
    for split, ids in {"train": patients[8:], "valid": patients[:8]}.items():
        sql = {f"{split}-{id_}": f"SELECT gender FROM patients WHERE subject_id = {id_}" for id_ in ids}
        folder = work / "questions" / split
        folder.mkdir(parents=True)
        questions = [{"id": f"{split}-{id_}", "question": f"What is the gender of patient {id_}?"} for id_ in ids]
        (folder / "data.json").write_text(json.dumps({"version": "test", "data": questions}))
        (folder / "label.json").write_text(json.dumps(sql))
    options = ["--data_dir", str(work / "questions"), "--db", str(work / "mimic_iv.sqlite")]
    ehrsql.main([*options, "--out_dir", str(work / "parquet"), "--prompt", "question_only"])
    run(recipe("models", "tiny", "--out_dir", work / "tiny", "--corpus", work / "parquet" / "sft_train.parquet"))
    return work


def grpo(work: Path, name: str, *overrides: str) -> list[str]:
    return recipe(
        "launch",
        "ehrsql_grpo",
        f"data.train_files={work}/parquet/train.parquet",
        f"data.val_files={work}/parquet/valid.parquet",
        f"actor_rollout_ref.model.path={work}/sft_model",
        f"trainer.default_local_dir={work}/{name}",
        "data.train_batch_size=4",
        "actor_rollout_ref.rollout.n=4",
        # A gradient even where all rollouts earn the same, and steps that tell old weights from new ones.
        "actor_rollout_ref.actor.entropy_coeff=0.01",
        "recipe.grpo.learning_rate=1e-3",
        "recipe.grpo.warmup_steps=0",
        "recipe.grpo.lr_scheduler=constant",
        "trainer.save_freq=1",
        "trainer.test_freq=1",
        *overrides,
    )


def export(work: Path, name: str, start: str) -> dict:
    folder = work / f"{name}_model"
    options = ["--start_model", work / start, "--prompts", work / "parquet" / "valid.parquet", "--out_dir", folder]
    run(recipe("export", "--checkpoint_dir", work / name, *options))
    return json.loads((folder / "export.json").read_text())


@pytest.fixture(scope="module")
def sft_model(work) -> Path:
    """The tiny model after verl's SFT trainer, exported."""
    run(
        recipe(
            "launch",
            "ehrsql_sft",
            f"data.train_files={work}/parquet/sft_train.parquet",
            f"data.val_files={work}/parquet/sft_valid.parquet",
            f"model.path={work}/tiny",
            f"trainer.default_local_dir={work}/sft",
            "recipe.sft.batch_size=8",  # verl drops an incomplete batch, of the 8 validation rows too
            "trainer.total_epochs=16",  # more, and all samples of a prompt are equal: DAPO finds no group to train on
            "trainer.save_freq=-1",
            "trainer.test_freq=40",
        )
    )
    export(work, "sft", "tiny")
    return work / "sft_model"


def test_sft_learns(work, sft_model):
    entries = metrics(work / "sft").values()
    losses = [entry["train/loss"] for entry in entries if "train/loss" in entry]
    assert losses[-1] < losses[0] / 5
    assert any("val/loss" in entry for entry in entries)
    assert (sft_model / "model.safetensors").is_file()


@contextmanager
def running(command: list[str], log_file: Path, reached: Callable[[], bool]) -> Iterator[subprocess.Popen]:
    """Start a stage and yield its process once ``reached``."""
    with log_file.open("w") as log:
        env = os.environ | {"HARDWARE": "cpu"}
        process = subprocess.Popen(command, cwd=REPO, env=env, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while not reached():
            assert process.poll() is None, log_file.read_text()[-5000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield process


def reward_processes(trainer: subprocess.Popen) -> list[psutil.Process]:
    """verl's reward actor and the processes that execute SQL for it."""
    names = {process: " ".join(process.cmdline()) for process in psutil.Process(trainer.pid).children(recursive=True)}
    return [process for process, name in names.items() if "RewardLoopWorker" in name or "sql_worker" in name]


def test_grpo_survives_kills_resumes_and_exports(work, sft_model):
    """The first start is DAPO: groups of equal rewards are drawn anew."""
    run_dir = work / "grpo"
    marker = run_dir / "latest_checkpointed_iteration.txt"

    def checkpoint(step: int) -> bool:
        return marker.is_file() and marker.read_text() == str(step)

    rollouts = work / "rollouts" / "1.jsonl"  # written when the checkpoint is

    def one_step() -> bool:
        return checkpoint(1) and rollouts.is_file() and rollouts.read_text().count("\n") >= 16

    dapo = ["algo=dapo", f"trainer.rollout_data_dir={rollouts.parent}"]
    first = grpo(work, "grpo", *dapo, "trainer.total_training_steps=2")
    with running(first, work / "killed.log", one_step) as trainer:
        os.killpg(trainer.pid, signal.SIGKILL)
        trainer.wait()
    assert checkpoint(1)
    scores: dict[str, list[float]] = {}
    for line in rollouts.read_text().splitlines():
        rollout = json.loads(line)
        scores.setdefault(rollout["input"], []).append(rollout["score"])
    assert all(len(set(group)) > 1 for group in scores.values())

    time.sleep(1)  # the next start's metrics file is named by the second
    log_file = work / "resumed.log"
    second = grpo(work, "grpo", "trainer.total_training_steps=3")
    with running(second, log_file, lambda: checkpoint(2)) as trainer:
        killed = reward_processes(trainer)
        for process in killed:
            process.kill()
        assert trainer.wait(STEP_TIMEOUT_S) == 0, log_file.read_text()[-5000:]
    assert len(killed) >= 2
    assert checkpoint(3)
    resumed = sorted((run_dir / "metrics").glob("*.jsonl"))[-1]
    trained = [step for step, entry in metrics_of(resumed).items() if "critic/score/mean" in entry]
    assert trained == [2, 3]  # resumed, not started again
    steps = metrics(run_dir)
    for step in trained:
        # vLLM has the actor's weights, at first those of the checkpoint: 2e-8 and 7e-9. With the first weights sent
        # again and again it was 0.05 and 0.16.
        assert abs(steps[step]["actor/ppo_kl"]) < 1e-5
        assert 0 <= steps[step]["critic/score/mean"] <= 1
        assert "val-core/ehrsql/acc/mean@1" in steps[step]
        # The parts of the reward, and how many of a step's metrics have drifted.
        assert 0 <= steps[step]["rollout/executed"] <= 1
        assert 0 <= steps[step]["rollout/identical_answers"] <= 1
        assert steps[step]["monitor/alarms"] == 0
        assert steps[step]["rollout/grader_failed"] == 0
        assert 0 < steps[step]["timing_s/reward/mean"] <= steps[step]["timing_s/reward/max"]

    figures = export(work, "grpo", "sft_model")
    assert figures["tensors_changed"] > 0
    assert figures["logprob_difference_mean"] < 0.05

    # A step that cannot be graded trains nothing, and the run ends.
    (work / "mimic_iv.sqlite").rename(work / "away.sqlite")
    try:
        third = grpo(work, "grpo", "trainer.total_training_steps=4", "trainer.val_before_train=False")
        env = os.environ | {"HARDWARE": "cpu"}
        lost = subprocess.run(third, cwd=REPO, env=env, capture_output=True, text=True, timeout=STEP_TIMEOUT_S)
    finally:
        (work / "away.sqlite").rename(work / "mimic_iv.sqlite")
    assert lost.returncode == 1
    assert "16 of 16 answers of step 4 could not be graded (grader failed: cannot read the database" in lost.stderr
    assert checkpoint(3)


def test_the_ecg_recipe_runs_from_nothing_to_its_page(tmp_path):
    """SFT and a step of GRPO with LoRA adapters; the model only has to answer something."""
    make_demo_ecg.main(["--out_dir", str(tmp_path / "ecg"), "--questions", "100"])
    out = tmp_path / "run"
    settings = [
        "data.max_response_length=16",
        "recipe.cpu_tokens_per_batch=1024",
        "recipe.max_prompt_length=512",  # of few texts the tokenizer makes long prompts
        "recipe.max_length=528",
        "recipe.sft.batch_size=4",
        "recipe.sft.epochs=1",
        "recipe.grpo.batch_size=8",
        "recipe.grpo.rollouts=2",
        "recipe.grpo.learning_rate=1e-2",
        "recipe.grpo.steps=1",
        "actor_rollout_ref.actor.entropy_coeff=0.01",  # a gradient where all answers earn nothing
        "trainer.save_freq=1",
    ]
    variables = {"ECG_DATA": str(tmp_path / "ecg"), "OUTPUT_DIR": str(out), "ADAPTER": "lora", "NUM_SAMPLES": "5"}
    printed = run(recipe("run", "ecg", *settings), **variables)
    assert len(printed.splitlines()) <= 80

    (step,) = [entry for entry in metrics(out / "grpo").values() if "actor/kl_loss" in entry]
    names = {f"rollout/{name}" for name in ("contradiction", "copied", "identical_answers", "coverage", "format_ok")}
    assert names <= step.keys()
    assert {"actor/entropy_loss", "response_length/mean", "monitor/alarms"} <= step.keys()
    assert any(name.startswith("rollout/score/ecg/") for name in step)
    assert (out / "grpo" / "monitor_baseline.json").is_file()
    for stage in ("sft", "grpo"):
        figures = json.loads((out / "models" / stage / "export.json").read_text())
        assert figures["tensors_changed"] > 0
        assert figures["logprob_difference_mean"] < figures["logprob_difference_of_start_mean"]
    page = (out / "summary" / "summary.html").read_text()
    assert "chat_with_model.sh" in page
    assert (out / "comparison" / "comparison.html").is_file()
    again = run(recipe("run", "ecg", *settings), **variables)
    assert "grpo: finished before" in again and "evaluate: finished before" in again


def test_evaluation_of_the_trained_model(work, sft_model):
    dataset = work / "parquet" / "valid.parquet"
    options = ["--dataset_path", dataset, "--output_dir", work / "results", "--max_response_length", 64]
    run(recipe("evaluate", "--model_name", sft_model, *options))
    (path,) = (work / "results").glob("*/*/results.json")
    results = json.loads(path.read_text())
    assert {sample["id"] for sample in results["samples"]} == {
        info["id"] for info in pd.read_parquet(dataset)["extra_info"]
    }
    assert results["summary"]["questions"] == 8


SAMPLE = """
import json, sys
from recipes.generation import GenerationOptions, Generator
prompts = [[{"role": "user", "content": f"What is the gender of patient {number}?"}] for number in range(8)]
for seed in (0, 0, 1):
    options = GenerationOptions(sys.argv[1], max_response_length=16, temperature=1.0, samples=4, seed=seed)
    print("RESPONSES", json.dumps([response.text for response in Generator(options)(prompts)]))
"""


def test_samples_depend_on_the_seed_and_on_nothing_else(sft_model):
    lines = run([sys.executable, "-c", SAMPLE, str(sft_model)]).splitlines()
    first, again, other = (json.loads(line.partition(" ")[2]) for line in lines if line.startswith("RESPONSES"))
    assert len(first) == 32
    assert first == again
    assert first != other
    assert any(len(set(first[start : start + 4])) > 1 for start in range(0, 32, 4))  # samples of a prompt differ
