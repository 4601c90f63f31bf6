"""The process side of ``reward_fns.sql.sandbox``: executes one untrusted query at a time against one database.

Run by file path with ``python -I -S``, so only the standard library and ``reward_fns.sql.answers`` are loaded and
nothing depends on the environment or the current folder. Requests and replies are JSON lines on stdin and stdout.
"""

import json
import os
import re
import resource
import select
import signal
import sqlite3
import sys
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from reward_fns.sql.answers import canonical_answer  # noqa: E402

# Deterministic functions only. Left out on purpose: random, randomblob, zeroblob, load_extension, sqlite_*, fts3_*,
# json_* and whatever else this build of SQLite offers.
_FUNCTION_NAMES = """
avg count group_concat max min sum total
cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
date datetime julianday strftime time unixepoch
abs char coalesce format glob hex ifnull iif instr length like likelihood likely lower ltrim nullif printf quote
replace round rtrim sign soundex substr substring trim typeof unicode unlikely upper
acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power
radians sin sinh sqrt tan tanh trunc
"""
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,  # bytes in a cell, a row being sorted or a text being built
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 200_000,  # bytes; the sandbox refuses longer text before
    sqlite3.SQLITE_LIMIT_COLUMN: 500,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 500,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 250_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 100,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
PRAGMAS = ("query_only = ON", "temp_store = MEMORY", "trusted_schema = OFF", "cache_size = -65536")
DATABASE_FAULTS = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_PERM,
}
PROGRESS_OPCODES = 1_000
PARENT_CHECK_S = 5.0
MAX_ANSWER_CHARS = 1_000_000
OPEN_FILES = 16
# Bytecode that takes something out of a table or looks it up, or goes over its rows to count or aggregate them.
_READS = {
    *(b"Column", b"Rowid", b"IdxRowid", b"Count", b"SeekRowid", b"SeekGE", b"SeekGT", b"SeekLE", b"SeekLT"),
    *(b"IdxGE", b"IdxGT", b"IdxLE", b"IdxLT", b"Found", b"NotFound", b"NoConflict", b"NotExists"),
}
_AGGREGATES = {b"AggStep", b"AggStep1", b"AggInverse"}
_CONSTANTS = {b"String8", b"String", b"Blob"}
_CALLS = {b"Function", b"PureFunc"}
_OPENS = {b"OpenRead", b"ReopenIdx"}
_TELLING = _READS | _AGGREGATES | _CONSTANTS | _CALLS | _OPENS | {b"VOpen"}

# SQLite skips semicolons before a statement, though not between EXPLAIN and one.
_QUERY = re.compile(r"(?:[\s;]|/\*.*?\*/)*+(SELECT|WITH|VALUES)\b", re.IGNORECASE)
# The clean-up has replaced the clock's legal spellings. Others would make the answer depend on the day of the run: a
# call without a time (function -> how many arguments that is), and the text "now", which is seen in the bytecode. What
# a query puts together at run time is not seen.
_CLOCKS = {"date": 0, "time": 0, "datetime": 0, "julianday": 0, "unixepoch": 0, "strftime": 1}
_CLOCK_CALL = re.compile(rf"(?:{'|'.join(_CLOCKS)})\(".encode(), re.IGNORECASE)
_CLOCK_TEXTS = {b"now", b"subsec", b"subsecond"}


class Refused(Exception):
    """The query is not one read-only, repeatable query over the tables."""


class TooLarge(Exception):
    """The result is over the caps on rows or bytes."""


def _refuse_clock(*_) -> None:
    raise Refused("not allowed: the clock")


def _decode(raw: bytes) -> str:
    return raw.decode(errors="ignore")


class Guard:
    """SQLite authorizer: SELECT, recursion, listed functions and the database's own tables; all else is denied."""

    def __init__(self, tables: set[str]):
        self.tables = tables
        self.denied: str | None = None

    def __call__(self, action: int, first: str | None, second: str | None, database: str | None, _) -> int:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and second.lower() in FUNCTIONS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and self._may_read(first.lower(), second, database):
            return sqlite3.SQLITE_OK
        self.denied = f"not allowed: {second or first or 'this statement'}"
        return sqlite3.SQLITE_DENY

    def _may_read(self, table: str, column: str, database: str | None) -> bool:
        # A table of which no column is used (count(*)) is named without its database, and so is a CTE.
        # Table-valued functions that come through here are seen in the bytecode.
        if column == "" and database is None:
            return not table.startswith("sqlite_")
        return database == "main" and table in self.tables


class Database:
    """A warm connection. ``identity`` is [URI, mtime in ns, size]: another one means another or a rebuilt file."""

    def __init__(self, identity: list):
        self.identity = identity
        self.connection = sqlite3.connect(
            f"{identity[0]}?mode=ro&immutable=1", uri=True, isolation_level=None, cached_statements=0
        )
        self.connection.text_factory = _decode
        names = self.connection.execute("SELECT lower(name) FROM sqlite_master WHERE type IN ('table', 'view')")
        tables = {name for (name,) in names if not name.startswith("sqlite_")}
        if not tables:
            raise sqlite3.DatabaseError("it holds no tables")
        for pragma in PRAGMAS:
            self.connection.execute(f"PRAGMA {pragma}")
        for limit, value in LIMITS.items():
            self.connection.setlimit(limit, value)
        for name, arguments in _CLOCKS.items():
            self.connection.create_function(name, arguments, _refuse_clock)
        self.guard = Guard(tables)
        self.connection.set_authorizer(self.guard)

    def execute(self, sql: str, timeout_s: float, max_rows: int, max_bytes: int, patience: int = 1) -> dict:
        """Return the reply's fields for a query that executes; raise for one that does not.

        It is interrupted after ``timeout_s`` on the CPU, or ``patience`` times as long on the clock.
        """
        query = _QUERY.match(sql)
        if not query:
            raise Refused("not a query: it must start with SELECT, WITH or VALUES")
        self.guard.denied = None
        clock_end, cpu_end = time.monotonic() + timeout_s * patience, time.process_time() + timeout_s
        self.connection.set_progress_handler(
            lambda: time.monotonic() > clock_end or time.process_time() > cpu_end, PROGRESS_OPCODES
        )
        reads_table = self._reads_table(sql[: query.start(1)].replace(";", " ") + sql[query.start(1) :])
        if query[1].upper() == "VALUES" and not reads_table:
            raise Refused("not a query: VALUES that reads no table")
        rows = size = 0

        def fetched():
            nonlocal rows, size
            for row in self.connection.execute(sql):
                rows += 1
                size += sum(len(cell) if isinstance(cell, str | bytes) else 8 for cell in row)
                if rows > max_rows or size > max_bytes:
                    raise TooLarge(f"over {max_rows} rows or {max_bytes} characters")
                yield row

        answer = canonical_answer(fetched())
        if len(answer) > MAX_ANSWER_CHARS:
            raise TooLarge(f"an answer over {MAX_ANSWER_CHARS} characters")
        return {"status": "ok", "answer": answer, "reads_table": reads_table, "rows": rows}

    def _reads_table(self, sql: str) -> bool:
        """Read in the bytecode whether the query takes anything out of a table of the database.

        A CTE that is never used opens no table, and ``SELECT 1 FROM patients`` opens one without reading it.
        """
        self.connection.text_factory = bytes  # faster, and these are hundreds of short texts
        try:
            program = [row for row in self.connection.execute(f"EXPLAIN {sql}") if row[1] in _TELLING]
        finally:
            self.connection.text_factory = _decode
        cursors = set()
        reads = aggregates = names_clock = calls_clock = False
        for _, opcode, cursor, root_page, database, constant, *_ in program:
            names_clock |= opcode in _CONSTANTS and bool(constant) and constant.strip().lower() in _CLOCK_TEXTS
            calls_clock |= opcode in _CALLS and bool(_CLOCK_CALL.match(constant))
            if opcode == b"VOpen" or (opcode in _OPENS and (database != 0 or root_page == 1)):
                raise Refused("not allowed: virtual, temporary or schema table")
            if opcode in _OPENS:
                cursors.add(cursor)
            reads = reads or (opcode in _READS and cursor in cursors)
            aggregates = aggregates or opcode in _AGGREGATES
        if names_clock and calls_clock:
            raise Refused("not allowed: the clock")
        return reads or (aggregates and bool(cursors))


def answer_request(database: Database, request: dict, settings: dict) -> dict:
    """Execute one request's SQL; every failure of a query becomes a reply."""
    start = time.process_time()
    limits = {**settings, **request}
    try:
        reply = database.execute(
            request["sql"], limits["timeout_s"], limits["max_rows"], limits["max_bytes"], request.get("patience", 1)
        )
        return {**reply, "seconds": time.process_time() - start}
    except Refused as error:
        return {"status": "refused", "error": str(error)}
    except TooLarge as error:
        return {"status": "too_large", "error": str(error)}
    except MemoryError:
        return {"status": "error", "error": "out of memory", "retire": True}
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        if code == sqlite3.SQLITE_INTERRUPT:
            starved = time.process_time() - start < limits["starved_s"]
            return {"status": "timeout", "error": "over the deadline", "starved": starved}
        if code & 0xFF in DATABASE_FAULTS and code != sqlite3.SQLITE_IOERR_NOMEM:
            return {"status": "database", "error": str(error)}
        if database.guard.denied:
            return {"status": "refused", "error": database.guard.denied}
        return {"status": "error", "error": str(error)}
    except (sqlite3.Warning, UnicodeError) as error:
        return {"status": "error", "error": str(error)}


def confine(memory_mb: int) -> None:
    """Bound what this process can take, whatever SQLite does."""
    memory = memory_mb * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_cpu(seconds: float) -> None:
    """Let this process take that many more seconds of CPU time, rounded up; the kernel kills it beyond."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)  # a shell may have set one
    soft = int(time.process_time() + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def open_database(identity: list) -> "Database":
    """Open a database. Then this process cannot open another file: its limit of descriptors is reached."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    database = Database(identity)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, OPEN_FILES))
    return database


def send(reply: dict) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def serve(settings: dict) -> None:
    """Answer requests until stdin closes or the parent is gone."""
    parent = os.getppid()
    confine(settings["memory_mb"])
    send({"status": "ready"})
    database = None
    reply = {}
    while "retire" not in reply:
        # End of file tells that the parent died, unless a fork of it still holds the pipe. (PR_SET_PDEATHSIG would
        # kill this process when the thread that started it ends, and reward threads come and go.)
        while not select.select([sys.stdin], [], [], PARENT_CHECK_S)[0]:
            if os.getppid() != parent:
                return
        line = sys.stdin.readline()
        if not line.endswith("\n"):
            return
        request = json.loads(line)
        # Unhandled SIGALRM ends the process even inside one long opcode: this bounds an orphan too.
        hard_timeout_s = request.get("hard_timeout_s", settings["hard_timeout_s"])
        signal.setitimer(signal.ITIMER_REAL, hard_timeout_s * request.get("patience", 1))
        limit_cpu(hard_timeout_s)
        try:
            if database is None or database.identity != request["database"]:
                database = None
                database = open_database(request["database"])
            reply = answer_request(database, request, settings)
        except sqlite3.Error as error:
            reply = {"status": "database", "error": str(error)}
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(reply)


if __name__ == "__main__":
    try:
        serve(json.loads(sys.argv[1]))
    except BrokenPipeError:
        os._exit(1)
