"""``recipes.run`` as far as it goes without training: its options, its console, its progress."""

import fcntl
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import REPO
from omegaconf import OmegaConf

from data_prep.common.errors import InputError
from recipes import config, run
from recipes.pipeline.console import RunConsole
from recipes.pipeline.process import ProgramFailed
from recipes.pipeline.progress import TrainingProgress, duration
from recipes.pipeline.sft_options import sft_overrides
from recipes.tasks.ecg.pipeline import Ecg
from recipes.tasks.registry import TASKS


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--lora"], "unrecognized arguments: --lora"),
        (["--lora_r"], "argument --lora_r: expected one argument"),
        (["--batch_size", "four"], "argument --batch_size: invalid whole number above 0 value: 'four'"),
        (["--batch_size", "4", "--gradient_accumulation_steps", "0"], "value: '0'"),
        (
            ["--gradient_accumulation_steps", "4"],
            "--gradient_accumulation_steps multiplies --batch_size; give that too",
        ),
        (["--num_epochs", "abc"], "argument --num_epochs: invalid whole number above 0 value: 'abc'"),
        (["--learning_rate", "inf"], "argument --learning_rate: invalid number above 0 value: 'inf'"),
        (["hardware=gpu_8"], "hardware=gpu_8 is for GRPO; use sft_hardware="),
    ],
)
def test_a_mistake_in_the_sft_options_is_one_line_that_names_it(capsys, arguments, named):
    with pytest.raises(SystemExit) as raised:
        run.parse(["ecg", "--sft_only", *arguments])
    error = capsys.readouterr().err
    assert raised.value.code == 2
    assert named in error
    assert error.count("\n") == 1


def test_sft_options_are_refused_where_grpo_follows(capsys):
    with pytest.raises(SystemExit):
        run.parse(["ecg", "--lora_r", "8"])
    assert "--lora_r is an option of SFT; add --sft_only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "overrides"),
    [
        ("--batch_size 4 --gradient_accumulation_steps 4", ["recipe.sft.batch_size=16"]),
        ("--batch_size 4", ["recipe.sft.batch_size=4"]),
        ("--num_epochs 2 --max_seq_length 99", ["recipe.sft.epochs=2", "recipe.max_length=99"]),
        ("--learning_rate 2e-4", ["recipe.sft.learning_rate=0.0002"]),
        ("--lora_r 16 --lora_alpha 32", ["model.lora_rank=16", "model.lora_alpha=32", "adapter=lora"]),
        ("--model_name my/model", ["recipe.model='my/model'"]),
    ],
)
def test_sft_options_become_overrides(arguments, overrides):
    args = run.parse(["ecg", "--sft_only", *arguments.split()])
    assert sft_overrides(args, {}, Ecg) == overrides


def test_the_preset_of_a_named_model_is_taken_but_never_over_the_users(tmp_path, monkeypatch):
    args = run.parse(["ecg", "--sft_only", "--model_name", "meta-llama/Llama-3.2-3B-Instruct"])
    unset, chosen = {}, {"PRESET": "tiny"}
    sft_overrides(args, unset, Ecg)
    sft_overrides(args, chosen, Ecg)
    assert (unset, chosen) == ({"PRESET": "llama3_2_3b"}, {"PRESET": "tiny"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    args = run.parse(["ecg", "--sft_only", "--model_name", "own"])
    assert sft_overrides(args, {}, Ecg) == [f"recipe.model='{tmp_path}/own'"]


def program(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "recipes.run", *arguments]
    env = os.environ | {"HARDWARE": "cpu"} | variables
    return subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True)


def test_a_dry_run_prints_command_lines_that_verl_takes(tmp_path):
    result = program("ehrsql", "--dry_run", "algo=dapo", OUTPUT_DIR=str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    stages = [line.removeprefix("# ") for line in lines if line.startswith("# ")]
    assert stages[:6] == ["demo_ehr", "database", "questions", "parquet", "model", "sft"]
    assert stages[6:] == ["export_sft", "grpo", "export_grpo", "variants", "evaluate", "card_sft", "card_grpo"]
    grpo = shlex.split(lines[lines.index("# grpo") + 2])  # after the line that makes its folder
    start = grpo.index("recipes.trainer.main_ppo")
    composed = subprocess.run(  # Hydra's own option: print the config, run nothing
        [sys.executable, "-m", *grpo[start:], "--cfg", "job"], cwd=REPO, capture_output=True, text=True
    )
    assert composed.returncode == 0, composed.stderr
    assert "filter_groups" in composed.stdout and f"{tmp_path}/out/models/sft" in composed.stdout
    assert not list(tmp_path.iterdir())


def test_a_dry_run_warns_of_data_that_are_missing(tmp_path):
    result = program(
        "ehrsql", "--dry_run", OUTPUT_DIR=str(tmp_path / "out"), EHRSQL_DATA="/absent", EHR_DB="/absent.db"
    )
    assert result.returncode == 0
    assert result.stderr.startswith("warning: the recipe can't run here: EHRSQL data: no /absent/train/data.json; ")
    assert "# grpo" in result.stdout


def test_a_dry_run_with_think_prepares_data_to_think(tmp_path):
    result = program("ehrsql", "--dry_run", OUTPUT_DIR=str(tmp_path / "out"), THINK="1")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[lines.index("# parquet") + 1].endswith(" --think")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("recipe.grpo.stepz=9", "recipe.grpo.stepz"),
        ("+recipe.sft.epochz=9", "recipe.sft.epochz"),
        ("++recipe.sft.epochz=9", "recipe.sft.epochz"),
        ("trainer.save_frek=9", "trainer.save_frek"),
        ("~trainer.save_frek", "trainer.save_frek"),
        ("preset=tinny", "preset/tinny"),
        ("algo=grpoo", "algo/grpoo"),
        ("recipe.grpo.steps", "recipe.grpo.steps"),
    ],
)
def test_a_misspelt_override_is_one_line_and_leaves_nothing(tmp_path, override, named):
    result = program("ehrsql", override, OUTPUT_DIR=str(tmp_path / "out"))
    assert result.returncode == 1
    assert named in result.stderr and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", TASKS)
def test_a_second_run_in_the_same_folder_is_refused(tmp_path, recipe):
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = program(recipe, OUTPUT_DIR=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == f"another run is using {tmp_path}; wait for it, or choose another OUTPUT_DIR\n"


# The console


def write_metrics(folder, *records: dict, end: str = "\n") -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "20261128T120000Z.jsonl").open("a") as file:
        file.write("\n".join(json.dumps(record) for record in records) + end)


def test_progress_follows_the_metrics_of_this_start(tmp_path):
    write_metrics(tmp_path / "m", {"step": 9, "data": {"train/loss": 1.0}})
    (tmp_path / "m" / "20261128T120000Z.jsonl").rename(tmp_path / "m" / "20261127T120000Z.jsonl")
    progress = TrainingProgress(tmp_path / "m", 30)
    progress.read()
    assert (progress.text(), progress.share()) == ("starting", 0)
    write_metrics(tmp_path / "m", {"step": 0, "data": {"val-core/ehrsql/acc/mean@1": 0.425}})
    progress.read()
    assert progress.text() == "step 0 of 30, validation 42.5%"
    write_metrics(tmp_path / "m", {"step": 1, "data": {"critic/score/mean": 0.5}}, {"step": 2, "data": {}}, end="\n{")
    progress.read()
    assert re.fullmatch(r"step 2 of 30, \d+ s left, reward 0.50, validation 42.5%, .*", progress.text())
    assert progress.share() == 2 / 30
    assert progress.summary() == "2 steps, reward 0.50, validation 42.5%"


def test_a_bad_line_of_metrics_does_not_end_a_training(tmp_path):
    progress = TrainingProgress(tmp_path, 9)
    (tmp_path / "1.jsonl").write_text('\n{"step": 1}\n{"step": "x", "data": {}}\n[]\n{"step": 4, "data": {}}\n')
    progress.read()
    assert progress.step == 4


def test_progress_without_a_known_end(tmp_path):
    progress = TrainingProgress(tmp_path, None)
    write_metrics(tmp_path, {"step": 3, "data": {"train/loss": 0.25, "val-core/a/acc/mean@1": None}})
    progress.read()
    assert progress.text() == "step 3, loss 0.250"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (61, "1 min 1 s"), (3600, "1 h 0 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_where_there_is_no_terminal_a_stage_prints_its_quarters_and_its_end(tmp_path, capsys):
    console = RunConsole()
    with console.stage("grpo", tmp_path / "log") as show:
        for step in range(101):
            show(f"step {step} [of 100]", step / 100)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"  grpo: step {step} [of 100]" for step in (25, 50, 75)] + ["  grpo: 0 s, step 100 [of 100]"]


def test_verbose_adds_what_the_program_prints(tmp_path, capsys):
    log = tmp_path / "log"
    log.write_text("earlier start\n")
    with RunConsole(verbose=True).stage("parquet", log) as show, log.open("a") as file:
        print("[bold]6,000[/bold] questions", file=file, flush=True)
        show("", 0)
    assert capsys.readouterr().out.splitlines()[0] == "[bold]6,000[/bold] questions"


def test_alarms_of_the_monitor_are_shown(tmp_path, capsys):
    log = tmp_path / "log"
    with RunConsole().stage("grpo", log) as show:
        alarm = "\x1b[36m(TaskRunner pid=7)\x1b[0m ALARM 3 of 256 answers of step 2 could not be graded"
        log.write_text(f"chatter ALARM\n{alarm}\nALARM cut o")
        show("step 2", 0)
        with log.open("a") as file:
            file.write("ff\n")
        show("step 3", 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["  grpo: ALARM 3 of 256 answers of step 2 could not be graded", "  grpo: ALARM cut off"]
    assert "chatter" not in " ".join(lines)


def test_control_characters_of_a_log_do_not_reach_the_terminal(tmp_path, capsys):
    log = tmp_path / "log"
    with RunConsole(verbose=True).stage("grpo", log) as show:
        log.write_text("\x1b]0;owned\x07\x1b[2J\rgone\n")
        show("", 0)
    with RunConsole().stage("grpo", log) as show:
        with log.open("a") as file:
            file.write("".join(f"ALARM \x1b[2J {number}\n" for number in range(99)))
        show("", 0)
    printed = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\r"} & {*printed}
    assert len(printed.splitlines()) < 20


def test_the_commands_to_go_on_with_are_those_of_the_run(tmp_path, monkeypatch):
    environ = {"OUTPUT_DIR": str(tmp_path), "EHRSQL_DATA": "/my q", "EHR_DB": "/db", "SEED": "3", "PRESET": "tiny"}
    recipe = TASKS["ehrsql"].pipeline(environ, ["algo=dapo", "trainer.total_training_steps=100"])
    commands = {what: shlex.split(command) for what, command in run.next_commands(recipe).items()}
    longer = commands["train for twice as many steps"]
    assert longer[:5] == ["env", "PRESET=tiny", "SEED=3", "EHRSQL_DATA=/my q", "EHR_DB=/db"]
    assert longer[-1] == "trainer.total_training_steps=200" and "algo=dapo" in longer
    assert commands["talk to the model"][-4:] == ["--db_path", "/db", "--prompt", "question_only"]
    thinks = TASKS["ehrsql"].pipeline(environ | {"THINK": "1"}, ["trainer.total_training_steps=100"])
    commands = {what: shlex.split(command) for what, command in run.next_commands(thinks).items()}
    assert commands["talk to the model"][-1] == "--think"
    assert "THINK=1" in commands["train for twice as many steps"]
    assert not any("real data" in what for what in commands)


def test_a_failed_stage_shows_its_cause_its_last_lines_and_its_log(tmp_path, capsys, monkeypatch):
    recipe = TASKS["ehrsql"].pipeline({"OUTPUT_DIR": str(tmp_path)}, [])
    failure = ProgramFailed("ValueError: bad batch", ["Traceback", "ValueError: bad batch"])
    with pytest.raises(InputError, match=f"stage grpo failed: ValueError: bad batch; log: {tmp_path}/log; ") as raised:
        run.fail(recipe, "grpo", tmp_path / "log", failure)
    assert "goes on from here" in str(raised.value)
    assert capsys.readouterr().err == "  | Traceback\n  | ValueError: bad batch\n"
    monkeypatch.setattr(run, "FULL", 2**60)
    with pytest.raises(InputError, match=f"stage grpo failed: the disk of {tmp_path} is full; free space"):
        run.fail(recipe, "grpo", tmp_path / "log", failure)


def test_ctrl_c_while_a_config_is_composed_is_no_mistake_in_the_overrides(monkeypatch):
    def compose(*_):
        try:
            raise KeyboardInterrupt
        finally:
            OmegaConf.create({"interrupted": "???"}).interrupted  # noqa: B018  OmegaConf's clean-up fails in this way

    monkeypatch.setattr(config, "compose", compose)
    with pytest.raises(KeyboardInterrupt):
        config.compose_config("ehrsql_sft", [])
