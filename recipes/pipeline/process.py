"""Programs of a run: what they print goes to a log file, and none of them outlives a run that is stopped."""

import ctypes
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import psutil

from data_prep.common.errors import InputError

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
TICK = 0.25  # seconds
POLITE, GRACE = 3.0, 8.0  # seconds until SIGTERM follows SIGINT, and SIGKILL both: Ray takes a few to end its processes
LOG_END = 2**20  # bytes of a failed program's log that are read
LAST_LINES = 12
RAY = re.compile(r"(?:\x1b\[\d+m)?\((?:[\w.:]+ )?pid=")  # the beginning of a line of another process than the program's
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class ProgramFailed(Exception):
    """A program failed. ``cause`` is one line, ``last_lines`` are the last that it printed."""

    def __init__(self, cause: str, last_lines: list[str]):
        super().__init__(cause)
        self.cause = cause
        self.last_lines = last_lines


def adopt_orphans() -> None:
    """Have processes whose parent ends, such as those of Ray, become children of this process, which can end them."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run_program(
    program: Sequence[str],
    log: Path,
    environ: Mapping[str, str],
    folder: Path,
    meanwhile: Callable[[], None],
    keep_open: Sequence[int] = (),
) -> None:
    """Run ``program`` in ``folder``; add what it prints to ``log``. "python" stands for this interpreter.

    ``meanwhile`` is called again and again. The program inherits the file descriptors ``keep_open``.

    Raises:
        ProgramFailed: the program failed.
        InputError: the log cannot be written.
    """
    command = [sys.executable, *program[1:]] if program[0] == "python" else list(program)
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("ab")
    except OSError as error:
        raise InputError(f"cannot write {log}: {error.strerror}; free space or choose another OUTPUT_DIR") from error
    with output:
        if output.tell():
            output.write(b"\n")  # on a full disk, an earlier program's last line may lack its end
        output.write(f"== {datetime.now():%Y-%m-%d %H:%M:%S} {shlex.join(command)}\n".encode())
        output.flush()
        start = output.tell()
        # A session of its own: Ctrl-C reaches the program through this process alone, which knows what to end.
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=_prepare, pass_fds=keep_open,
        )  # fmt: skip
    try:
        while process.poll() is None:
            meanwhile()
            time.sleep(TICK)
    finally:
        end_descendants()
    if process.returncode:
        with log.open("rb") as said:
            said.seek(max(start, log.stat().st_size - LOG_END))
            lines = said.read().decode(errors="replace").splitlines()
        lines = [line.rstrip() for line in lines if line.strip()]
        raise ProgramFailed(_cause(lines, process.returncode), lines[-LAST_LINES:])


def _prepare() -> None:
    """In the program's process: SIGTERM when the run is killed, and Ctrl-C as usual, also under nohup."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def end_descendants() -> None:
    """End all processes that this process started, directly or not: ask them first, kill what is left.

    A signal that comes meanwhile, such as a second Ctrl-C, changes nothing.
    """
    handlers = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    asked: set[tuple[int, int]] = set()
    start = time.monotonic()
    while children := psutil.Process().children(recursive=True):
        waited = time.monotonic() - start
        for child in children:
            with suppress(psutil.NoSuchProcess):
                if child.status() == psutil.STATUS_ZOMBIE:
                    _reap(child.pid)
                elif waited > GRACE:
                    child.kill()
                else:
                    first = child.ppid() == os.getpid() and waited < POLITE
                    number = signal.SIGINT if first else signal.SIGTERM
                    if (child.pid, number) not in asked:
                        asked.add((child.pid, number))
                        child.send_signal(number)
        time.sleep(0.1)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _cause(lines: list[str], code: int) -> str:
    """The line that says why a program failed with ``code``, negative for a signal.

    Our own programs end in one line. After a traceback, Ray and torchrun print more lines than the one with the error.
    What Ray's processes say may come after all that.
    """
    if code < 0:
        return f"ended by {signal.Signals(-code).name}" + (
            ", often for lack of memory" if code == -signal.SIGKILL else ""
        )
    own = [line for line in lines if not RAY.match(line)]
    lines = own or lines
    last = lines[-200:]
    named = [line for line in last if _names_an_error(line)]
    if named and any(line.startswith("Traceback") or "Traceback (most recent" in line for line in last):
        return named[-1]
    return lines[-1] if lines else f"exit code {code}, without a word"


def _names_an_error(line: str) -> bool:
    name, colon, _ = line.partition(": ")
    return bool(colon) and name.rpartition(".")[2].isidentifier() and name.endswith(("Error", "Exception", "Failed"))
