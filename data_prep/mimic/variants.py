"""``--variants``: databases of other patients, times and values, on which a query that was right by luck is wrong.

Gold and prediction are executed on each. Dictionaries stay, and values stay with their items, so that gold keeps its
sense. Most questions name a patient: half of the patients of a variant have the ids of others of the database, so that
such a question finds other records.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.common.atomic import atomic_output
from data_prep.mimic.cohort import BuildOptions
from data_prep.mimic.database import MEMORY_LIMIT, build

JITTER_DAYS = 60
# Table, what a value belongs to, the value: exchanged among rows with the same item, so that it stays plausible.
EXCHANGED = (
    ("labevents", "itemid", "valuenum"),
    ("prescriptions", "drug", "dose_val_rx"),
    ("chartevents", "itemid", "valuenum"),
    ("inputevents", "itemid", "totalamount"),
    ("outputevents", "itemid", "value"),
)
# Ids that questions name, and the table that holds each of them once.
NAMED = {"subject_id": "patients", "hadm_id": "admissions", "stay_id": "icustays"}


def build_variants(
    data_dir: Path, out_path: Path, options: BuildOptions, number: int, memory_limit: str = MEMORY_LIMIT
) -> Iterator[Path]:
    """Build ``number`` variants beside ``out_path``, each from a seed of its own, and yield their paths."""
    for seed in range(1, number + 1):
        path = out_path.with_name(f"{out_path.stem}.variant{seed}.sqlite")
        changed = replace(
            options,
            num_patient=max(1, options.num_patient * 4 // 5),
            seed=seed,
            jitter_days=JITTER_DAYS if options.timeshift else 0,
        )
        with atomic_output(path) as partial:
            build(data_dir, partial, changed, memory_limit)
            _exchange_values(partial, seed)
            for column, home in NAMED.items():
                _take_ids(partial, out_path, column, home, seed)
        yield path


def _exchange_values(path: Path, seed: int) -> None:
    """Give the values of each item to its rows in another order."""
    rng = np.random.default_rng(seed)
    with closing(sqlite3.connect(path)) as db:
        db.create_function("place", 0, rng.random)
        for table, item, value in EXCHANGED:
            db.execute(f"""
                CREATE TEMP TABLE new AS
                SELECT old.row_id, other.{value} AS value
                FROM (SELECT row_id, {item}, row_number() OVER (PARTITION BY {item} ORDER BY row_id) AS n
                    FROM {table}) AS old
                JOIN (SELECT {item}, {value}, row_number() OVER (PARTITION BY {item} ORDER BY place) AS n
                    FROM (SELECT {item}, {value}, place() AS place FROM {table} ORDER BY row_id)) AS other
                USING ({item}, n)""")
            db.execute(f"UPDATE {table} SET {value} = new.value FROM new WHERE new.row_id = {table}.row_id")
            db.execute("DROP TABLE new")
        db.commit()


def _take_ids(path: Path, original: Path, column: str, home: str, seed: int) -> None:
    """Replace the ids of ``column`` by those that ``original`` has in the table ``home``.

    Half of the ids that both have stay where they are. All others go to new places at random.
    """
    query = f"SELECT {column} FROM {home} ORDER BY row_id"
    with closing(sqlite3.connect(original)) as db:
        theirs = {row[0] for row in db.execute(query)}
    with closing(sqlite3.connect(path)) as db:
        own = [row[0] for row in db.execute(query)]
        rng = np.random.default_rng(seed)
        kept = {id for id in own if id in theirs and rng.random() < 0.5}
        # More ids than ``original`` has are its own ones that ``original`` lacks.
        free = iter([*rng.permutation(sorted(theirs - kept)).tolist(), *sorted({*own} - theirs)])
        new = [id if id in kept else next(free) for id in own]
        db.execute("CREATE TEMP TABLE taken (old INTEGER PRIMARY KEY, new INTEGER)")
        db.executemany("INSERT INTO taken VALUES (?, ?)", zip(own, new, strict=True))
        tables = "SELECT m.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c WHERE c.name = ?"
        for (table,) in db.execute(tables, [column]).fetchall():
            # By way of negative numbers: the ids of the home table are unique at every moment. It may lack an event's.
            new_id = f"coalesce((SELECT new FROM taken WHERE old = {column}), {column})"
            db.execute(f"UPDATE {table} SET {column} = -{new_id}")
            db.execute(f"UPDATE {table} SET {column} = -{column}")
        db.commit()
