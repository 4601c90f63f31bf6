"""The EHRSQL recipe for real, on the CPU, from nothing to its page: verl's trainers, Ray, FSDP2 and vLLM."""

import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import psutil
import pytest
from recipe_runs import RecipeRun, Start, finished, metrics, metrics_of, recipe

from data_prep import build_ehr_db, make_demo_ehr
from recipes.chat_app.models import ChatModel, ChatOptions

pytestmark = pytest.mark.skipif(os.environ.get("HARDWARE") == "gpu", reason="written for the CPU requirements")

SETTINGS = [
    "recipe.max_response_length=64",
    "recipe.gold_sql_share=0.35",  # 32 questions for SFT, 60 for GRPO
    "recipe.sft.batch_size=8",
    "recipe.sft.epochs=16",  # more, and all samples of a prompt are equal: DAPO finds no group to train on
    "recipe.sft.save_freq=32",
    "recipe.grpo.batch_size=4",
    "recipe.grpo.rollouts=4",
    # A gradient even where all rollouts earn the same, and steps that tell old weights from new ones.
    "actor_rollout_ref.actor.entropy_coeff=0.01",
    "recipe.grpo.learning_rate=1e-3",
    "recipe.grpo.warmup_steps=0",
    "recipe.grpo.lr_scheduler=constant",
    "recipe.grpo.steps=3",
    "algo=dapo",
    "trainer.save_freq=1",
    "trainer.test_freq=1",
]
DEMO = {"demo_ehr": "data/mimic_iv_tree", "database": "data/mimic_iv.sqlite", "questions": "data/questions"}
STAGES = ["parquet", "model", "sft", "export_sft", "grpo", "export_grpo", "evaluate", "card_sft", "card_grpo"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> RecipeRun:
    return RecipeRun("ehrsql", tmp_path_factory.mktemp("demo") / "out", [])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RecipeRun:
    """A run on one type of question, which has few tokens and is soon learned.

    Half of the wrong queries give the right gender, so that the answers to a prompt earn different rewards.
    """
    work = tmp_path_factory.mktemp("ehrsql")
    make_demo_ehr.main(["--out_dir", str(work / "tree")])
    build_ehr_db.main(["--data_dir", str(work / "tree"), "--out_dir", str(work), "--num_patient", "100"])
    with closing(sqlite3.connect(work / "mimic_iv.sqlite")) as database:
        patients = [row[0] for row in database.execute("SELECT row_id FROM patients")]
    for split, rows in {"train": patients[8:], "valid": patients[:8]}.items():
        sql = {f"{split}-{row}": f"SELECT gender FROM patients WHERE row_id = {row}" for row in rows}
        folder = work / "questions" / split
        folder.mkdir(parents=True)
        questions = [{"id": f"{split}-{row}", "question": f"What is the gender of patient {row}?"} for row in rows]
        (folder / "data.json").write_text(json.dumps({"version": "test", "data": questions}))
        (folder / "label.json").write_text(json.dumps(sql))
    variables = {"EHRSQL_DATA": str(work / "questions"), "EHR_DB": str(work / "mimic_iv.sqlite")}
    rollouts = f"trainer.rollout_data_dir={work}/rollouts"
    return RecipeRun("ehrsql", work / "out", [*SETTINGS, rollouts], **variables)


@pytest.fixture(scope="module")
def ended(run) -> RecipeRun:
    """The run when all its stages are finished."""
    with run.start() as start:
        assert start.end() == 0, start.output
    return run


def test_a_demo_that_is_stopped_while_it_is_made_is_made_in_the_end(demo):
    for stage, output in DEMO.items():
        stop_twice(demo, stage, output)
    with demo.start() as start:
        start.wait_for(lambda: "  parquet: " in start.output)
    demo.wait_until_free()
    assert all((demo.folder / output).exists() for output in DEMO.values())


def test_a_run_that_is_stopped_in_every_stage_goes_on_to_its_page(run):
    """By Ctrl-C, by kill -9, and in GRPO by the loss of its processes and of its database, too."""
    stop_twice(run, "parquet", "data/parquet/train.parquet")
    start_a_second_run(run)
    stop_twice(run, "model", "models/tiny")
    stop_sft(run)
    stop_twice(run, "export_sft", "models/sft")
    stop_grpo(run)
    take_the_database_from_grpo(run)
    take_the_reward_processes_from_grpo(run)
    stop_twice(run, "export_grpo", "models/grpo")
    stop_twice(run, "evaluate", None)
    assert not list(run.folder.glob("results/**/results.json"))
    with run.start() as start:
        assert start.end() == 0, start.output
    assert len(start.output.splitlines()) <= 80
    assert run.partial_files() == []
    figures = json.loads((run.folder / "models" / "grpo" / "export.json").read_text())
    assert figures["tensors_changed"] > 0
    assert figures["prompt"] == "question_only"
    assert figures["logprob_difference_mean"] < 0.05
    for label in ("start", "grpo"):
        (path,) = (run.folder / "results" / label).glob("*/*/results.json")
        results = json.loads(path.read_text())
        assert results["summary"]["questions"] == 8
    for stage in ("sft", "grpo"):
        card = (run.folder / "models" / stage / "README.md").read_text()
        assert "| seen templates |" in card and "gender of patient" not in card and str(run.folder) not in card
        assert "not the synthetic demo" in card  # the questions are this test's own
        written = json.loads((run.folder / "models" / stage / "model_results.json").read_text())
        assert written["figures"]["RS(0)"]["questions"] == 8
    assert (run.folder / "summary" / "summary.html").is_file()
    assert (run.folder / "comparison" / "comparison.html").is_file()


def marker(run: RecipeRun, stage: str) -> str:
    """The step of the last checkpoint."""
    file = run.folder / stage / "latest_checkpointed_iteration.txt"
    return file.read_text() if file.is_file() else ""


def press_ctrl_c(start: Start, run: RecipeRun) -> None:
    """It ends all programs and says how to go on."""
    assert start.press_ctrl_c() == (130, []), start.output
    assert start.output.splitlines()[-1] == f"stopped; the same command goes on from here ({run.folder})"
    assert "Traceback" not in start.output


def stop_twice(run: RecipeRun, stage: str, output: str | None) -> None:
    """By Ctrl-C and by kill -9. No stage before this one is repeated, and no half-written ``output`` has its name."""
    final = run.folder / (output or "none")
    writes = lambda: any(final.parent.glob(f".{final.name}.partial-*"))  # noqa: E731

    # Of so few questions, parquet is made in a second. Other stages take longer.
    moment = writes if stage in DEMO else (lambda: True) if stage == "parquet" else None
    with run.start() as start:
        run.in_the_middle_of(stage, start, moment)
        press_ctrl_c(start, run)
    with run.start() as start:
        run.in_the_middle_of(stage, start, moment)
        start.process.kill()
        run.wait_until_free()
    earlier = {line.strip() for line in start.output.splitlines() if line.endswith("finished before")}
    stamps = {path.name for path in (run.folder / "stages").iterdir() if "." not in path.name}
    assert {f"{name}: finished before" for name in stamps} == earlier
    assert stage not in stamps
    assert not final.exists()


def start_a_second_run(run: RecipeRun) -> None:
    """It is refused, and the first goes on."""
    with run.start() as start:
        run.in_the_middle_of("parquet", start, lambda: True)
        second = finished(run.command(), 1, **run.variables)
        assert second == f"another run is using {run.folder}; wait for it, or choose another OUTPUT_DIR\n"
        start.wait_for(lambda: "  parquet: " in start.output)
        press_ctrl_c(start, run)


def stop_sft(run: RecipeRun) -> None:
    """It goes on from its checkpoint, and learns."""
    with run.start() as start:
        run.in_the_middle_of("sft", start)
        press_ctrl_c(start, run)
    with run.start() as start:
        run.in_the_middle_of("sft", start, lambda: marker(run, "sft") == "32")
        start.process.kill()
        run.wait_until_free()
    with run.start() as start:
        run.in_the_middle_of("export_sft", start)
        press_ctrl_c(start, run)
    first, *_, last = sorted((run.folder / "sft" / "metrics").glob("*.jsonl"))
    assert min(metrics_of(first)) == 1
    assert min(step for step, entry in metrics_of(last).items() if "train/loss" in entry) == 33
    steps = metrics(run.folder / "sft")
    losses = [entry["train/loss"] for entry in steps.values() if "train/loss" in entry]
    assert losses[-1] < losses[0] / 5
    assert any("val/loss" in entry for entry in steps.values())


def reward_processes(start: Start) -> list[psutil.Process]:
    """verl's reward actor and the processes that execute SQL for it."""
    names = {process: " ".join(process.cmdline()) for process in start.programs()}
    return [process for process, name in names.items() if "RewardLoopWorker" in name or "sql/worker.py" in name]


def stop_grpo(run: RecipeRun) -> None:
    log = run.folder / "logs" / "grpo.log"
    with run.start() as start:
        run.in_the_middle_of("grpo", start, lambda: "(TaskRunner pid=" in log.read_text(errors="replace"))
        press_ctrl_c(start, run)

    with run.start() as start:  # killed at once: the programs end a moment later, and the next step is short
        run.in_the_middle_of("grpo", start, lambda: marker(run, "grpo") == "1")
        start.process.kill()
        run.wait_until_free()
    assert marker(run, "grpo") == "1"


def take_the_database_from_grpo(run: RecipeRun) -> None:
    """A policy that cannot be graded is not trained: the run ends at the validation before its next step."""
    database = run.folder.parent / "mimic_iv.sqlite"
    away = database.with_name("away.sqlite")
    with run.start() as start:
        run.in_the_middle_of("grpo", start)
        database.rename(away)
        code = start.end()
    away.rename(database)
    assert code == 1
    cause = "8 of 8 answers of the validation at step 1 could not be graded (grader failed: cannot read the database"
    last = start.output.splitlines()[-1]
    assert last.startswith(f"stage grpo failed: {cause}"), last
    assert marker(run, "grpo") == "1"


def take_the_reward_processes_from_grpo(run: RecipeRun) -> None:
    """They are made anew; GRPO goes on from its checkpoint to its end."""
    with run.start() as start:
        run.in_the_middle_of("grpo", start, lambda: marker(run, "grpo") == "2")
        killed = reward_processes(start)
        for process in killed:
            process.kill()
        run.in_the_middle_of("export_grpo", start)
        press_ctrl_c(start, run)
    assert len(killed) >= 2
    resumed = sorted((run.folder / "grpo" / "metrics").glob("*.jsonl"))[-1]
    trained = [step for step, entry in metrics_of(resumed).items() if "critic/score/mean" in entry]
    assert trained == [2, 3]  # resumed, not started again
    check_groups(run.folder.parent / "rollouts" / "3.jsonl")
    steps = metrics(run.folder / "grpo")
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


def check_groups(rollouts: Path) -> None:
    """GRPO is DAPO here: groups of equal rewards are drawn anew."""
    scores: dict[str, list[float]] = {}
    for line in rollouts.read_text().splitlines():
        rollout = json.loads(line)
        scores.setdefault(rollout["input"], []).append(rollout["score"])
    assert scores and all(len(set(group)) > 1 for group in scores.values())


def test_a_finished_run_has_nothing_to_do_and_keeps_its_data(ended):
    again = finished(ended.command(), **ended.variables)
    assert [f"  {stage}: finished before" in again for stage in STAGES] == [True] * len(STAGES)
    refused = finished(ended.command(), 1, **ended.variables | {"SEED": "1"})
    assert "holds a run on other data, or with another seed" in refused.splitlines()[-1]
    refused = finished(ended.command("recipe.sft.batch_size=4"), 1, **ended.variables)
    assert "sft holds a run on other data, from another model or with other settings" in refused.splitlines()[-1]


def test_evaluate_takes_the_folder_of_a_run(ended, tmp_path):
    given = ["--output_dir", tmp_path / "results", "--max_response_length", 64]
    printed = finished(recipe("evaluate", "--model_name", ended.folder, *given), **ended.variables)
    assert f"evaluating {ended.folder} on {ended.folder}/data/parquet/valid.parquet" in printed
    (path,) = tmp_path.glob(f"results/{ended.folder.name}/run_*/results.json")
    results = json.loads(path.read_text())
    assert results["config"]["model_name"] == str(ended.folder / "models" / "grpo")
    assert results["summary"]["questions"] == 8


def test_evaluation_of_the_trained_model(ended, tmp_path):
    """With selection and further answers; its confidences are those of the chat, which transformers generates."""
    dataset = ended.folder / "data" / "parquet" / "train.parquet"
    model = shutil.copytree(ended.folder / "models" / "sft", tmp_path / "sft")
    options = ["--dataset_path", dataset, "--output_dir", tmp_path / "results", "--max_response_length", 64]
    finished(recipe("evaluate", "--model_name", model, *options, "--select", "--further_answers", 2))
    (path,) = (tmp_path / "results").glob("*/*/results.json")
    results = json.loads(path.read_text())
    rows = pd.read_parquet(dataset)
    samples = {sample["id"]: sample for sample in results["samples"]}
    assert {*samples} == {info["id"] for info in rows["extra_info"]}
    assert {len(sample["further"]) for sample in samples.values()} == {2}
    assert results["summary"]["further"]["pass_at_k"].keys() == {"1", "2"}
    assert results["summary"]["selection"]["valid"]["questions"] == 8
    assert (model / "selection.json").is_file()

    chat = ChatModel("sft", str(model), ChatOptions(64))
    chat.load()
    for prompt, info in list(zip(rows["prompt"], rows["extra_info"], strict=True))[:5]:
        sample = samples[info["id"]]
        assert "".join(chat.stream(chat.prompt(list(prompt)))) == sample["response"]
        found = [chat.confidence.logprob_mean, chat.confidence.logprob_min, -chat.confidence.entropy_mean]
        expected = [sample["confidence"][name] for name in ("logprob_mean", "logprob_min", "negative_entropy_mean")]
        assert found == pytest.approx(expected, abs=1e-3)


SAMPLE = """
import json, sys
from recipes.evaluation.generation import GenerationOptions, Generator
prompts = [[{"role": "user", "content": f"What is the gender of patient {number}?"}] for number in range(8)]
for seed in (0, 0, 1):
    options = GenerationOptions(sys.argv[1], max_response_length=16, temperature=1.0, samples=4, seed=seed)
    print("RESPONSES", json.dumps([response.text for response in Generator(options)(prompts)]))
"""


def test_samples_depend_on_the_seed_and_on_nothing_else(ended):
    lines = finished([sys.executable, "-c", SAMPLE, str(ended.folder / "models" / "sft")]).splitlines()
    first, again, other = (json.loads(line.partition(" ")[2]) for line in lines if line.startswith("RESPONSES"))
    assert len(first) == 32
    assert first == again
    assert first != other
    assert any(len(set(first[start : start + 4])) > 1 for start in range(0, 32, 4))  # samples of a prompt differ
