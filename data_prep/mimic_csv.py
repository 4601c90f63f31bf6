"""Reads the CSV files of a MIMIC-IV tree, plain or gzip, in source order and with checked types."""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd

from data_prep.errors import InputError

# The files and columns that the EHRSQL database is made from, with DuckDB's types.
COLUMNS = {
    "hosp/patients": {
        "subject_id": "BIGINT",
        "gender": "VARCHAR",
        "anchor_age": "BIGINT",
        "anchor_year": "BIGINT",
        "dod": "TIMESTAMP",
    },
    "hosp/admissions": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "admittime": "TIMESTAMP",
        "dischtime": "TIMESTAMP",
        "admission_type": "VARCHAR",
        "admission_location": "VARCHAR",
        "discharge_location": "VARCHAR",
        "insurance": "VARCHAR",
        "language": "VARCHAR",
        "marital_status": "VARCHAR",
    },
    "hosp/transfers": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "transfer_id": "BIGINT",
        "eventtype": "VARCHAR",
        "careunit": "VARCHAR",
        "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
    },
    "hosp/d_icd_diagnoses": {"icd_code": "VARCHAR", "icd_version": "BIGINT", "long_title": "VARCHAR"},
    "hosp/d_icd_procedures": {"icd_code": "VARCHAR", "icd_version": "BIGINT", "long_title": "VARCHAR"},
    "hosp/d_labitems": {"itemid": "BIGINT", "label": "VARCHAR"},
    "hosp/diagnoses_icd": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "icd_code": "VARCHAR",
        "icd_version": "BIGINT",
    },
    "hosp/procedures_icd": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "chartdate": "TIMESTAMP",
        "icd_code": "VARCHAR",
        "icd_version": "BIGINT",
    },
    "hosp/labevents": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "itemid": "BIGINT",
        "charttime": "TIMESTAMP",
        "valuenum": "DOUBLE",
        "valueuom": "VARCHAR",
    },
    "hosp/prescriptions": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "starttime": "TIMESTAMP",
        "stoptime": "TIMESTAMP",
        "drug": "VARCHAR",
        "dose_val_rx": "VARCHAR",
        "dose_unit_rx": "VARCHAR",
        "route": "VARCHAR",
    },
    "hosp/microbiologyevents": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "chartdate": "TIMESTAMP",
        "charttime": "TIMESTAMP",
        "spec_type_desc": "VARCHAR",
        "test_name": "VARCHAR",
        "org_name": "VARCHAR",
    },
    "icu/icustays": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "stay_id": "BIGINT",
        "first_careunit": "VARCHAR",
        "last_careunit": "VARCHAR",
        "intime": "TIMESTAMP",
        "outtime": "TIMESTAMP",
    },
    "icu/d_items": {
        "itemid": "BIGINT",
        "label": "VARCHAR",
        "abbreviation": "VARCHAR",
        "linksto": "VARCHAR",
    },
    "icu/chartevents": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "stay_id": "BIGINT",
        "charttime": "TIMESTAMP",
        "itemid": "BIGINT",
        "valuenum": "DOUBLE",
        "valueuom": "VARCHAR",
    },
    "icu/inputevents": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "stay_id": "BIGINT",
        "starttime": "TIMESTAMP",
        "itemid": "BIGINT",
        "totalamount": "DOUBLE",
        "totalamountuom": "VARCHAR",
    },
    "icu/outputevents": {
        "subject_id": "BIGINT",
        "hadm_id": "BIGINT",
        "stay_id": "BIGINT",
        "charttime": "TIMESTAMP",
        "itemid": "BIGINT",
        "value": "DOUBLE",
        "valueuom": "VARCHAR",
    },
}

# Cells that mean NULL: pandas' default list, with which the EHRSQL-2024 database was read. A cell of
# blanks is not among them: it is an empty text, which the rules count as a value.
NULL_CELLS = (
    ["", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A"]
    + ["NA", "NULL", "NaN", "None", "n/a", "nan", "null"]
)


class MimicTree:
    """A folder with MIMIC-IV's ``hosp/*.csv[.gz]`` and ``icu/*.csv[.gz]``; a plain file is taken before a gzip one.

    Raises ``InputError`` at once where the folder, a file or a column is missing, and while reading where
    a file is damaged or a cell does not have its column's type.
    """

    def __init__(self, data_dir: Path):
        if not data_dir.is_dir():
            raise InputError(f"no such folder: {data_dir}; give a MIMIC-IV tree with hosp/ and icu/")
        self._paths = {table: _find(data_dir, table) for table in COLUMNS}
        missing = [f"{table}.csv[.gz]" for table, path in self._paths.items() if path is None]
        if missing:
            raise InputError(f"{data_dir} lacks {', '.join(missing)}; give a whole MIMIC-IV tree")
        self._headers = {table: _header(path, COLUMNS[table]) for table, path in self._paths.items()}
        self._db = duckdb.connect()
        self._db.execute("SET preserve_insertion_order = true; SET enable_progress_bar = false")
        self._db.execute("SET temp_directory = ''")  # rows are streamed: nothing is to be spilled to disk

    def read(
        self, table: str, where: str = "true", keep: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows
    ) -> pd.DataFrame:
        """The rows of ``table`` that satisfy the SQL condition ``where`` and pass ``keep``, in file order.

        Times are datetime64, text is lower-cased and stripped, NULL is NaN or NaT. ``where`` sees the cells before
        the text is changed; ``keep`` gets some 100,000 rows at a time, so that a table need not fit in memory.
        """
        types = COLUMNS[table]
        empty = self._db.sql(f"SELECT {', '.join(f'NULL::{types[name]} AS {name}' for name in types)} LIMIT 0").df()
        query = f"""
            SELECT {", ".join(types)}
            FROM read_csv($path, columns = $columns, nullstr = $null_cells, auto_detect = false,
                          header = true, delim = ',', quote = '"', escape = '"')
            WHERE {where}"""
        columns = {name: types.get(name, "VARCHAR") for name in self._headers[table]}
        path = self._paths[table]
        kept = [keep(_clean_text(empty))]
        try:
            self._db.execute(query, {"path": str(path), "columns": columns, "null_cells": NULL_CELLS})
            while len(chunk := self._db.fetch_df_chunk(50)):
                kept.append(keep(_clean_text(chunk)))
        except duckdb.Error as error:
            raise InputError(f"cannot read {path}: {_explain(error)}; repair or replace the file") from error
        return pd.concat(kept, ignore_index=True)


def _find(data_dir: Path, table: str) -> Path | None:
    candidates = (data_dir / f"{table}.csv", data_dir / f"{table}.csv.gz")
    return next((path for path in candidates if path.is_file()), None)


def _header(path: Path, needed: dict[str, str]) -> list[str]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}; repair or replace the file") from error
    missing = [column for column in needed if column not in header]
    if missing:
        raise InputError(f"{path} lacks the column {', '.join(missing)}; give MIMIC-IV's own file")
    return header


def _clean_text(rows: pd.DataFrame) -> pd.DataFrame:
    """Lower-case and strip each distinct text of a column once, by Python's rules."""
    for name in rows.select_dtypes(["object", "str"]):
        column = rows[name].astype(object)
        rows[name] = column.map({text: text.lower().strip() for text in column.dropna().unique()}).astype(object)
    return rows


def _explain(error: duckdb.Error) -> str:
    """DuckDB's message without the row itself, which may be a patient's, and without its long advice."""
    lines = str(error).splitlines()
    return ", ".join([lines[0], *(line for line in lines[1:] if line.startswith(("Error when", "Expected Number")))])
