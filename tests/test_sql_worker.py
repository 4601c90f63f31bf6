"""The layers of the SQL worker one at a time: each holds where the others are taken away."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import REPO

from reward_fns.sql.worker import LIMITS, Database, Refused, answer_request

WORKER = REPO / "reward_fns" / "sql" / "worker.py"


@pytest.fixture
def database(tmp_path) -> Database:
    path = tmp_path / "ehr.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE patients (subject_id INTEGER)")
        connection.execute("INSERT INTO patients VALUES (1), (2)")
        connection.commit()
    stat = path.stat()
    return Database([path.as_uri(), stat.st_mtime_ns, stat.st_size])


def without_authorizer(database: Database) -> sqlite3.Connection:
    database.connection.set_authorizer(None)
    return database.connection


def test_the_authorizer_denies_what_is_no_query(database):
    for sql in ("DELETE FROM patients", "PRAGMA query_only = OFF", "ATTACH ':memory:' AS other", "BEGIN"):
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            database.connection.execute(sql)


def test_query_only_denies_writes(database):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        without_authorizer(database).execute("CREATE TEMP TABLE t (a)")


def test_the_file_is_open_for_reading_alone(database):
    connection = without_authorizer(database)
    connection.execute("PRAGMA query_only = OFF")
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM patients")


def test_no_other_file_can_be_attached(database):
    with pytest.raises(sqlite3.OperationalError, match="too many attached"):
        without_authorizer(database).execute("ATTACH ':memory:' AS other")


def test_the_limits_are_set(database):
    assert {limit: database.connection.getlimit(limit) for limit in LIMITS} == LIMITS


@pytest.mark.parametrize(("pragma", "value"), [("query_only", 1), ("temp_store", 2), ("trusted_schema", 0)])
def test_the_pragmas_are_set(database, pragma, value):
    assert without_authorizer(database).execute(f"PRAGMA {pragma}").fetchone() == (value,)


@pytest.mark.parametrize("table", ["sqlite_master", "pragma_database_list", "json_each('[1]')"])
def test_the_bytecode_shows_tables_that_are_not_the_database_own(database, table):
    without_authorizer(database)
    with pytest.raises(Refused):
        database.execute(f"SELECT * FROM {table}", timeout_s=5, max_rows=9, max_bytes=999)


CLOCKS = ['"julianday"()', "[date]()", "`time`()", "strftime('%Y,%m')", "strftime(upper('%Y'))"]


@pytest.mark.parametrize("call", CLOCKS)
def test_a_call_that_means_the_clock_fails_however_it_is_written(database, call):
    with pytest.raises(sqlite3.OperationalError):
        database.execute(f"SELECT {call} FROM patients", timeout_s=5, max_rows=9, max_bytes=999)


@pytest.mark.parametrize("starved_s", [0.0, 60.0])
def test_a_query_that_was_late_without_computing_is_told_apart(database, starved_s):
    endless = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT count(*) FROM s, patients"
    settings = {"timeout_s": 0.1, "starved_s": starved_s, "max_rows": 9, "max_bytes": 999}
    reply = answer_request(database, {"sql": endless}, settings)
    assert (reply["status"], reply["starved"]) == ("timeout", starved_s > 0)


def test_patience_is_for_the_clock_and_not_for_the_cpu(database):
    endless = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT count(*) FROM s, patients"
    settings = {"timeout_s": 0.1, "starved_s": 0.0, "max_rows": 9, "max_bytes": 999}
    before = time.process_time()
    reply = answer_request(database, {"sql": endless, "patience": 600}, settings)
    assert reply["status"] == "timeout"
    assert time.process_time() - before < 10  # on the clock it may take a minute


def test_a_query_reports_its_time_on_the_cpu(database):
    settings = {"timeout_s": 60.0, "starved_s": 0.0, "max_rows": 9, "max_bytes": 999}
    count = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT {}) SELECT count(*) FROM s, patients"
    short, long = (answer_request(database, {"sql": count.format(n)}, settings)["seconds"] for n in (1, 200_000))
    assert 0 < short < long


def test_the_process_ends_itself_in_an_opcode_that_never_yields(database):
    texts = "SELECT printf('%.900000c', 'x') AS a, printf('%.450000cy', 'x') AS b FROM patients"
    settings = {"timeout_s": 0.5, "hard_timeout_s": 0.6, "memory_mb": 512, "max_rows": 9, "max_bytes": 999}
    request = {"database": database.identity, "sql": f"SELECT instr(a, b) FROM ({texts})"}
    worker = subprocess.Popen(
        [sys.executable, "-I", "-S", str(WORKER), json.dumps(settings)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    worker.stdin.write(json.dumps(request).encode() + b"\n")
    worker.stdin.flush()
    assert worker.wait(60) == -signal.SIGALRM
    worker.stdin.close()
    worker.stdout.close()


def test_the_tests_drive_the_worker_that_the_sandbox_starts():
    assert Path(sys.modules[Database.__module__].__file__) == WORKER
