"""``--deid``: patients, admissions, ICU stays and transfers get new ids."""

import duckdb
import numpy as np

from data_prep.mimic.cohort import make_table
from data_prep.mimic.csv_files import COLUMNS, MimicTree

# Each id and the file that lists all of them, in the order of the draws.
IDS = {"subject_id": "patients", "hadm_id": "admissions", "stay_id": "icustays", "transfer_id": "transfers"}


def renumber(db: duckdb.DuckDBPyConnection, tree: MimicTree) -> None:
    """Replace the views of the files by views with new ids: 1..n in an order that a generator of its own draws.

    Ids that no file lists become NULL. All else, the draws of the cohort included, stays as it is.
    """
    rng = np.random.default_rng(0)
    for column, file in IDS.items():
        with tree.reading(file):
            ids = f"SELECT DISTINCT {column} FROM {file} WHERE {column} IS NOT NULL ORDER BY {column}"
            old = db.execute(ids).fetchnumpy()[column]
        make_table(db, f"new_{column}", old=old, new=1 + rng.permutation(len(old)))
    for table, columns in COLUMNS.items():
        view = table.split("/")[1]
        replaced = [column for column in IDS if column in columns.split()]
        if replaced:
            news = ", ".join(f"new_{column}.new AS {column}" for column in replaced)
            joins = " ".join(f"LEFT JOIN new_{column} ON new_{column}.old = e.{column}" for column in replaced)
            db.execute(f"ALTER VIEW {view} RENAME TO {view}_as_read")
            db.execute(f"CREATE VIEW {view} AS SELECT e.* REPLACE ({news}) FROM {view}_as_read AS e {joins}")
