"""Gold queries are executed once each, in the grader's sandbox."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.progress import track

from data_prep.common.errors import InputError
from reward_fns.sql.sandbox import DatabaseError, Execution, SqlSandbox


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
