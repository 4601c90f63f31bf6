"""A second EHR database with indexes, on which queries run many times faster: for rewards on large databases.

An index may change which of several equal rows comes first, so ``data_prep.ehrsql --reward_db`` takes it only where
every gold answer is the same on both.
"""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from data_prep.common.atomic import atomic_output

# The columns that EHRSQL's queries select and join by.
KEYS = (
    *("subject_id", "hadm_id", "stay_id", "itemid", "icd_code", "drug"),
    *("label", "long_title", "event_id", "spec_type_desc"),
)


def indexed_path(db: Path) -> Path:
    """``ehr_indexed.sqlite`` beside ``ehr.sqlite``."""
    return db.with_name(f"{db.stem}_indexed{db.suffix}")


def build_indexed(db: Path) -> Path:
    """Copy ``db`` to ``indexed_path(db)`` with an index on each of ``KEYS`` in each table; return the path.

    Raises:
        InputError: the copy cannot be written; no half of it is left.
    """
    path = indexed_path(db)
    with atomic_output(path) as partial:
        shutil.copyfile(db, partial)
        with closing(sqlite3.connect(partial)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                for column in columns:
                    if column in KEYS:
                        connection.execute(f"CREATE INDEX {table}_{column} ON {table} ({column})")
            connection.commit()
    return path
