"""Hostile SQL, one attack a test: none may write, make a file, exceed the memory cap, outlive its deadline, harm the
process that asks, change a neighbour's verdict, or be paid."""

import hashlib
import itertools
import os
import random
import resource
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from reward_fns.ehrsql import compute_score
from reward_fns.sql.answers import canonical_answer
from reward_fns.sql.sandbox import SqlSandbox

MEMORY_MB = 512
TIMEOUT_S = 1.0  # long enough for harmless queries on a busy machine
NOT_A_QUERY, FAILS, HARMLESS = ("refused",), ("refused", "error"), ("ok",)
IS_STOPPED = ("refused", "error", "timeout", "too_large", "crashed")  # which one depends on the machine's speed

WRITES = """
INSERT INTO patients VALUES (3, 'f')
INSERT OR REPLACE INTO patients VALUES (1, 'x') RETURNING gender
INSERT INTO patients SELECT 3, 'f' ON CONFLICT DO NOTHING
REPLACE INTO patients VALUES (1, 2)
UPDATE patients SET gender = 'x' RETURNING gender
UPDATE patients SET gender = numbers.n FROM numbers
DELETE FROM patients
DELETE FROM patients RETURNING 1
WITH t AS (SELECT 1) DELETE FROM patients RETURNING 1
WITH t AS (SELECT 3) INSERT INTO patients SELECT 1, 2 FROM t RETURNING 1
WITH t AS (SELECT 3) UPDATE patients SET gender = 'x' RETURNING 1
DROP TABLE patients
ALTER TABLE patients RENAME TO people
ALTER TABLE patients ADD COLUMN x
CREATE TABLE t (a)
CREATE TABLE t AS SELECT * FROM patients
CREATE TEMP TABLE patients AS SELECT 1
CREATE TEMP VIEW patients AS SELECT 1
CREATE VIEW v AS SELECT 1
CREATE INDEX i ON patients (gender)
CREATE TEMP TRIGGER t AFTER INSERT ON patients BEGIN SELECT 1; END
CREATE VIRTUAL TABLE t USING fts5(a)
BEGIN
BEGIN IMMEDIATE
COMMIT
ROLLBACK
SAVEPOINT s
RELEASE s
REINDEX
ANALYZE
""".strip().splitlines()
WRITTEN = ("new.sqlite", "copy.sqlite", "new.txt")  # by those below
FILES = """
ATTACH 'new.sqlite' AS other
ATTACH ':memory:' AS other
ATTACH 'file:new.sqlite?mode=rwc' AS other
DETACH main
VACUUM
VACUUM INTO 'copy.sqlite'
EXPLAIN SELECT count(*) FROM patients
EXPLAIN QUERY PLAN SELECT count(*) FROM patients
""".strip().splitlines()
PRAGMAS = """
PRAGMA query_only = OFF
PRAGMA writable_schema = ON
PRAGMA journal_mode = WAL
PRAGMA user_version = 9
PRAGMA hard_heap_limit = 1
PRAGMA mmap_size = 268435456
PRAGMA temp_store_directory = '/tmp'
PRAGMA database_list
PRAGMA optimize
""".strip().splitlines()
OTHER_TABLES = """
SELECT sql FROM sqlite_master
SELECT count(*) FROM sqlite_master
SELECT count(*) FROM main.sqlite_schema
SELECT 1 FROM sqlite_temp_master
SELECT sql FROM sqlite_stmt
SELECT count(*) FROM sqlite_dbpage
SELECT count(*) FROM dbstat
SELECT name FROM pragma_database_list
SELECT name FROM pragma_function_list
SELECT count(*) FROM patients, pragma_table_info('patients')
SELECT count(*) FROM json_each('[1, 2]')
SELECT count(*) FROM patients, json_tree('[1, 2]')
SELECT count(*) FROM generate_series(1, 9)
SELECT count(*) FROM bytecode('SELECT 1')
SELECT count(*) FROM tables_used('SELECT 1')
SELECT count(*) FROM fts3tokenize('simple', 'a b')
SELECT count(*) FROM other.patients
SELECT count(*) FROM temp.patients
""".strip().splitlines()
FUNCTIONS = """
random()
randomblob(9)
zeroblob(9)
load_extension('x')
readfile('/etc/passwd')
writefile('new.txt', 'x')
edit('x', 'vi')
fts3_tokenizer('simple', x'00')
sqlite_version()
sqlite_source_id()
sqlite_log(1, 'x')
sqlite_compileoption_get(1)
last_insert_rowid()
changes()
total_changes()
json('[]')
json_group_array(gender)
CURRENT_TIMESTAMP
CURRENT_TIME
CURRENT_DATE
date('NOW')
date("now")
date(x'6e6f77')
datetime(' NOW ')
date()
julianday()
strftime('%s')
strftime('%Y')
strftime(("%Y"))
unixepoch('subsec')
""".strip().splitlines()
STATEMENTS = [
    "SELECT 1; SELECT 2",
    "SELECT count(*) FROM patients; DROP TABLE patients",
    "SELECT 1;;",
    "SELECT 1; --\nSELECT 2",
    "; SELECT 1; SELECT 2",
    ";SELECT 1; DROP TABLE patients",
    "SELECT 1\x00; DROP TABLE patients",
    "SELECT count(*) FROM patients UNION DELETE FROM patients",
    "SELECT (DELETE FROM patients)",
    "SELECT ?",
    "SELECT :name",
    "SELECT nothing FROM patients",
    "SELECT",
]
NOTHING = [
    "",
    ";",
    ";;DROP TABLE patients",
    "; PRAGMA query_only = OFF",
    ";EXPLAIN SELECT 1",
    "; ATTACH 'x' AS y",
    "-- nothing",
    "/* nothing",
    "VALUES (1)",
    "VALUES (1), (2)",
    "\u202eSELECT 1",
    "null",
]
ENCODINGS = ["SELECT '\ud800' FROM patients", "SELECT\u00a0count(*)\u200bFROM patients", "S\x00ELECT 1",
             "SELECT count(*) FROM pat\u0456ents"]  # fmt: skip
COUNT_UP = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s)"
BIG = "printf('%.900000c', 'x')"
ENDLESS = {
    "recursion": f"{COUNT_UP} SELECT count(*) FROM s, patients",
    "recursion without an end that selects nothing": f"{COUNT_UP} SELECT n FROM s, patients WHERE n < 0",
    "recursion of distinct rows": "WITH RECURSIVE s(n) AS (SELECT 1 UNION SELECT n + 1 FROM s) SELECT max(n) FROM s",
    "recursion ordered": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s ORDER BY 1) "
    "SELECT sum(n) FROM s",
    "recursion of growing text": "WITH RECURSIVE s(t) AS (SELECT 'x' UNION ALL SELECT substr(t || t, 1, 9) FROM s) "
    "SELECT max(t) FROM s",
    "product": "SELECT count(*) FROM numbers a, numbers b, numbers c, numbers d",
    "product with a condition": "SELECT count(*) FROM numbers a, numbers b, numbers c WHERE a.n * b.n = c.n + 0.5",
    "join on nothing": "SELECT max(a.n) FROM numbers a LEFT JOIN numbers b ON 1 LEFT JOIN numbers c ON b.n > -1",
    "sort": "SELECT a.n FROM numbers a, numbers b, numbers c ORDER BY a.n * b.n - c.n LIMIT 1",
    "distinct": "SELECT count(DISTINCT a.n * b.n + c.n) FROM numbers a, numbers b, numbers c",
    "group": "SELECT a.n FROM numbers a, numbers b, numbers c GROUP BY a.n + b.n + c.n LIMIT 1",
    "window": "SELECT sum(a.n) OVER (ORDER BY a.n * b.n) FROM numbers a, numbers b, numbers c LIMIT 1",
    "window of every row": "SELECT max(a.n) OVER (ORDER BY a.n ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) "
    "FROM numbers a, numbers b, numbers c LIMIT 1",
    "correlated": "SELECT sum((SELECT count(*) FROM numbers b, numbers c WHERE b.n + c.n < a.n)) FROM numbers a",
    "exists": "SELECT EXISTS (SELECT 1 FROM numbers a, numbers b, numbers c WHERE a.n + b.n + c.n < 0)",
    "intersect": "SELECT a.n * b.n * c.n AS x FROM numbers a, numbers b, numbers c INTERSECT SELECT -1",
    "instr": f"SELECT instr(a, b) FROM (SELECT {BIG} AS a, printf('%.450000c', 'x') || 'y' AS b FROM patients)",
    "trim": f"SELECT trim({BIG} || 'z', replace({BIG}, 'x', 'y')) FROM numbers",
    "exploding subqueries": "WITH a0 AS NOT MATERIALIZED (SELECT n FROM numbers)"
    + "".join(f", a{i + 1} AS NOT MATERIALIZED (SELECT x.n FROM a{i} x, a{i} y)" for i in range(40))
    + " SELECT count(*) FROM a40",
}
MEMORY_OR_TIME = {
    "printf": "printf('%.60000000c', 'x')",
    "printf width": "printf('%060000000d', 1)",
    "printf argument": "printf('%.*c', 60000000, 'x')",
    "replace": "replace(printf('%.90000c', 'x'), 'x', printf('%.90000c', 'y'))",
    "replace in replace": f"replace(replace({BIG}, 'x', 'yy'), 'y', 'zz')",
    "hex": "hex(hex(hex(printf('%.500000c', 'x'))))",
    "quote": f"quote({BIG} || {BIG})",
    "concatenation": f"{BIG} || {BIG} || {BIG}",
    "group_concat": f"(SELECT group_concat({BIG}) FROM numbers)",
    "group_concat over a window": f"(SELECT group_concat({BIG}) OVER () FROM numbers LIMIT 1)",
    "blob literal": "x'" + "00" * 90_000 + "'",
    "LIKE": "(SELECT count(*) FROM numbers WHERE printf('%.90000c', 'x') || n LIKE '%x%x%x%x%y')",
    "GLOB": "(SELECT count(*) FROM numbers WHERE printf('%.90000c', 'x') || n GLOB '*x*x*x*x*y')",
    "LIKE with a long pattern": "(SELECT count(*) FROM numbers WHERE 'x' LIKE printf('%.90000c', '%') || n)",
    "char": "char(" + ",".join(["120"] * 120) + ")",
}
FLOODS = [
    "SELECT 1 FROM numbers a, numbers b",
    "SELECT a.n FROM numbers a, numbers b",
    "SELECT printf('%.100000c', 'x') FROM numbers",
    f"SELECT {BIG} FROM numbers LIMIT 40",
    "SELECT " + ", ".join(f"printf('%.90000c', {n})" for n in range(400)) + " FROM patients",
]
PARSER = [
    "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "SELECT 1" + " UNION ALL SELECT 1" * 1000,
    "SELECT " + "1," * 2000 + "1",
    "SELECT 1" + " + 1" * 5000,
    "SELECT " + "NOT " * 3000 + "1 FROM patients",
    "SELECT " + "-" * 2 + "~" * 5000 + "1 FROM patients",
    "SELECT " + "CASE WHEN 1 THEN " * 600 + "1" + " END" * 600,
    "SELECT " + "abs(" * 2000 + "1" + ")" * 2000,
    "SELECT * FROM " + "(SELECT * FROM " * 600 + "patients" + ")" * 600,
    "SELECT count(*) FROM " + ", ".join(f"patients p{n}" for n in range(70)),
    "SELECT 1 FROM patients WHERE " + " OR ".join(["subject_id = 1"] * 1500),
    "SELECT '" + "x" * 1_000_000 + "'",
    "SELECT count(*) FROM patients WHERE subject_id IN (" + "1," * 40_000 + "1)",
    "SELECT " + "x" * 31_000 + " FROM patients",
]
CONSTANTS = [
    "SELECT 2",
    "SELECT 2 FROM patients LIMIT 1",
    "SELECT DISTINCT 2 FROM patients, numbers",
    "WITH t AS (SELECT * FROM patients) SELECT 2",
    "WITH patients AS (SELECT 2 AS n) SELECT n FROM patients",
    "SELECT count(*) FROM (SELECT 1 UNION ALL SELECT 2)",
    "SELECT (SELECT 2 FROM numbers LIMIT 1)",
    "SELECT '2.0'",
    "SELECT length('xx') FROM patients LIMIT 1",
]

ATTACKS: list[tuple[str, tuple[str, ...]]] = [
    *((sql, NOT_A_QUERY) for sql in [*WRITES, *FILES, *PRAGMAS, *NOTHING]),
    *((sql, FAILS) for sql in [*OTHER_TABLES, *STATEMENTS, *ENCODINGS]),
    *((f"SELECT {call} FROM patients", FAILS) for call in FUNCTIONS),
    *((sql, IS_STOPPED) for sql in [*ENDLESS.values(), *FLOODS, *PARSER]),
    # SQLite gives NULL for some, and finds others quickly.
    *((f"SELECT {expression}", (*IS_STOPPED, *HARMLESS)) for expression in MEMORY_OR_TIME.values()),
    *((sql, HARMLESS) for sql in CONSTANTS),
]


def test_there_are_enough_attacks():
    assert len({sql for sql, _ in ATTACKS}) == len(ATTACKS) >= 150


@pytest.fixture(scope="module")
def db_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("database") / "ehr.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE patients (subject_id INTEGER PRIMARY KEY, gender TEXT);
            INSERT INTO patients VALUES (1, 'f'), (2, 'm');
            CREATE TABLE numbers (n INTEGER);
            INSERT INTO numbers
            WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT 1000) SELECT n FROM s;
            """
        )
    return path


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SqlSandbox]:
    with SqlSandbox(workers=1, timeout_s=TIMEOUT_S, memory_mb=MEMORY_MB) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def neighbours() -> Iterator[tuple[str, str]]:
    """Queries that nothing has executed yet, and their answers."""
    return ((f"SELECT count(*) + {n} FROM patients", canonical_answer([(2 + n,)])) for n in itertools.count())


def worker_status(sandbox: SqlSandbox) -> dict[str, str]:
    """/proc/<pid>/status of the one worker process; empty if it was replaced."""
    process = sandbox._workers[0]._process
    if process is None:
        return {}
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


@pytest.mark.parametrize(("sql", "statuses"), ATTACKS, ids=range(len(ATTACKS)))
def test_an_attack_does_no_harm(sandbox, db_path, neighbours, sql, statuses):
    before = hashlib.sha256(db_path.read_bytes()).digest()

    assert sandbox.execute(db_path, sql).status in statuses

    status = worker_status(sandbox)
    if status:  # else it was killed
        assert int(status["VmPeak"].split()[0]) <= MEMORY_MB * 1024
    query, answer = next(neighbours)
    assert sandbox.execute(db_path, query).answer == answer
    assert hashlib.sha256(db_path.read_bytes()).digest() == before
    assert [path.name for path in db_path.parent.iterdir()] == [db_path.name]
    assert not any((folder / name).exists() for folder in (Path("/"), Path.cwd()) for name in WRITTEN)


@pytest.mark.parametrize("sql", [*CONSTANTS, *(f"SELECT {call} FROM patients" for call in FUNCTIONS), *WRITES])
def test_an_attack_is_not_paid(db_path, sql):
    """Not even where it hits the answer, 2."""
    result = compute_score("ehrsql", sql, canonical_answer([(2,)]), {"db_path": str(db_path)})
    assert (result["score"], result["grader_failed"]) == (0.0, 0.0)


def test_ten_thousand_samples_with_five_percent_hostile_ones(db_path):
    """No stall, leak or changed verdict, and the database is bit-identical."""
    samples = [(f"SELECT count(*) FROM numbers WHERE n > {n % 999}", str(999.0 - n % 999 + 1)) for n in range(9_500)]
    hostile = [sql for sql, statuses in ATTACKS if statuses != HARMLESS]
    samples += [(hostile[n % len(hostile)], "") for n in range(500)]
    random.Random(0).shuffle(samples)
    before = hashlib.sha256(db_path.read_bytes()).digest()
    descriptors, limit = len(os.listdir("/proc/self/fd")), resource.getrlimit(resource.RLIMIT_AS)

    with SqlSandbox(workers=2, timeout_s=TIMEOUT_S) as sandbox, ThreadPoolExecutor(16) as pool:
        executions = list(pool.map(lambda sample: sandbox.execute(db_path, sample[0]), samples))
        processes = [worker._process.pid for worker in sandbox._workers if worker._process]

    for (_, answer), execution in zip(samples, executions, strict=True):
        if answer:
            assert execution.answer == f'[["{answer}"]]'
        else:
            assert execution.status != "ok" or len(execution.answer) < 100
    assert hashlib.sha256(db_path.read_bytes()).digest() == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors  # less where garbage of other tests was collected
    assert not any(Path(f"/proc/{process}").exists() for process in processes)
    assert resource.getrlimit(resource.RLIMIT_AS) == limit
