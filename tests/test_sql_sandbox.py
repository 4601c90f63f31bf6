"""Each test attacks one property of the sandbox."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import REPO

from reward_fns.sql.answers import canonical_answer
from reward_fns.sql.sandbox import MAX_ERROR_CHARS, PATIENCE, DatabaseError, SandboxError, SqlSandbox

TWO_PATIENTS = canonical_answer([(2,)])


@pytest.fixture(scope="module")
def db_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("database with ? # and %41 in its path") / "ehr.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE patients (subject_id INTEGER, gender TEXT, note BLOB);
        INSERT INTO patients VALUES (1, 'f', CAST(x'61ff62' AS TEXT)), (2, 'm', NULL);
        CREATE TABLE keys (id INTEGER PRIMARY KEY, name TEXT);
        INSERT INTO keys VALUES (1, 'a'), (2, 'b');
        CREATE INDEX keys_name ON keys (name);
        CREATE TABLE numbers (n INTEGER);
        WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT 1000) INSERT INTO numbers SELECT n FROM s;
        """
    )
    connection.close()
    return path


@pytest.fixture(scope="module")
def sandbox():
    with SqlSandbox(workers=2, timeout_s=1.0) as sandbox:
        yield sandbox


def process_ids(sandbox: SqlSandbox) -> list[int]:
    return [worker._process.pid for worker in sandbox._workers if worker._process]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT count(*) FROM patients", [(2,)]),
        ("select COUNT(*) from Patients;", [(2,)]),
        ("; ;\n;SELECT count(*) FROM patients", [(2,)]),
        (";/* ; */; SELECT count(*) FROM patients", [(2,)]),
        ("WITH t AS (SELECT gender FROM patients) SELECT count(*) FROM t", [(2,)]),
        (
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s, patients LIMIT 3) SELECT max(n) FROM s",
            [(2,)],
        ),
        ("SELECT note FROM patients", [("ab",), (None,)]),
        ("SELECT gender, row_number() OVER (ORDER BY gender) FROM patients", [("f", 1), ("m", 2)]),
        ("SELECT strftime('%Y', current_time) FROM patients WHERE gender = 'f'", [("2100",)]),
        ("SELECT gender -- the sex\nFROM patients", [("f",), ("m",)]),
        ("SELECT gender FROM patients WHERE subject_id > 9", []),
        ("VALUES ((SELECT count(*) FROM patients))", [(2,)]),
        ("SELECT max(1) FROM patients", [(1,)]),
        ("SELECT EXISTS (SELECT 1 FROM patients WHERE gender = 'f')", [(1,)]),
        ("SELECT EXISTS (SELECT 1 FROM keys WHERE id = 1)", [(1,)]),
        ("SELECT EXISTS (SELECT 1 FROM keys WHERE name = 'c')", [(0,)]),
        ("SELECT 1 FROM patients WHERE 1 IN (SELECT id FROM keys)", [(1,), (1,)]),
        # The second term of an OR opens its index anew, by another opcode.
        ("SELECT name FROM keys WHERE name < 'b' OR name > 'c'", [("a",)]),
        ("SELECT EXISTS (SELECT 1 FROM keys WHERE name < 'b' OR name > 'c')", [(1,)]),
        ("SELECT gender FROM patients WHERE gender NOT IN ('m', 'date()', \"now\", 'NOW')", [("f",)]),
    ],
)
def test_queries_execute(sandbox, db_path, sql, rows):
    execution = sandbox.execute(db_path, sql)
    assert (execution.status, execution.answer, execution.reads_table) == ("ok", canonical_answer(rows), True)
    assert execution.rows == len(rows)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "WITH t AS (SELECT * FROM patients) SELECT 2",
        "WITH patients AS (SELECT 1) SELECT count(*) FROM patients",
        "SELECT count(*) FROM (SELECT 1 UNION ALL SELECT 2)",
        "SELECT 1 FROM patients LIMIT 1",
        "SELECT t.x FROM patients, (SELECT 2 AS x UNION SELECT 3) AS t",
    ],
)
def test_constants_read_no_table(sandbox, db_path, sql):
    execution = sandbox.execute(db_path, sql)
    assert (execution.status, execution.reads_table) == ("ok", False)


ENDLESS = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + {} FROM s) SELECT count(*) FROM s"


def test_an_endless_query_is_interrupted_and_the_process_kept(db_path, monkeypatch):
    monkeypatch.setattr("reward_fns.sql.sandbox.KILL_BEHIND_S", 30.0)
    with SqlSandbox(workers=1, timeout_s=0.3) as sandbox:
        sandbox.execute(db_path, "SELECT count(*) FROM patients")
        before = process_ids(sandbox)
        assert sandbox.execute(db_path, ENDLESS.format(1)).status == "timeout"
        assert process_ids(sandbox) == before
        assert sandbox.execute(db_path, "SELECT count(*) + 0 FROM patients").answer == TWO_PATIENTS


@pytest.mark.parametrize("timeout_s", [0, -1, float("inf"), float("nan"), "2", None])
def test_a_deadline_that_is_no_time_is_refused(timeout_s):
    with pytest.raises(ValueError, match="timeout_s is .*; give seconds"):
        SqlSandbox(timeout_s=timeout_s)


def test_a_query_may_have_a_deadline_of_its_own(db_path):
    with SqlSandbox(workers=1, timeout_s=600.0) as sandbox:
        assert sandbox.execute(db_path, ENDLESS.format(8), timeout_s=0.2).status == "timeout"
        texts = "SELECT printf('%.900000c', 'x') AS a, printf('%.450000c', 'x') || 'z' AS b FROM patients"
        assert sandbox.execute(db_path, f"SELECT instr(a, b) FROM ({texts})", timeout_s=0.2).status == "timeout"
        with pytest.raises(ValueError, match="give seconds"):
            sandbox.execute(db_path, "SELECT 1", timeout_s=0)


def test_an_execution_is_kept_for_its_deadline_only(db_path):
    with SqlSandbox(workers=1, timeout_s=60.0) as sandbox:
        slow = (
            "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT 200000) SELECT count(*) FROM s, keys"
        )
        assert sandbox.execute(db_path, slow, timeout_s=0.002).status == "timeout"
        assert sandbox.execute(db_path, slow).status == "ok"


@pytest.mark.parametrize("timeout_s", [0.02, 0.5, 10.0])
def test_a_query_is_interrupted_before_its_deadline_and_killed_there(timeout_s):
    with SqlSandbox(workers=1, timeout_s=timeout_s) as sandbox:
        settings = sandbox._workers[0]._settings
    assert 0 < settings["starved_s"] < settings["timeout_s"] < settings["hard_timeout_s"] == timeout_s


def test_an_opcode_that_never_yields_is_killed_and_the_process_replaced(sandbox, db_path):
    texts = "SELECT printf('%.900000c', 'x') AS a, printf('%.450000c', 'x') || 'y' AS b FROM patients"
    blow_up = f"SELECT instr(a, b) FROM ({texts})"
    assert sandbox.execute(db_path, blow_up).status == "timeout"
    assert sandbox.execute(db_path, "SELECT count(*) - 0 FROM patients").answer == TWO_PATIENTS


@pytest.mark.parametrize("text", ["f", "é" * 31_000], ids=["short", "longer than a pipe takes"])
def test_a_starved_query_is_executed_once_more(db_path, text):
    """As on a machine so busy that the process does not get to compute, nor to read, before the deadline."""
    with SqlSandbox(workers=1, timeout_s=1.0) as sandbox:
        sandbox.execute(db_path, "SELECT max(n) FROM numbers")
        (starved,) = process_ids(sandbox)
        os.kill(starved, signal.SIGSTOP)
        query = f"SELECT count(*) FROM patients WHERE gender IN ('f', 'm', '{text}')"
        assert sandbox.execute(db_path, query).answer == TWO_PATIENTS
        assert process_ids(sandbox) != [starved]


def test_a_query_that_is_starved_again_has_time_on_the_clock_left(db_path):
    """The second time the process stands still for longer than the deadline, and answers then."""
    with SqlSandbox(workers=1, timeout_s=0.5) as sandbox:
        worker = sandbox._workers[0]
        tries, attempt = [], worker._try

        def try_while_stopped(request: dict, patience: int = 1) -> dict | None:
            tries.append(patience)
            if worker._process is None:
                worker._start()
            stopped = worker._process
            stopped.send_signal(signal.SIGSTOP)
            threading.Timer(0.8, stopped.send_signal, [signal.SIGCONT]).start()
            return attempt(request, patience)

        worker._try = try_while_stopped
        assert sandbox.execute(db_path, "SELECT count(*) FROM patients").answer == TWO_PATIENTS
        assert tries == [1, PATIENCE]


def test_memory_is_bounded_and_the_next_query_unharmed(db_path):
    hoard = "SELECT printf('%.900000c%d', 'x', a.n * b.n) AS cell FROM numbers a, numbers b ORDER BY 1 LIMIT 500000"
    with SqlSandbox(workers=1, timeout_s=30.0, memory_mb=256) as sandbox:
        execution = sandbox.execute(db_path, hoard)
        assert (execution.status, execution.error) == ("error", "out of memory")
        assert process_ids(sandbox) == []  # replaced, so that what it still holds harms nobody
        assert sandbox.execute(db_path, "SELECT count(*) FROM patients").answer == TWO_PATIENTS


def test_a_chain_of_exploding_subqueries_does_not_harm(sandbox, db_path):
    chain = "WITH a0 AS NOT MATERIALIZED (SELECT n FROM numbers)" + "".join(
        f", a{i + 1} AS NOT MATERIALIZED (SELECT x.n FROM a{i} x, a{i} y)" for i in range(40)
    )
    assert sandbox.execute(db_path, f"{chain} SELECT count(*) FROM a40").status in (
        "error",
        "timeout",
        "crashed",
    )
    assert sandbox.execute(db_path, "SELECT 0 + count(*) FROM patients").answer == TWO_PATIENTS


def test_the_process_sees_no_environment_and_keeps_no_folder(sandbox, db_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    with SqlSandbox(workers=1) as fresh:
        fresh.execute(db_path, "SELECT 1")
        (process_id,) = process_ids(fresh)
        environment = Path(f"/proc/{process_id}/environ").read_bytes().strip(b"\0").split(b"\0")
        assert environment[-1] == b"TZ=UTC"
        assert all(entry.startswith(b"LD_LIBRARY_PATH=") for entry in environment[:-1])
        assert os.readlink(f"/proc/{process_id}/cwd") == "/"


def test_the_process_may_not_write_files(sandbox, db_path):
    sandbox.execute(db_path, "SELECT 1")
    limits = Path(f"/proc/{process_ids(sandbox)[0]}/limits").read_text()
    assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max file size")] == [["0", "0"]]


PARENT = """
import sys, threading
from reward_fns.sql.sandbox import SqlSandbox
sandbox = SqlSandbox(workers=2, timeout_s=2.0)
sandbox.execute(sys.argv[1], "SELECT 1")
threading.Thread(target=sandbox.execute, args=(sys.argv[1], sys.argv[2]), daemon=True).start()
sandbox.execute(sys.argv[1], "SELECT count(*) FROM patients")
print(*[worker._process.pid for worker in sandbox._workers if worker._process], flush=True)
sys.stdin.read()
"""


def test_processes_die_with_a_killed_parent(db_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), str(db_path), ENDLESS.format(3)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    workers = [int(word) for word in parent.stdout.readline().split()]
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert workers
    for _ in range(600):
        if not any(is_running(worker) for worker in workers):
            return
        time.sleep(0.05)
    pytest.fail("a worker outlived its parent")


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_killed_from_outside_loses_no_query(sandbox, db_path):
    sandbox.execute(db_path, "SELECT 1")
    for process_id in process_ids(sandbox):
        os.kill(process_id, signal.SIGKILL)
    assert sandbox.execute(db_path, "SELECT 1 * count(*) FROM patients").answer == TWO_PATIENTS


def test_an_interrupt_leaves_no_reply_for_the_next_query(db_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with SqlSandbox(workers=1) as sandbox:
            sandbox.execute(db_path, "SELECT 1")
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(KeyboardInterrupt):
                sandbox.execute(db_path, ENDLESS.format(7))
            assert sandbox.execute(db_path, "SELECT count(*) FROM patients").answer == TWO_PATIENTS
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_worker_that_dies_of_any_query_is_not_the_query_fault(db_path, tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text("print('{}', flush=True); input()")
    monkeypatch.setattr("reward_fns.sql.sandbox._WORKER", worker)
    with SqlSandbox(workers=1) as sandbox, pytest.raises(SandboxError, match="dies of SELECT 1"):
        sandbox.execute(db_path, "SELECT count(*) FROM patients")


PRINTS_ANSWER = """
import sys
from reward_fns.sql.sandbox import SqlSandbox
print(SqlSandbox().execute(sys.argv[1], "SELECT count(*) FROM patients").answer)
"""


def test_a_hard_cpu_limit_of_the_shell_is_kept(db_path):
    limited = ["bash", "-c", 'ulimit -t 3600; exec "$@"', "bash", sys.executable, "-c", PRINTS_ANSWER, str(db_path)]
    assert subprocess.run(limited, capture_output=True, text=True, check=True, cwd=REPO).stdout.strip() == TWO_PATIENTS


def test_many_threads_share_a_sandbox(db_path):
    queries = [(f"SELECT n FROM numbers WHERE n = {n % 90}", [(n % 90,)] if n % 90 else []) for n in range(600)]
    queries += [("DROP TABLE numbers", None)] * 20 + [(ENDLESS.format(5), None)] * 4
    random.Random(0).shuffle(queries)
    with SqlSandbox(workers=2, timeout_s=0.5, cache_size=50) as sandbox, ThreadPoolExecutor(16) as pool:
        executions = list(pool.map(lambda item: sandbox.execute(db_path, item[0]), queries))
    expected = [None if rows is None else canonical_answer(rows) for _, rows in queries]
    assert [execution.answer for execution in executions] == expected


def test_equal_queries_that_come_together_are_executed_once(db_path):
    with SqlSandbox(workers=4, timeout_s=0.5) as sandbox, ThreadPoolExecutor(16) as pool:
        executions = list(pool.map(lambda _: sandbox.execute(db_path, ENDLESS.format(2)), range(16)))
        assert len(process_ids(sandbox)) <= 1  # none is left where the kill came first
    assert {execution.status for execution in executions} == {"timeout"}
    assert len({id(execution) for execution in executions}) == 1


def test_a_process_is_recycled(db_path, monkeypatch):
    monkeypatch.setattr("reward_fns.sql.sandbox.RECYCLE_AFTER", 2)
    with SqlSandbox(workers=1) as sandbox:
        ids = []
        for n in range(4):
            assert sandbox.execute(db_path, f"SELECT count(*) + {n} FROM patients").status == "ok"
            ids += process_ids(sandbox)
    assert len(set(ids)) == 2


def test_the_process_cannot_open_another_file(sandbox, db_path):
    sandbox.execute(db_path, "SELECT 1")
    (process_id, *_) = process_ids(sandbox)
    limits = Path(f"/proc/{process_id}/limits").read_text()
    (soft,) = [line.split()[3] for line in limits.splitlines() if line.startswith("Max open files")]
    assert int(soft) == len(os.listdir(f"/proc/{process_id}/fd"))


def test_an_unreadable_database_is_noticed_by_warm_processes(db_path, tmp_path, monkeypatch):
    copy = tmp_path / "copy.sqlite"
    shutil.copy(db_path, copy)
    with SqlSandbox(workers=1) as sandbox:
        sandbox.execute(copy, "SELECT count(*) FROM patients")
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root reads what chmod forbids
        with pytest.raises(DatabaseError, match="copy.sqlite: permission denied"):
            sandbox.execute(copy, "SELECT count(*) FROM patients")


def test_equal_queries_are_executed_once(sandbox, db_path):
    first = sandbox.execute(db_path, "SELECT sum(n) FROM numbers")
    assert sandbox.execute(db_path, "SELECT  sum(n)\nFROM numbers -- again") is first


def test_a_rebuilt_database_is_read_anew(sandbox, db_path, tmp_path):
    copy = tmp_path / "copy.sqlite"
    shutil.copy(db_path, copy)
    assert sandbox.execute(copy, "SELECT count(*) FROM patients").answer == TWO_PATIENTS
    connection = sqlite3.connect(copy)
    connection.execute("DELETE FROM patients WHERE subject_id = 1")
    connection.commit()
    connection.close()
    os.utime(copy, ns=(1, 1))
    assert sandbox.execute(copy, "SELECT count(*) FROM patients").answer == canonical_answer([(1,)])


def test_closing_leaves_no_process_and_no_descriptor(db_path):
    before = len(os.listdir("/proc/self/fd"))
    sandbox = SqlSandbox(workers=2, timeout_s=0.3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: sandbox.execute(db_path, ENDLESS.format(n)), range(10, 14)))
    workers = process_ids(sandbox)
    sandbox.close()
    assert workers and not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_kept_of_an_error_is_bounded(sandbox, db_path):
    assert 0 < len(sandbox.execute(db_path, f'SELECT 1 FROM patients WHERE "{"x" * 30_000}').error) <= MAX_ERROR_CHARS


def test_a_folder_is_no_database(sandbox, tmp_path):
    with pytest.raises(DatabaseError, match="it is no file"):
        sandbox.execute(tmp_path, "SELECT 1")


@pytest.mark.parametrize("content", [None, b"", b"not a database" * 1000])
def test_a_bad_database_is_an_error_of_its_own(sandbox, tmp_path, content):
    path = tmp_path / "bad.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatabaseError, match="bad.sqlite"):
        sandbox.execute(path, "SELECT 1")


def test_a_damaged_page_is_the_database_fault(sandbox, db_path, tmp_path):
    damaged = tmp_path / "damaged.sqlite"
    data = bytearray(db_path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    damaged.write_bytes(data)
    with pytest.raises(DatabaseError, match="malformed"):
        sandbox.execute(damaged, "SELECT count(gender) FROM patients")
