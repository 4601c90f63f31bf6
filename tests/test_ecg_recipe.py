"""The ECG recipe for real, on the CPU, from its questions to its page: as a Ray job, and on a disk that is full."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPO
from recipe_runs import TIMEOUT_S, RecipeRun, finished, metrics, recipe

from data_prep import make_demo_ecg

pytestmark = pytest.mark.skipif(os.environ.get("HARDWARE") == "gpu", reason="written for the CPU requirements")

# SFT and a step of GRPO with LoRA adapters; the model only has to answer something.
SETTINGS = [
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


@pytest.fixture
def questions(tmp_path) -> Path:
    make_demo_ecg.main(["--out_dir", str(tmp_path / "ecg"), "--questions", "100"])
    return tmp_path / "ecg"


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def ray_cluster(log: Path) -> Iterator[dict[str, str]]:
    """A cluster of this machine alone, as the README starts it. Yields the variables of those who submit jobs."""
    gcs, dashboard, client = free_ports(3)
    folder = tempfile.mkdtemp(prefix="ray")  # Ray's sockets need a short path
    inherited = {name: value for name, value in os.environ.items() if name != "VENV"}  # jobs take the cluster's
    environ = inherited | {
        "HARDWARE": "cpu",
        "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
        "RAY_TMPDIR": folder,  # no other test takes this cluster for its own
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    head = [
        *("ray", "start", "--head", "--block", "--num-cpus=16", "--num-gpus=1", "--node-ip-address=127.0.0.1"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        f"--temp-dir={folder}",
    ]
    start = {name: value for name, value in environ.items() if name != "RAY_ADDRESS"}
    with log.open("w") as output:
        process = subprocess.Popen(head, env=start, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while subprocess.run(["ray", "job", "list"], env=environ, capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-5000:]
            time.sleep(1)
        yield environ
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_ray_job_runs_from_nothing_to_its_page(tmp_path, questions):
    out = tmp_path / "run"
    variables = {"ECG_DATA": str(questions), "OUTPUT_DIR": str(out), "ADAPTER": "lora", "NUM_SAMPLES": "5"}
    script = ["env", *(f"{name}={value}" for name, value in variables.items()), "bash", "scripts/run_grpo_ecg.sh"]
    with ray_cluster(tmp_path / "ray.log") as environ:
        job = ["ray", "job", "submit", "--working-dir", ".", "--", *script, *SETTINGS]
        submitted = subprocess.run(job, cwd=REPO, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S)
    printed = submitted.stdout + submitted.stderr
    assert submitted.returncode == 0, printed[-5000:]
    assert re.search(r"Job '\w+' succeeded", printed)
    console = re.search(r"^ecg, preset tiny.*?(?=^\S*.*Job '\w+' succeeded)", printed, re.DOTALL | re.MULTILINE)[0]
    assert "finished before" not in console and len(console.splitlines()) <= 80

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
        card = (out / "models" / stage / "README.md").read_text()
        assert "| correctness |" in card and "synthetic demo" in card and str(out) not in card
    assert "chat_with_model.sh" in (out / "summary" / "summary.html").read_text()
    assert (out / "comparison" / "comparison.html").is_file()

    again = finished(recipe("run", "ecg", *SETTINGS), **variables)
    assert len(again.splitlines()) <= 80
    assert "grpo: finished before" in again and "evaluate: finished before" in again

    # Other questions are not mixed with those that the run was trained on.
    file = min(questions.glob("*.json"))
    file.write_text(json.dumps(json.loads(file.read_text())[1:]))
    refused = finished(recipe("run", "ecg", *SETTINGS), 1, **variables)
    assert f"{out}/sft holds a run on other data" in refused.splitlines()[-1]


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A small file system in memory. Needs the right to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(disk: Path, kilobytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(disk)], check=True)


def fill(disk: Path, left: int) -> None:
    """Leave so many kilobytes."""
    resize(disk, shutil.disk_usage(disk).used // 1024 + left)


def test_a_run_whose_disk_was_full_goes_on_when_there_is_space(disk, questions):
    run = RecipeRun("ecg", disk / "out", [*SETTINGS, "recipe.sft.save_freq=1"], ECG_DATA=str(questions))
    full = f"the disk of {run.folder} is full; free space; then the same command goes on from here"
    with run.start() as start:
        assert start.end() == 1
    assert f"disk: 0.0 GB free at {run.folder}; free 2 GB" in start.output
    assert start.output.count("\n") == 1

    for stage, left in {"parquet": 4, "model": 4096, "sft": 4096}.items():
        resize(disk, 3 * 2**20)
        with run.start() as start:
            run.in_the_middle_of(stage, start)
            fill(disk, left)
            assert start.end() == 1
        assert start.output.splitlines()[-1] == f"stage {stage} failed: {full}"
        assert run.partial_files() == []

    resize(disk, 3 * 2**20)
    with run.start() as start:
        run.in_the_middle_of("sft", start, (run.folder / "sft" / "latest_checkpointed_iteration.txt").exists)
