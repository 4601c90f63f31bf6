"""Executes untrusted SQL against a read-only SQLite file, in separate processes that can be killed.

Covered, layer by layer:

* A query cannot change anything: the file is opened read-only and immutable, ``query_only`` is set, an authorizer
  allows SELECT over the file's own tables with a list of deterministic functions (no PRAGMA, ATTACH, temporary
  or schema table, no table-valued function), exactly one statement is executed, and the process may not
  write a byte to any file (RLIMIT_FSIZE) nor, once the database is open, open another one (RLIMIT_NOFILE).
* A query cannot stall the caller: a progress handler ends it 0.05 s before its deadline, and there a kill of the
  process ends what never reaches the handler (one long opcode, or preparing a monstrous statement). The process also
  kills itself then (a timer, and RLIMIT_CPU behind it), so an orphan is bounded too. A query that was late but had
  hardly computed was starved by a busy machine: it is executed once more, with four times as long on the clock but no
  longer on the CPU.
* A query cannot exhaust memory: limits on cell size, SQL text, columns, expression depth and compound terms; temporary
  data stays in memory, under RLIMIT_AS; rows are streamed, and rows, bytes and the size of the answer are capped.
* A query cannot see secrets: the process starts in ``/``, with nothing in its environment but the time zone, UTC, and
  the library path.
* A query cannot change a neighbour's verdict: it executes alone in its process, statements are not cached, and a
  process that ran out of memory or died is replaced, each one after 10,000 queries.

Not covered: a bug in SQLite that lets a query run code (the process is not confined by seccomp or a namespace);
clock values built at run time, such as ``date('n' || 'ow')``; a constant beside a table that is read but does not
matter (``SELECT count(*) > 0 FROM patients``): ``recipes.tasks.ehrsql.canaries`` shows what such policies earn. Linux
only.

Not executed here, though the official scorer would: text over 32,000 characters, cells over 1 MB, results and
statements over the other caps, refused functions and tables, EXPLAIN and PRAGMA, the machine's clock (``CURRENT_TIME``
or ``'NOW'`` in capitals), VALUES that reads no table, comments alone. ``'localtime'`` is UTC here, there the host's.
"""

import hashlib
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from typing import Literal

from reward_fns.sql.text import clean_up

KILL_BEHIND_S = 0.05  # the handler ends a query this long before its deadline, where the process is killed
DEFAULT_TIMEOUT_S = 10.0  # where nobody has measured how long gold takes
STARVED = 0.25  # a late query that used less than this share of its time on the CPU was waiting for the CPU
PATIENCE = 4  # how many times its deadline a starved query gets on the clock, the second time
START_TIMEOUT_S = 60.0
MAX_TIMEOUT_S = 3600
MAX_SQL_CHARS = 32_000
CACHED_ANSWER_CHARS = 16_000
MAX_ERROR_CHARS = 500  # SQLite may quote the query
RECYCLE_AFTER = 10_000  # queries of one process, should anything pile up in it
_WORKER = Path(__file__).with_name("worker.py")


class DatabaseError(Exception):
    """The database is missing, unreadable or damaged: no fault of the query."""


class SandboxError(Exception):
    """A worker process could not be started."""


@dataclass(frozen=True)
class Execution:
    """What came of a query.

    ``status``: ``ok``; ``error`` (SQLite rejects it, more than one statement, or out of memory); ``refused`` (not a
    query, or not allowed); ``timeout``; ``too_large`` (result over the caps); ``crashed`` (ended its process twice).
    ``answer``: the canonical JSON (see ``reward_fns.sql.answers``) if ok, else None. ``reads_table``: it reads a column
    of one of the database's tables, or counts its rows. ``rows``: rows of the whole result. ``seconds``: the time on
    the CPU, if ok. ``error``: one line for a reader.
    """

    status: Literal["ok", "error", "refused", "timeout", "too_large", "crashed"]
    answer: str | None = None
    reads_table: bool = False
    rows: int = 0
    seconds: float = field(default=0.0, compare=False)
    error: str = ""


class SqlSandbox:
    """A pool of warm worker processes with a cache of executions. Safe to share between threads.

    Processes start when first needed and end with the parent, or on ``close()``. ``memory_mb`` bounds the address
    space of each process, ``max_rows`` and ``max_bytes`` what a result may hold.
    """

    def __init__(
        self,
        workers: int = 2,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        memory_mb: int = 1024,
        max_rows: int = 200_000,
        max_bytes: int = 16_000_000,
        cache_size: int = 4096,
    ):
        limits = {"memory_mb": memory_mb, "max_rows": max_rows, "max_bytes": max_bytes}
        settings = {**_deadlines(timeout_s), **limits}
        self._workers = [_Worker(settings) for _ in range(workers)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # last in, first out: prefers a warm process
        for worker in self._workers:
            self._idle.put(worker)
        self._cache: OrderedDict[tuple, Execution] = OrderedDict()
        self._cache_size = cache_size
        self._running: dict[tuple, Future[Execution]] = {}
        self._lock = threading.Lock()  # of the cache and of what is running

    def execute(
        self,
        db_path: str | os.PathLike,
        sql: str,
        official_clean_up: bool = False,
        timeout_s: float | None = None,
    ) -> Execution:
        """Execute a query after the official clean-up, or return the execution of the same query from the cache.

        Equal queries that come at the same time are executed once. Timeouts are cached like any other outcome, so an
        endless query costs its deadline once; answers of over ``CACHED_ANSWER_CHARS`` are not. ``official_clean_up``
        as in ``reward_fns.sql.text.clean_up``. ``timeout_s``: this query's deadline, if not the sandbox's.

        Raises ``ValueError`` if the deadline is no time, ``DatabaseError`` if the database cannot be read and
        ``SandboxError`` if no process can be started.

        >>> with SqlSandbox() as sandbox:  # db_path: a database with two patients
        ...     sandbox.execute(db_path, "SELECT count(*) FROM patients").answer
        ...     sandbox.execute(db_path, "DELETE FROM patients").status
        '[["2.0"]]'
        'refused'
        """
        deadlines = {} if timeout_s is None else _deadlines(timeout_s)
        database = _identity(db_path)
        sql = clean_up(sql, official_clean_up)
        if len(sql) > MAX_SQL_CHARS:
            return Execution("refused", error=f"over {MAX_SQL_CHARS} characters")
        key = (*database, timeout_s, hashlib.sha256(sql.encode("utf-8", "surrogatepass")).digest())
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            running = self._running.get(key)
            if running is None:
                self._running[key] = mine = Future()
        if running is not None:
            return running.result()
        try:
            execution = _execution(self._ask({"database": database, "sql": sql, **deadlines}), db_path)
        except BaseException as error:
            self._finish(key, None)
            mine.set_exception(error)
            raise
        self._finish(key, execution)
        mine.set_result(execution)
        return execution

    def _ask(self, request: dict) -> dict:
        worker = self._idle.get()
        try:
            return worker.ask(request)
        finally:
            self._idle.put(worker)

    def _finish(self, key: tuple, execution: Execution | None) -> None:
        with self._lock:
            del self._running[key]
            # A crash may have come from outside, such as the system's shortage of memory.
            cacheable = execution is not None and execution.status != "crashed"
            if cacheable and len(execution.answer or "") <= CACHED_ANSWER_CHARS:
                self._cache[key] = execution
                if len(self._cache) > self._cache_size:
                    self._cache.popitem(last=False)

    def close(self) -> None:
        """End the worker processes. Call it when no thread is executing."""
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> "SqlSandbox":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _Worker:
    """One worker process, started when first asked and replaced when it dies. Used by one thread at a time."""

    def __init__(self, settings: dict):
        self._settings = settings
        self._process: subprocess.Popen | None = None
        self._queries = 0

    def ask(self, request: dict) -> dict:
        """Return the worker's reply; kill the process at the hard deadline.

        Tries once more if the process dies or the query was starved: then with ``PATIENCE``. Raises ``SandboxError`` if
        the processes die of any query, not of this one.
        """
        reply = self._try(request)
        if reply is None or reply.get("starved"):
            reply = self._try(request, patience=PATIENCE if reply else 1)
        if reply is None and self._try({**request, "sql": "SELECT 1"}) is None:
            memory = self._settings["memory_mb"]
            raise SandboxError(f"the SQL worker dies of SELECT 1: under {memory} MB? The system's log may tell why")
        return reply or {"status": "crashed", "error": "the query ended its process"}

    def _try(self, request: dict, patience: int = 1) -> dict | None:
        """The reply, or None if the process died before its deadline."""
        if self._process is None:
            self._start()
        limits = {**self._settings, **request}
        started, computed = time.monotonic(), _cpu_seconds(self._process.pid)
        deadline = started + limits["hard_timeout_s"] * patience
        try:
            self._send({**request, "patience": patience}, deadline)
            reply = self._receive(deadline)
        except (TimeoutError, EOFError, BrokenPipeError):
            computed = _cpu_seconds(self._process.pid) - computed
            self.stop()
            if time.monotonic() - started < limits["timeout_s"]:
                return None
            starved = computed < limits["starved_s"]
            return {"status": "timeout", "error": "killed at the deadline", "starved": starved}
        except BaseException:  # an interrupt: the reply is still to come, and would be taken for the next query's
            self.stop()
            raise
        self._queries += 1
        if "retire" in reply or self._queries >= RECYCLE_AFTER:
            self.stop()
        return reply

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None

    def _start(self) -> None:
        # A plain process, not a fork of this threaded one. A library path, where set, may be Python's own.
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        environment["TZ"] = "UTC"  # what SQLite's 'localtime' is, on every node
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WORKER), json.dumps(self._settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env=environment, cwd="/", start_new_session=True,
        )  # fmt: skip
        os.set_blocking(self._process.stdin.fileno(), False)
        self._queries = 0
        try:
            self._receive(time.monotonic() + START_TIMEOUT_S)
        except (TimeoutError, EOFError) as error:
            self.stop()
            raise SandboxError(f"the SQL worker did not start: {sys.executable} {_WORKER}") from error

    def _send(self, request: dict, deadline: float) -> None:
        """Write one JSON line; raise ``TimeoutError``: a process that does not read lets the pipe run full."""
        pipe = self._process.stdin.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLOUT)
        line = memoryview(json.dumps(request).encode() + b"\n")
        while line:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            line = line[os.write(pipe, line) :]

    def _receive(self, deadline: float) -> dict:
        """Read one JSON line; raise ``TimeoutError``, or ``EOFError`` if the process ended."""
        pipe = self._process.stdout.fileno()
        poll = select.poll()  # not select(), which fails on descriptors over 1023
        poll.register(pipe, select.POLLIN)
        line = bytearray()
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            chunk = os.read(pipe, 1 << 16)
            if not chunk:
                raise EOFError
            line += chunk
        return json.loads(line)


def _deadlines(timeout_s: float) -> dict[str, float]:
    """When a query is interrupted, when its process is killed, and how little time on the CPU tells that it starved."""
    if not (isinstance(timeout_s, int | float) and 0 < timeout_s <= MAX_TIMEOUT_S):
        raise ValueError(f"timeout_s is {timeout_s!r}; give seconds, above 0 and at most {MAX_TIMEOUT_S}")
    end_s = timeout_s - min(KILL_BEHIND_S, timeout_s / 2)
    return {"timeout_s": end_s, "hard_timeout_s": timeout_s, "starved_s": end_s * STARVED}


def _cpu_seconds(pid: int) -> float:
    """The CPU time of a child by clock_getcpuclockid(3), which Python lacks; 0 if it is gone."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


def _identity(db_path: str | os.PathLike) -> list:
    """[file URI, mtime in ns, size in bytes]: what the cache and the workers tell databases apart by."""
    try:
        stat = os.stat(db_path)
        uri = _uri(os.path.abspath(db_path))
    except (OSError, ValueError) as error:
        raise DatabaseError(f"cannot read the database {db_path}: {error}") from error
    if not S_ISREG(stat.st_mode):
        raise DatabaseError(f"cannot read the database {db_path}: it is no file")
    if not os.access(db_path, os.R_OK):  # a warm process would not notice
        raise DatabaseError(f"cannot read the database {db_path}: permission denied")
    return [uri, stat.st_mtime_ns, stat.st_size]


@lru_cache(maxsize=64)
def _uri(path: str) -> str:
    return Path(path).as_uri()


def _execution(reply: dict, db_path: str | os.PathLike) -> Execution:
    if reply["status"] == "database":
        raise DatabaseError(f"cannot read the database {db_path}: {reply['error']}")
    fields = {name: reply[name] for name in ("answer", "reads_table", "rows", "seconds") if name in reply}
    return Execution(reply["status"], **fields, error=reply.get("error", "")[:MAX_ERROR_CHARS])


def check_database(db_path: str | os.PathLike) -> None:
    """Raise ``DatabaseError`` if there is no readable file."""
    _identity(db_path)


_shared: SqlSandbox | None = None
_shared_lock = threading.Lock()


def shared_sandbox() -> SqlSandbox:
    """Return this process's own sandbox; a fork gets another one, since pipes cannot be shared."""
    global _shared
    with _shared_lock:
        _shared = _shared or SqlSandbox()
        return _shared


def _forget_shared() -> None:
    global _shared, _shared_lock
    _shared, _shared_lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_shared)
