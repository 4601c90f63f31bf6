"""Fills the SQLite database from a MIMIC-IV tree."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from rich.console import Console

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError
from data_prep.mimic.cohort import BuildOptions
from data_prep.mimic.cost import fill_cost
from data_prep.mimic.csv_files import MimicTree
from data_prep.mimic.explain import count_rules, print_rules
from data_prep.mimic.progress import BuildProgress
from data_prep.mimic.source import EhrSource
from data_prep.mimic.tables import PRESCRIPTIONS

SCHEMA = Path(__file__).with_name("schema.sql")
MEMORY_LIMIT = "2GB"


def build(
    data_dir: Path,
    out_path: Path,
    options: BuildOptions,
    memory_limit: str = MEMORY_LIMIT,
    explain: bool = False,
    console: Console | None = None,
) -> dict[str, int]:
    """Write the database of the MIMIC-IV tree ``data_dir`` to ``out_path``, whole or not at all.

    Rows stream through; what DuckDB holds is bounded by ``memory_limit``. ``console`` gets the progress and, with
    ``explain``, what each rule keeps. Returns the number of rows of each table. Raises ``InputError`` for a missing or
    damaged tree, or where nothing can be written.

    >>> build(tree, folder / "mimic_iv.sqlite", BuildOptions(num_patient=10))["patients"]
    10
    """
    tree = MimicTree(data_dir)
    counts = {}
    with (
        atomic_output(out_path) as partial,
        BuildProgress(console or Console(quiet=True), tree.sizes() * (2 if explain else 1)) as progress,
        EhrSource(tree, options, memory_limit, partial.with_name(f"{partial.name}.spill")) as source,
        closing(sqlite3.connect(partial, isolation_level=None)) as db,
    ):
        try:
            # The file is new and not yet in its place: if anything fails, it is removed.
            db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;")
            db.executescript(SCHEMA.read_text("utf-8"))
            db.execute("BEGIN")
            for table, parts in source.stream():
                counts[table.name] = _fill(db, table.name, parts, progress)
                if explain:
                    print_rules(progress.console, table, count_rules(source, table))
                if table is PRESCRIPTIONS:  # the last that costs something
                    counts["cost"] = fill_cost(db, source.rng)
                    progress.done("cost", counts["cost"])
            db.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            tree.check_gzip(table.file)
            raise InputError(f"cannot fill the database: {error}; complete or remove such rows") from error
        except sqlite3.OperationalError as error:
            raise InputError(f"cannot write {out_path}: {error}; free space or choose another") from error
    return counts


def _fill(db: sqlite3.Connection, table: str, parts: Iterable[list[tuple]], progress: BuildProgress) -> int:
    """Insert the rows with row_id 0, 1, ...; return their number."""
    count = 0
    marks = ", ".join("?" * len(db.execute(f"PRAGMA table_info({table})").fetchall()))
    for rows in parts:
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", ((n, *row) for n, row in enumerate(rows, count)))
        count += len(rows)
        progress.filling(table, count)
    progress.done(table, count)
    return count
