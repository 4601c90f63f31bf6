"""A MIMIC-IV tree opened in DuckDB: the cohort drawn, each table's rows as a stream."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np

from data_prep.common.errors import InputError
from data_prep.mimic.cohort import BuildOptions, check_people, make_cohort
from data_prep.mimic.csv_files import MimicTree
from data_prep.mimic.deid import renumber
from data_prep.mimic.tables import LABEL_HOME, MACROS, TABLES, Table

ROWS_AT_ONCE = 20_000
SCANS = min(os.cpu_count(), 4)  # files at once: a scan that keeps the order runs on little more than one core
# The files that cohorts are drawn from, and what is held of them: their text would grow with the hospital.
PEOPLE = (
    ("patients", "person", "*"),
    ("admissions", "visit", "file_row, subject_id, hadm_id, admittime, dischtime"),
    ("icustays", "stay", "DISTINCT subject_id"),
)

# Rows must stay in source order, and tables that are looked up must be the side of a join that is held in memory:
# so no join may be turned around, and no IN (constants) become one.
SETTINGS = "SET disabled_optimizers = 'join_order,build_side_probe_side,in_clause'; SET enable_progress_bar = false"


class EhrSource:
    """Use as a context manager. ``rng`` is the generator after the draws of the cohort, as ``cost`` needs it.

    DuckDB holds at most ``memory_limit``, e.g. "2GB", and what does not fit in the folder ``spill``. Raises
    ``InputError`` where the tree is incomplete, damaged or contradicts itself.
    """

    def __init__(self, tree: MimicTree, options: BuildOptions, memory_limit: str, spill: Path):
        self.tree = tree
        self.rng = np.random.default_rng(options.seed)
        self.db = duckdb.connect()
        try:
            self.db.execute("SET memory_limit = $1", [memory_limit])
        except duckdb.Error as error:
            raise InputError(f"memory_limit is {memory_limit!r}; give a size such as 2GB") from error
        self.db.execute("SET temp_directory = $1", [str(spill)])
        self.db.execute(SETTINGS)
        tree.create_views(self.db)
        self._hold_people()
        check_people(self.db)
        if options.deid:
            renumber(self.db, tree)
            self._hold_people()
        make_cohort(self.db, options, self.rng)
        for _, table, _ in PEOPLE:  # the memory is for the scans from here on
            self.db.execute(f"DROP TABLE {table}")
        self.db.execute("CREATE TABLE label_home (label VARCHAR, home VARCHAR)")
        self.db.executemany("INSERT INTO label_home VALUES (?, ?)", list(LABEL_HOME.items()))
        self.db.execute(MACROS)
        for table in TABLES:
            if table.sort and table.before:
                with tree.reading(table.file):
                    self.db.execute(table.before)

    def __enter__(self) -> "EhrSource":
        return self

    def __exit__(self, *_) -> None:
        self.db.close()

    def stream(self) -> Iterator[tuple[Table, Iterator[list[tuple]]]]:
        """Each of ``TABLES`` and, some at a time, its rows that stay, in source order and without row_id.

        While one table's rows are taken, the scans of the next ones go on until they have their first rows.
        """
        waiting = deque((table, self.db.cursor()) for table in TABLES)
        begun = deque()
        cursors = [cursor for _, cursor in waiting]
        with ThreadPoolExecutor(SCANS) as pool:
            try:
                while waiting or begun:
                    while waiting and len(begun) < SCANS:
                        table, cursor = waiting.popleft()
                        begun.append((table, cursor, pool.submit(self._begin, table, cursor)))
                    table, cursor, first_rows = begun.popleft()
                    yield table, self._rows(table, cursor, first_rows.result())
                    cursors.remove(cursor)
                    cursor.close()  # and with it what its joins hold
            finally:
                for cursor in cursors:
                    cursor.interrupt()

    def _begin(self, table: Table, cursor: duckdb.DuckDBPyConnection) -> list[tuple]:
        with self.tree.reading(table.file):
            if not table.sort:
                cursor.execute(table.before)
            cursor.execute(table.query())
            return cursor.fetchmany(ROWS_AT_ONCE)

    def _rows(self, table: Table, cursor: duckdb.DuckDBPyConnection, rows: list[tuple]) -> Iterator[list[tuple]]:
        last = 0
        while rows:
            places = [row[-1] for row in rows]
            if places[0] < last or places != sorted(places):
                raise RuntimeError(f"DuckDB gave the rows of {table.name} out of order")
            last = places[-1]
            yield [row[:-1] for row in rows]
            with self.tree.reading(table.file):
                rows = cursor.fetchmany(ROWS_AT_ONCE)

    def _hold_people(self) -> None:
        for file, table, columns in PEOPLE:
            with self.tree.reading(file):
                self.db.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT {columns} FROM {file}")
