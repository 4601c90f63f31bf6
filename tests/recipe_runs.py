"""Programs of ``recipes`` as their users start them, and how to stop them in the middle."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from conftest import REPO

TIMEOUT_S = 900  # of one program; a hang must end the test run, a slow machine must not


def recipe(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"recipes.{module}", *map(str, arguments)]


def finished(command: Sequence[str], code: int = 0, **variables: str) -> str:
    """Run ``command`` to its end; return what it printed."""
    result = subprocess.run(
        command, cwd=REPO, env=os.environ | {"HARDWARE": "cpu"} | variables,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert result.returncode == code, result.stdout[-5000:]
    return result.stdout


def metrics_of(*files: Path) -> dict[int, dict[str, float]]:
    """All metrics by step."""
    steps: dict[int, dict[str, float]] = {}
    for path in files:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            steps.setdefault(entry["step"], {}).update(entry["data"])
    return steps


def metrics(run_dir: Path) -> dict[int, dict[str, float]]:
    """Those of a training run, from the files of all its starts."""
    return metrics_of(*sorted((run_dir / "metrics").glob("*.jsonl")))


class Start:
    """One start of ``recipes.run``. ``output`` is what it has printed so far."""

    def __init__(self, process: subprocess.Popen, printed: Path, mark: str):
        self.process = process
        self._printed = printed
        self._mark = mark

    @property
    def output(self) -> str:
        return self._printed.read_text()

    def wait_for(self, reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not reached():
            assert self.process.poll() is None, self.output[-5000:]
            assert time.monotonic() < deadline, self.output[-5000:]
            time.sleep(0.05)

    def end(self) -> int:
        """Wait for the exit code."""
        return self.process.wait(TIMEOUT_S)

    def programs(self) -> list[psutil.Process]:
        """Processes that this start began, directly or not."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def press_ctrl_c(self) -> tuple[int, list[psutil.Process]]:
        """Returns the exit code, and the processes that are left."""
        programs = self.programs()
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(TIMEOUT_S)
        return code, [program for program in [*programs, *self._marked()] if _runs(program)]

    def kill_all(self) -> None:
        """Kill what still runs."""
        self.process.kill()
        self.process.wait()
        for program in self._marked():
            program.kill()

    def _marked(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TEST_MARK") == self._mark:
                    found.append(process)
        return found


class RecipeRun:
    """A run in one output folder, started as often as it takes to finish."""

    def __init__(self, name: str, folder: Path, settings: Sequence[str], **variables: str):
        self.folder = folder
        self._name, self._settings = name, settings
        self.variables = {"OUTPUT_DIR": str(folder), **variables}

    def command(self, *settings: str) -> list[str]:
        return recipe("run", self._name, *self._settings, *settings)

    @contextmanager
    def start(self, *settings: str) -> Iterator[Start]:
        """Start the run, with more ``settings``. It is killed at the end, if it still runs."""
        mark = uuid.uuid4().hex
        printed = self.folder.with_name(f"{self.folder.name}_{mark}.txt")
        environ = os.environ | {"HARDWARE": "cpu", "TEST_MARK": mark} | self.variables
        with printed.open("w") as output:
            process = subprocess.Popen(
                self.command(*settings), cwd=REPO, env=environ, stdout=output, stderr=output,
                preexec_fn=_as_in_a_terminal,
            )  # fmt: skip
        start = Start(process, printed, mark)
        try:
            yield start
        finally:
            start.kill_all()

    def starts_of(self, stage: str) -> int:
        """How often a stage has been started."""
        log = self.folder / "logs" / f"{stage}.log"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return sum(line.startswith("== ") for line in lines)

    def in_the_middle_of(self, stage: str, start: Start, reached: Callable[[], bool] | None = None) -> None:
        """Wait until ``start`` runs ``stage`` and has ``reached`` something in it, or for a moment."""
        before = self.starts_of(stage)
        start.wait_for(lambda: self.starts_of(stage) > before)
        if reached:
            start.wait_for(reached)
        else:
            time.sleep(1)

    def wait_until_free(self) -> None:
        """Programs of a run that was killed hold its lock as long as they live."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            with (self.folder / ".lock").open() as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    assert time.monotonic() < deadline
            time.sleep(0.1)

    def partial_files(self) -> list[Path]:
        """What programs that were killed have left half-written."""
        return [path for path in self.folder.rglob(".*") if ".partial-" in path.name]


def _runs(process: psutil.Process) -> bool:
    """Whether a process is there, and no zombie that waits for its parent."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _as_in_a_terminal() -> None:
    """pytest-xdist's workers ignore Ctrl-C, and what they start would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
