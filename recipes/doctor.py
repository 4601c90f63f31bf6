"""Prints what the recipe finds on this machine, and a remedy for each problem. Exit code 1: the recipe can't run.

Reads only: nothing is downloaded, started or changed.
"""

import argparse
import importlib.metadata
import os
import resource
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from dotenv import load_dotenv
from omegaconf import OmegaConf
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.common.errors import InputError, run_main
from recipes import hardware
from recipes.checks import Check, problems
from recipes.config import CONFIG_DIR, REPO
from recipes.tasks.registry import TASKS

GB = 10**9
STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    found = ".".join(map(str, version))
    if version < (3, 11):
        return Check("Python", found, "fail", "put Python 3.11 or newer first in PATH; remove .venv and set up again")
    return Check("Python", found)


def container_limit(path: Path = Path("/sys/fs/cgroup/memory.max")) -> float:
    """The memory limit of the container that this runs in, in bytes; infinite without one."""
    text = path.read_text().strip() if path.is_file() else "max"
    return float("inf") if text == "max" else int(text)


def check_memory(total: float, available: float) -> Check:
    """``total`` and ``available`` in bytes. The demo needs less than 12 GB at its peak."""
    found = f"{total / GB:.1f} GB, {available / GB:.1f} GB available"
    if total < 8 * GB:
        return Check("memory", found, "fail", "the demo needs 12 GB; use a machine or a container with more memory")
    if min(total, available) < 12 * GB:
        return Check("memory", found, "warn", "the demo needs up to 12 GB; close other programs")
    return Check("memory", found)


def check_cores(cores: int) -> Check:
    if cores < 2:
        return Check("CPU cores", str(cores), "warn", "expect less than half the speed; use 2 cores or more")
    return Check("CPU cores", str(cores))


def check_hardware(gpus: list[hardware.Gpu]) -> Check:
    try:
        kind = hardware.choose(gpus)
    except InputError as error:
        return Check("hardware", "; ".join(gpu.name for gpu in gpus) or "no GPU", "fail", str(error))
    found = [f"{gpu.name}, {gpu.memory_mib / 1024:.0f} GiB, driver {gpu.driver}" for gpu in gpus]
    return Check("hardware", f"{kind} ({'; '.join(found) or 'no GPU'})")


def check_torch_cuda() -> Check:
    """Imports torch, which takes seconds: only asked where the GPU set is used."""
    try:
        import torch
    except ImportError as error:
        return Check("torch CUDA", f"cannot import torch: {error}", "fail", "run: bash scripts/setup.sh")
    if not torch.cuda.is_available():
        remedy = f"update the NVIDIA driver to one for CUDA {torch.version.cuda}, or use HARDWARE=cpu"
        if torch.version.cuda is None:
            remedy = "this torch is built for the CPU; run: HARDWARE=gpu bash scripts/setup.sh"
        return Check("torch CUDA", "no usable GPU", "fail", remedy)
    return Check("torch CUDA", f"CUDA {torch.version.cuda}, {torch.cuda.device_count()} usable")


def installed(package: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_flash_attn() -> Check:
    return Check("flash-attn", installed("flash-attn") or "not installed (optional): torch's own attention is used")


def requirements(path: Path) -> list[Requirement]:
    """The requirements of a file and of those that it includes with ``-r``."""
    found = []
    for line in path.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found += requirements(path.parent / line[3:].strip())
        elif line and not line.startswith("-"):
            found.append(Requirement(line))
    return found


def check_packages(path: Path) -> list[Check]:
    """One check for all that is installed as ``path`` asks, and one for each package that is not."""
    if not path.is_file():
        return [Check("packages", f"no {path.name}", "fail", "restore it: git checkout -- requirements*.txt")]
    problems, good = [], 0
    wanted = [item for item in requirements(path) if item.marker is None or item.marker.evaluate()]
    for item in wanted:
        version = installed(item.name)
        if version is None:
            problems.append(Check(item.name, "not installed", "fail", "run: bash scripts/setup.sh"))
        elif not item.specifier.contains(version, prereleases=True):
            remedy = f"{path.name} asks for {item.specifier}; run: bash scripts/setup.sh"
            problems.append(Check(item.name, version, "warn", remedy))
        else:
            good += 1
    return [Check("packages", f"{good} of {len(wanted)} as in {path.name}"), *problems]


def existing_parent(path: Path) -> Path:
    """``path``, or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def check_disk(output_dir: Path, needed_gb: int) -> Check:
    """``needed_gb``: 10 where the packages are still to be installed, 2 for a run."""
    place = existing_parent(output_dir)
    if not os.access(place, os.W_OK | os.X_OK):
        return Check("disk", f"cannot write to {place}", "fail", "choose another output folder")
    free = shutil.disk_usage(place).free
    found = f"{free / GB:.1f} GB free at {output_dir}"
    if free < needed_gb * GB:
        return Check("disk", found, "fail", f"free {needed_gb} GB, or choose an output folder on another disk")
    return Check("disk", found)


def check_model(preset: str) -> Check:
    """The start model of a preset, a file of configs/preset. Whether a model hub is reachable is not tested."""
    folder = CONFIG_DIR / "preset"
    path = folder / f"{preset}.yaml"
    if not path.is_file() or path.stem == "gpu_model":
        presets = [file.relative_to(folder).with_suffix("") for file in sorted(folder.rglob("*.yaml"))]
        names = " ".join(str(name) for name in presets if name.name != "gpu_model")
        return Check("model", f"no preset {preset}", "fail", f"set PRESET to one of: {names}")
    return check_start_model(preset_model(path))


def check_start_model(model: str) -> Check:
    """A model made here, a folder or a hub id."""
    if "/" not in model:
        return Check("model", f"{model} (made by the recipe)")
    if Path(model).is_dir():
        return Check("model", model)
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    if (home / "hub" / f"models--{model.replace('/', '--')}").is_dir():
        return Check("model", f"{model}, in {home}")
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return Check("model", f"{model} is not in {home}", "fail", "unset HF_HUB_OFFLINE, or set HF_HOME")
    return Check("model", f"{model} is not in {home} yet", "warn", "it will be downloaded; or set HF_HOME")


def preset_model(path: Path) -> str:
    """The model of a preset, or else of the first one that it extends."""
    config = OmegaConf.load(path)
    model = OmegaConf.select(config, "recipe.model")
    return model or preset_model(CONFIG_DIR / f"{config.defaults[0].removeprefix('/')}.yaml")


def check_shared_memory(path: Path = Path("/dev/shm")) -> Check:
    """Ray's object store is there, and on the CPU each weight update passes through it."""
    remedy = "give the container more: docker run --shm-size=4g"
    if not path.is_dir():
        return Check("shared memory", f"no {path}", "warn", remedy)
    total = shutil.disk_usage(path).total
    return Check("shared memory", f"{total / 2**30:.1f} GiB at {path}", *(("warn", remedy) if total < 2**30 else ()))


def check_open_files(hard_limit: int) -> Check:
    """Ray raises its soft limit of open files to the hard one."""
    if hard_limit != resource.RLIM_INFINITY and hard_limit < 4096:
        return Check("open files", str(hard_limit), "warn", "raise the hard limit: ulimit -Hn 65536 (as root)")
    return Check("open files", "unlimited" if hard_limit == resource.RLIM_INFINITY else str(hard_limit))


def check_ray(address: str | None) -> Check:
    """A cluster that ``ray.init()`` would join: none is fine, one that does not answer is not."""
    if not address:
        return Check("Ray", "starts its own")
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return Check("Ray", f"joins the cluster {address}")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except OSError:
        remedy = "the last cluster ended badly: ray stop --force, and unset RAY_ADDRESS"
        return Check("Ray", f"nothing answers at {address}", "fail", remedy)
    return Check("Ray", f"joins the cluster {address}")


def own_processes() -> Iterator[tuple[int, list[str]]]:
    """Id and arguments of this user's processes."""
    for process in psutil.process_iter(["cmdline", "uids"]):
        if process.info["uids"] and process.info["uids"].real == os.getuid():
            yield process.pid, process.info["cmdline"] or []


def check_other_runs(commands: Iterable[tuple[int, list[str]]]) -> Check:
    """``commands``: ids and arguments of this user's processes. A killed run can leave vLLM's behind."""
    marks = ("recipes.trainer.main_ppo", "verl.trainer.", "VLLM::")
    pids = [str(pid) for pid, arguments in commands if any(part.startswith(marks) for part in arguments)]
    if pids:
        remedy = "if no run of yours should be there, end them: kill " + " ".join(pids)
        return Check("other runs", f"{len(pids)} processes of verl or vLLM", "warn", remedy)
    return Check("other runs", "none")


def run_checks(output_dir: Path, recipe: str | None = None, model: str | None = None) -> list[Check]:
    """All checks that apply to this machine, and to the data of ``recipe`` or, where it is None, of all recipes.

    ``model``: the start model, where it is not that of the preset in ``PRESET``.
    """
    memory, limit = psutil.virtual_memory(), container_limit()
    gpus = hardware.find_gpus()
    on_gpu = (os.environ.get("HARDWARE") or ("gpu" if gpus else "cpu")) == "gpu"
    checks = [
        check_python(),
        check_memory(min(memory.total, limit), min(memory.available, limit)),
        check_cores(len(os.sched_getaffinity(0))),
        check_hardware(gpus),
        *check_packages(REPO / ("requirements.txt" if on_gpu else "requirements-cpu.txt")),
    ]
    if on_gpu and gpus:
        checks += [check_torch_cuda(), check_flash_attn()]
    return [
        *checks,
        check_disk(output_dir, needed_gb=2 if installed("verl") else 10),
        *(TASKS[name].checks.check_data(os.environ) for name in ([recipe] if recipe else TASKS)),
        check_start_model(model) if model else check_model(os.environ.get("PRESET") or "tiny"),
        check_shared_memory(),
        check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        check_ray(hardware.ray_address()),
        check_other_runs(own_processes()),
    ]


def print_report(checks: list[Check]) -> None:
    table = Table("check", "found", "status", "remedy", title="Clinical RL Recipes")
    for check in checks:
        table.add_row(check.name, check.found, Text(check.status, STYLE[check.status]), check.remedy)
    Console(markup=False).print(table)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    load_dotenv(REPO / ".env")
    place = Path(os.environ.get("OUTPUT_DIR") or "outputs")
    parser.add_argument("--output_dir", type=Path, default=place, help="where the run will write")
    parser.add_argument("--recipe", choices=tuple(TASKS), help="check the data of this recipe alone")
    args = parser.parse_args(argv)
    checks = run_checks(args.output_dir, args.recipe)
    print_report(checks)
    if failed := problems(checks, "fail"):
        raise InputError(f"the recipe can't run here: {failed}")


if __name__ == "__main__":
    run_main(main)
