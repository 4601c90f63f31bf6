"""Programs of a run: where their words go, why they failed, and that none of them outlives the run."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from recipes.pipeline.process import ProgramFailed, run_program

PYTHON = "python"


def run(tmp_path: Path, code: str) -> Path:
    log = tmp_path / "logs" / "stage.log"
    run_program([PYTHON, "-c", code], log, os.environ, tmp_path, lambda: None)
    return log


def failure(tmp_path: Path, code: str) -> ProgramFailed:
    with pytest.raises(ProgramFailed) as raised:
        run(tmp_path, code)
    return raised.value


def test_all_that_a_program_prints_is_in_the_log(tmp_path, capfd):
    run(tmp_path, "import sys; print('out'); print('err', end='', file=sys.stderr)")
    log = run(tmp_path, "print('second start')")
    lines = log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("== ")] == ["out", "err", "second start"]
    assert capfd.readouterr() == ("", "")


def test_a_program_gets_no_input(tmp_path):
    assert "nothing" in run(tmp_path, "import sys; print(sys.stdin.read() or 'nothing')").read_text()


def test_a_program_keeps_the_lock_of_the_run(tmp_path):
    """So that no second run starts beside the trainer of a run that was killed."""
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code = f"import os; print('kept', os.fstat({lock.fileno()}).st_ino)"
        log = tmp_path / "log"
        run_program([PYTHON, "-c", code], log, os.environ, tmp_path, lambda: None, (lock.fileno(),))
        assert log.read_text().endswith(f"kept {os.fstat(lock.fileno()).st_ino}\n")
        with pytest.raises(ProgramFailed):
            run_program([PYTHON, "-c", code], log, os.environ, tmp_path, lambda: None)


def test_the_cause_is_the_line_with_the_error_whatever_is_printed_after_it(tmp_path):
    found = failure(tmp_path, "import atexit; atexit.register(print, 'Ray: bye'); raise ValueError('bad batch')")
    assert found.cause == "ValueError: bad batch"
    assert found.last_lines[-1] == "Ray: bye"


def test_the_cause_is_the_one_line_of_our_own_programs(tmp_path):
    code = "print('SomeError: in a warning'); raise SystemExit('no such file: x; make it')"
    assert failure(tmp_path, code).cause == "no such file: x; make it"


def test_the_cause_is_the_programs_whatever_rays_processes_print_at_their_end(tmp_path):
    code = "print('no group; use algo=grpo'); print('\\x1b[36m(TaskRunner pid=7)\\x1b[0m leaked\\n(pid=8) bye')"
    assert failure(tmp_path, f"{code}; raise SystemExit(1)").cause == "no group; use algo=grpo"


def test_the_cause_of_an_earlier_start_does_not_count(tmp_path):
    failure(tmp_path, "raise ValueError('first')")
    assert failure(tmp_path, "raise KeyError('second')").cause == "KeyError: 'second'"


def test_a_killed_program_is_said_to_be_killed(tmp_path):
    assert "SIGKILL, often for lack of memory" in failure(tmp_path, "import os; os.kill(os.getpid(), 9)").cause


def test_a_program_that_says_nothing(tmp_path):
    assert failure(tmp_path, "raise SystemExit(3)").cause == "exit code 3, without a word"


# A run whose program starts a daemon, a process that ignores every request to end, and waits.
RUN = """
import os, sys
from pathlib import Path
from recipes.pipeline.process import adopt_orphans, run_program
adopt_orphans()
code = '''
import os, subprocess, sys, time
print(os.getpid(), flush=True)
daemon = "os.setsid() if os.fork() == 0 else os._exit(0)"
stubborn = "[signal.signal(number, signal.SIG_IGN) for number in (2, 15)]"
for each in (daemon, stubborn):
    code = f"import os, signal, time; {each}; print(os.getpid(), flush=True); time.sleep(99)"
    subprocess.Popen([sys.executable, "-c", code])
time.sleep(99)
'''
run_program(["python", "-c", code], Path(sys.argv[1]), os.environ, Path.cwd(), lambda: None)
"""


RUN_ONE = """
import os, signal, sys
from pathlib import Path
from recipes.pipeline.process import run_program
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
run_program(["python", "-c", sys.argv[2]], Path(sys.argv[1]), os.environ, Path.cwd(), lambda: None)
"""


def started(tmp_path: Path) -> tuple[subprocess.Popen, list[int]]:
    log = tmp_path / "log"
    terminal = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  pytest-xdist's workers ignore it
    process = subprocess.Popen([sys.executable, "-c", RUN, str(log)], stderr=subprocess.PIPE, preexec_fn=terminal)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        lines = log.read_text().splitlines() if log.exists() else []
        if len(pids := [int(line) for line in lines if line.isdigit()]) == 3:
            return process, pids
        time.sleep(0.1)
    raise AssertionError(f"not started: {lines}")


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_ctrl_c_ends_every_process_that_the_run_started(tmp_path):
    process, pids = started(tmp_path)
    assert alive(pids) == pids
    process.send_signal(signal.SIGINT)
    process.wait(timeout=15)  # what the user is promised
    assert alive(pids) == []


def test_a_second_ctrl_c_leaves_nothing_behind(tmp_path):
    process, pids = started(tmp_path)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    process.wait(timeout=15)
    assert alive(pids) == []


def test_a_program_ends_gently_where_the_run_ignores_ctrl_c(tmp_path):
    code = "import time; print('ready', flush=True)\ntry: time.sleep(99)\nexcept KeyboardInterrupt: print('gently')"
    log = tmp_path / "log"
    ignoring = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731  as under nohup
    process = subprocess.Popen([sys.executable, "-c", RUN_ONE, str(log), code], preexec_fn=ignoring)
    while not log.exists() or "\nready" not in log.read_text():
        time.sleep(0.1)
    process.terminate()
    process.wait(timeout=15)
    assert log.read_text().endswith("gently\n")


def test_a_killed_run_takes_its_program_along(tmp_path):
    process, pids = started(tmp_path)
    program = pids[0]
    process.kill()
    process.wait()
    psutil.wait_procs([psutil.Process(program)] if psutil.pid_exists(program) else [], timeout=15)
    left = alive(pids)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert program not in left
