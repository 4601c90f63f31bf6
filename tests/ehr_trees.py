"""Small MIMIC-IV trees, and what is asked of the databases built from them."""

import gzip
import sqlite3
from contextlib import closing
from pathlib import Path

from data_prep.mimic.csv_files import COLUMNS

IN_2100 = dict(timeshift=True, current_time="2100-12-31 23:59:00", start_year=2100, time_span=0)


def admission(subject: int, hadm: int, start: str, end: str) -> str:
    return f"{subject},{hadm},{start} 10:00:00,{end and end + ' 10:00:00'},URGENT,Clinic, HOME ,Other,English,"


def tree(folder: Path, zipped: bool = False, **changes: list[str]) -> Path:
    """A tree of two patients; ``changes`` replaces the rows of a table, one CSV line each."""
    rows = {
        "patients": ["1,F,30,2150,2151-02-03", "2,M,40,2160,"],
        "admissions": [
            admission(1, 11, "2150-03-01", "2150-03-05"),
            admission(2, 21, "2160-02-28", "2160-03-02"),
            admission(1, 12, "2151-06-01", "2151-06-09"),
        ],
        "transfers": ["1,11,5,ED,,2150-03-01 10:00:00,", "1,,6,ED,,2150-03-01 10:00:00,"],
        "d_icd_diagnoses": ["0010,9,Cholera", "0010,10,Typhoid"],
        "d_icd_procedures": ["0001,9,Therapy"],
        "d_labitems": ["50,Sodium", "51,Glucose"],
        "diagnoses_icd": ["1,11,0010,9"],
        "procedures_icd": ["1,11,2150-03-02,0001,9"],
        "labevents": ["1,11,50,2150-03-02 11:00:00,1.5,mEq/L"],
        "prescriptions": ["1,11,2150-03-02 12:00:00,2150-03-03 12:00:00,Aspirin,100,mg,PO"],
        "microbiologyevents": ["1,11,2150-03-02 00:00:00,2150-03-02 13:00:00,Swab,Test,"],
        "icustays": ["1,11,7,MICU,MICU,2150-03-01 12:00:00,2150-03-04 12:00:00"],
        "d_items": [
            "220045,Heart Rate,HR,chartevents",
            "900,Saline,Saline,inputevents",
            "901,Urine,Urine,outputevents",
        ],
        "chartevents": ["1,11,7,2150-03-02 14:00:00,220045,80,bpm"],
        "inputevents": ["1,11,7,2150-03-02 15:00:00,900,500,ml"],
        "outputevents": ["1,11,7,2150-03-02 16:00:00,901,200,ml"],
    }
    assert changes.keys() <= rows.keys()
    for table, columns in COLUMNS.items():
        path = folder / (f"{table}.csv.gz" if zipped else f"{table}.csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [",".join(columns.split()), *(rows | changes)[path.name.split(".")[0]]]
        data = "".join(f"{line}\n" for line in lines).encode()
        path.write_bytes(gzip.compress(data) if zipped else data)
    return folder


def select(path: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())
