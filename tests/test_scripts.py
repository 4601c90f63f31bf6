"""The shell scripts as far as they go without set-up or training."""

import os
import shutil
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPO


def bash(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    env = os.environ | {"HARDWARE": "cpu"} | variables
    return subprocess.run(["bash", *arguments], cwd=REPO, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--lora"], "unknown option --lora"),
        (["--lora_r"], "--lora_r needs a value"),
        (["--batch_size", "four"], "not four"),
        (["--batch_size", "4", "--gradient_accumulation_steps", "0"], "not 0"),
        (["--gradient_accumulation_steps", "4"], "give that too"),
        (["--num_epochs", "abc"], "--num_epochs takes a whole number above 0, not abc"),
        (["--learning_rate", "x"], "--learning_rate takes a number above 0, not x"),
        (["hardware=gpu_8"], "use sft_hardware="),
    ],
)
def test_a_mistake_in_the_sft_options_is_one_line_that_names_it(arguments, named):
    result = bash("scripts/run_sft_ecg.sh", *arguments)
    assert result.returncode == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_names_every_sft_option():
    output = bash("scripts/run_sft_ecg.sh", "--help").stdout
    for option in ("model_name", "num_epochs", "batch_size", "gradient_accumulation_steps", "learning_rate"):
        assert f"--{option}" in output
    for option in ("max_seq_length", "lora_r", "lora_alpha"):
        assert f"--{option}" in output


@pytest.mark.parametrize(
    ("variables", "arguments", "choices"),
    [
        ({}, "", "preset=ecg/tiny sft_adapter=full | adapter=full |"),
        ({"PRESET": "llama3_2_3b"}, "", "preset=ecg/llama3_2_3b sft_adapter=lora | adapter=lora |"),
        ({}, "preset=ecg/smollm2_135m", "preset=ecg/smollm2_135m sft_adapter=lora | adapter=lora |"),
        # Given as a Hydra override it counts for both stages.
        ({}, "adapter=lora a=1", "preset=ecg/tiny sft_adapter=lora | adapter=lora | a=1"),
        # What concerns GRPO or its judge does not reach SFT.
        ({}, "recipe.grpo.steps=2 recipe.judge_model=M", "preset=ecg/tiny sft_adapter=full | adapter=full |"),
        ({}, "recipe.max_length=9", "preset=ecg/tiny recipe.max_length=9 sft_adapter=full | adapter=full |"),
    ],
)
def test_settings_of_the_ecg_scripts_become_choices(variables, arguments, choices):
    program = 'source scripts/ecg.sh; echo "${SFT_CHOICES[@]} | ${GRPO[-1]} | ${OVERRIDES[@]}"'
    settings = {"PRESET": "", "ADAPTER": "", "THINK": ""} | variables
    result = bash("-euc", program, "scripts/test", *arguments.split(), **settings)
    assert result.stdout.strip() == choices


@pytest.mark.parametrize("recipe", ["ehrsql", "ecg"])
def test_the_tiny_model_is_made_for_the_recipe(recipe):
    program = f'source scripts/{recipe}.sh; stage() {{ echo "$*"; }}; data_and_model data/train.parquet true'
    result = bash("-euc", program, "scripts/test", RECIPE_MODEL="tiny", PARQUET="data", MODELS="models")
    assert f" --recipe {recipe} --corpus data/sft_train.parquet data/train.parquet" in result.stdout


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"SEED": "-1"}, "SEED=-1: give a whole number"),
        ({"SEED": "08"}, "SEED=08: give a whole number"),
        ({"NUM_SAMPLES": "0"}, "NUM_SAMPLES=0: give a number"),
        ({"NUM_SAMPLES": "1e3"}, "NUM_SAMPLES=1e3: give a number"),
    ],
)
def test_a_bad_number_is_refused_before_set_up(variables, named, tmp_path):
    result = bash("scripts/run_grpo_ecg.sh", OUTPUT_DIR=str(tmp_path / "out"), VENV=str(tmp_path / "venv"), **variables)
    assert result.returncode != 0
    assert named in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "fine"), [("", True), ("3", True), ("4", False)])
def test_more_samples_than_test_questions_are_refused(number, fine, tmp_path):
    pq.write_table(pa.table({"prompt": ["a", "b", "c"]}), tmp_path / "test.parquet")
    program = 'source scripts/recipe.sh; check_test_set "$FILE"; echo fine'
    result = bash("-euc", program, FILE=str(tmp_path / "test.parquet"), NUM_SAMPLES=number)
    assert (result.stdout == "fine\n") == fine
    assert ("has 3 questions; lower it" in result.stderr) == (not fine)
    absent = bash("-euc", program, FILE=str(tmp_path / "absent.parquet"), NUM_SAMPLES=number)
    assert "absent.parquet" in absent.stderr
    assert absent.returncode != 0


def test_relative_paths_are_the_callers_and_those_of_env_the_repositorys(tmp_path):
    (tmp_path / "repo" / "scripts").mkdir(parents=True)
    shutil.copy(REPO / "scripts" / "env.sh", tmp_path / "repo" / "scripts")
    (tmp_path / "repo" / ".env").write_text("EHR_DB=own.sqlite\nOUTPUT_DIR=own\n")
    (tmp_path / "caller").mkdir()
    program = 'source ../repo/scripts/env.sh; echo "$PWD:$ECG_DATA:$EHR_DB:$OUTPUT_DIR:$EHRSQL_DATA"'
    env = os.environ | {"ECG_DATA": "../ECG-Expert-QA", "OUTPUT_DIR": "out", "EHRSQL_DATA": ""}
    env.pop("EHR_DB", None)
    output = subprocess.run(["bash", "-euc", program], cwd=tmp_path / "caller", env=env, capture_output=True, text=True)
    folders = [
        *(f"{tmp_path}/repo", f"{tmp_path}/ECG-Expert-QA", f"{tmp_path}/repo/own.sqlite", f"{tmp_path}/caller/out"),
        "",
    ]
    assert output.stdout.strip("\n").split(":") == folders


def test_a_folder_keeps_the_data_that_it_was_made_for(tmp_path):
    (tmp_path / "stages").mkdir()
    program = 'die() { echo "$*" >&2; exit 1; }; source scripts/stages.sh; same_data "$@"; echo fine'
    results = [
        bash("-euc", program, "test", data, OUTPUT_DIR=str(tmp_path)) for data in ("demo", "demo", "other", "demo")
    ]
    assert [result.stdout.strip() for result in results] == ["fine", "fine", "", "fine"]
    assert "choose another OUTPUT_DIR" in results[2].stderr


def test_a_training_run_begun_anew_makes_what_follows_run_again(tmp_path):
    program = """
        die() { echo "$*" >&2; exit 1; }
        source scripts/stages.sh
        mkdir -p "$OUTPUT_DIR/stages"
        train() { mkdir -p "$OUTPUT_DIR/sft"; echo 1 > "$OUTPUT_DIR/sft/latest_checkpointed_iteration.txt"; }
        training_stage sft "$OUTPUT_DIR/sft" train
        stage export "$OUTPUT_DIR/model" touch "$OUTPUT_DIR/model"
    """
    runs = [bash("-euc", program, OUTPUT_DIR=str(tmp_path)) for _ in range(2)]
    shutil.rmtree(tmp_path / "sft")
    runs.append(bash("-euc", program, OUTPUT_DIR=str(tmp_path)))
    done = [[stage for stage in ("sft", "export") if f"{stage}: done" in run.stdout] for run in runs]
    assert done == [["sft", "export"], [], ["sft", "export"]], runs[-1].stderr


def test_a_run_of_before_training_runs_were_told_apart_goes_on(tmp_path):
    program = """
        die() { echo "$*" >&2; exit 1; }
        source scripts/stages.sh
        mkdir -p "$OUTPUT_DIR/stages"
        training_stage sft "$OUTPUT_DIR/sft" false
        stage export "$OUTPUT_DIR/model" false
    """
    (tmp_path / "stages").mkdir()
    (tmp_path / "sft").mkdir()
    (tmp_path / "model").touch()
    marker = tmp_path / "sft" / "latest_checkpointed_iteration.txt"
    marker.touch()
    keys_of_both = 'source scripts/stages.sh; UPSTREAM=$(key_of false); echo "$UPSTREAM $(key_of false)"'
    keys = bash("-euc", keys_of_both).stdout.split()
    for (stage, output), key in zip({"sft": marker, "export": tmp_path / "model"}.items(), keys, strict=True):
        (tmp_path / "stages" / stage).write_text(f"{key} 1\n{output}\n")
    (tmp_path / "stages" / "sft.origin").write_text(keys[0])
    result = bash("-euc", program, OUTPUT_DIR=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("finished before") == 2
