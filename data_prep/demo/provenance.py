"""Whether data are the demo's: a model card says whether patients may stand behind a model."""

import sqlite3
from contextlib import closing
from pathlib import Path

from data_prep.demo.output import MARKERS


def is_demo_folder(folder: Path) -> bool:
    """Whether a demo generator has written ``folder``."""
    return any(folder.glob(MARKERS))


def holds_demo_patients(database: Path) -> bool:
    """Whether all patients are of ``make_demo_ehr``: their ids start with 90. False too for ids that --deid made."""
    query = "SELECT count(*), sum(subject_id LIKE '90______%') FROM patients"
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as db:
            ((patients, of_demo),) = db.execute(query).fetchall()
    except sqlite3.Error:
        return False  # another schema
    return patients == of_demo
