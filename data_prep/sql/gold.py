"""Gold queries are executed once each, in the grader's sandbox. How long they take sets the deadlines of training."""

import math
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track

from data_prep.common.errors import InputError
from reward_fns.sql.sandbox import MAX_TIMEOUT_S, DatabaseError, Execution, SqlSandbox

TIMES_GOLD = 10  # a model's right query may be that much slower than the gold query
LEAST_TIMEOUT_S = 1.0


def execute_all(db: Path, queries: Iterable[str], timeout_s: float) -> dict[str, Execution]:
    """Query -> what came of it, for each distinct query. Raises ``InputError`` where the database cannot be read."""
    queries = sorted(set(queries))
    workers = os.cpu_count()
    with SqlSandbox(workers, timeout_s) as sandbox, ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda sql: sandbox.execute(db, sql), queries)
        try:
            return dict(zip(queries, track(results, "Executing gold", len(queries)), strict=True))
        except DatabaseError as error:
            raise InputError(f"cannot read {db} ({error}); build it again") from error


def gold_seconds(db: Path, executions: dict[str, Execution], timeout_s: float) -> dict[str, float]:
    """Query -> its time on the CPU, of those that executed.

    Where it matters for ``training_timeout``, a query is measured again, alone and twice, and the shortest time counts:
    a file that is read for the first time, or a busy machine, makes a query look slow.
    """
    seconds = {sql: execution.seconds for sql, execution in executions.items() if execution.status == "ok"}
    slow = [sql for sql, took in seconds.items() if TIMES_GOLD * took > LEAST_TIMEOUT_S]
    if slow:
        with SqlSandbox(workers=1, timeout_s=timeout_s, cache_size=0) as sandbox:
            for sql in slow * 2:
                again = sandbox.execute(db, sql)
                if again.status == "ok":
                    seconds[sql] = min(seconds[sql], again.seconds)
    return seconds


def training_timeout(seconds: float) -> float:
    """The deadline of a query in training whose gold takes ``seconds``: ten times that, and at least one second.

    Whole seconds, so that two runs on a machine write the same files although no two measurements are equal.
    """
    return float(min(max(LEAST_TIMEOUT_S, math.ceil(TIMES_GOLD * seconds)), MAX_TIMEOUT_S))
