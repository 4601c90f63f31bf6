"""The shell scripts as far as they go without set-up or training."""

import os
import subprocess

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


def test_a_folder_keeps_the_data_that_it_was_made_for(tmp_path):
    (tmp_path / "stages").mkdir()
    program = 'die() { echo "$*" >&2; exit 1; }; source scripts/stages.sh; same_data "$@"; echo fine'
    results = [
        bash("-euc", program, "test", data, OUTPUT_DIR=str(tmp_path)) for data in ("demo", "demo", "other", "demo")
    ]
    assert [result.stdout.strip() for result in results] == ["fine", "fine", "", "fine"]
    assert "choose another OUTPUT_DIR" in results[2].stderr
