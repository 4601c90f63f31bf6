"""What the machine has to train on, and what ``HARDWARE=cpu|gpu`` says to use of it."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from data_prep.common.errors import InputError

_QUERY = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_mib: int
    driver: str


def find_gpus() -> list[Gpu]:
    """The NVIDIA GPUs that the driver reports; empty where there is no driver."""
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True)
    except FileNotFoundError:
        return []
    if answer.returncode:
        return []
    rows = [[field.strip() for field in line.split(",")] for line in answer.stdout.splitlines() if line.strip()]
    return [Gpu(name, int(memory) if memory.isdigit() else 0, driver) for name, memory, driver in rows]


def choose(gpus: list[Gpu]) -> str:
    """``cpu`` or ``gpu``: what ``HARDWARE`` says, else what is there.

    Raises:
        InputError: ``HARDWARE`` is neither, or asks for a GPU that is not there.
    """
    wanted = os.environ.get("HARDWARE") or ("gpu" if gpus else "cpu")
    if wanted not in ("cpu", "gpu"):
        raise InputError(f"HARDWARE={wanted} is unknown; use cpu or gpu")
    if wanted == "gpu" and not gpus:
        raise InputError("HARDWARE=gpu, but nvidia-smi finds no GPU; install the driver, or use HARDWARE=cpu")
    return wanted


def rollout_dtype() -> str:
    """The dtype in which verl's rollouts sample here, as ``configs/hardware`` says. Raises as ``choose``."""
    return "float32" if choose(find_gpus()) == "cpu" else "bfloat16"


def ray_address() -> str | None:
    """The running Ray cluster that ``ray.init()`` will join: ``RAY_ADDRESS``, else the last local ``ray start``."""
    if os.environ.get("RAY_ADDRESS"):
        return os.environ["RAY_ADDRESS"]
    tmp = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    current = Path(tmp, "ray", "ray_current_cluster")
    return current.read_text().strip() if current.is_file() else None
