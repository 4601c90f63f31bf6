"""Several engines share the prompts of an evaluation: each in a process with GPUs of its own."""

import os
import subprocess
import sys

import pytest
from conftest import REPO

from data_prep.common.errors import InputError
from recipes import hardware
from recipes.evaluation.data_parallel import gpus_of_engines, in_processes

H200 = hardware.Gpu("NVIDIA H200", 143771, "580.65.06")


@pytest.fixture
def machine(monkeypatch):
    """Makes this machine one with so many GPUs, of which CUDA_VISIBLE_DEVICES shows some."""

    def make(gpus: int, visible: str | None = None) -> None:
        monkeypatch.delenv("HARDWARE", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(hardware, "find_gpus", lambda: [H200] * gpus)

    return make


@pytest.mark.parametrize(
    ("gpus", "visible", "tensor", "data", "expected"),
    [
        (8, None, 1, 1, ["0"]),
        (8, None, 2, 3, ["0,1", "2,3", "4,5"]),
        (8, "7,5,2", 1, 3, ["7", "5", "2"]),
        (8, "GPU-a,GPU-b", 2, 1, ["GPU-a,GPU-b"]),
        (0, None, 1, 1, [""]),
    ],
)
def test_each_engine_has_gpus_of_its_own(machine, gpus, visible, tensor, data, expected):
    machine(gpus, visible)
    assert gpus_of_engines(tensor, data) == expected


@pytest.mark.parametrize(
    ("gpus", "visible", "tensor", "data", "message"),
    [
        (8, None, 0, 1, "--tensor_parallel_size is 0; give 1 or more"),
        (8, None, 1, -1, "--data_parallel_size is -1; give 1 or more"),
        (2, None, 2, 2, "need 4 GPUs together, and there are 2; lower one"),
        (8, "0", 2, 1, "need 2 GPUs together, and there are 1; lower one"),
        (0, None, 2, 1, "--tensor_parallel_size 2 is for GPUs, and the evaluation runs on the CPU; leave it out"),
        (0, None, 2, 4, "--tensor_parallel_size 2 --data_parallel_size 4 is for GPUs"),
    ],
)
def test_what_the_machine_cannot_do_is_one_line(machine, gpus, visible, tensor, data, message):
    machine(gpus, visible)
    with pytest.raises(InputError, match=message):
        gpus_of_engines(tensor, data)


def test_evaluate_refuses_it_before_anything_is_read(tmp_path):
    command = [
        sys.executable,
        "-m",
        "recipes.evaluate",
        "--model_name",
        "org/model",
        "--dataset_path",
        "absent.parquet",
    ]
    done = subprocess.run(
        [*command, "--data_parallel_size", "2"],
        cwd=REPO,
        env=os.environ | {"HARDWARE": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "--data_parallel_size 2 is for GPUs, and the evaluation runs on the CPU; leave it out\n"


def describe(number: int, prompts: list[int]) -> list[str]:
    return [f"{number} {os.environ['CUDA_VISIBLE_DEVICES']} {prompt}" for prompt in prompts]


@pytest.mark.parametrize(
    ("prompts", "answers"),
    [
        ([5, 6, 7], ["0 a,b 5", "0 a,b 6", "1 c,d 7"]),
        ([5], ["0 a,b 5"]),  # fewer prompts than engines
    ],
)
def test_answers_come_in_the_order_of_the_prompts_each_from_a_process_with_its_gpus(prompts, answers):
    assert in_processes(describe, prompts, ["a,b", "c,d"]) == answers
