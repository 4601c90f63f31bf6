"""Reads the CSV files of a MIMIC-IV tree, plain or gzip, in source order and with checked types."""

import csv
import gzip
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd

from data_prep.errors import InputError

# The files and columns that the EHRSQL database is made from.
COLUMNS = {
    "hosp/patients": "subject_id gender anchor_age anchor_year dod",
    "hosp/admissions": "subject_id hadm_id admittime dischtime admission_type admission_location"
    " discharge_location insurance language marital_status",
    "hosp/transfers": "subject_id hadm_id transfer_id eventtype careunit intime outtime",
    "hosp/d_icd_diagnoses": "icd_code icd_version long_title",
    "hosp/d_icd_procedures": "icd_code icd_version long_title",
    "hosp/d_labitems": "itemid label",
    "hosp/diagnoses_icd": "subject_id hadm_id icd_code icd_version",
    "hosp/procedures_icd": "subject_id hadm_id chartdate icd_code icd_version",
    "hosp/labevents": "subject_id hadm_id itemid charttime valuenum valueuom",
    "hosp/prescriptions": "subject_id hadm_id starttime stoptime drug dose_val_rx dose_unit_rx route",
    "hosp/microbiologyevents": "subject_id hadm_id chartdate charttime spec_type_desc test_name org_name",
    "icu/icustays": "subject_id hadm_id stay_id first_careunit last_careunit intime outtime",
    "icu/d_items": "itemid label abbreviation linksto",
    "icu/chartevents": "subject_id hadm_id stay_id charttime itemid valuenum valueuom",
    "icu/inputevents": "subject_id hadm_id stay_id starttime itemid totalamount totalamountuom",
    "icu/outputevents": "subject_id hadm_id stay_id charttime itemid value valueuom",
}
WHOLE_NUMBERS = {
    *("subject_id", "hadm_id", "stay_id", "transfer_id", "itemid", "icd_version", "anchor_age", "anchor_year")
}
TIMES = set(["dod", "admittime", "dischtime", "intime", "outtime", "starttime", "stoptime", "charttime", "chartdate"])
NUMBERS = {"valuenum", "value", "totalamount"}  # all other columns are text

# Cells that mean NULL: pandas' default list, with which the EHRSQL-2024 database was read. A cell of
# blanks is not among them: it is an empty text, which the rules count as a value.
NULL_CELLS = [
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"),
    *("N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]


class MimicTree:
    """A folder with MIMIC-IV's ``hosp/*.csv[.gz]`` and ``icu/*.csv[.gz]``; of the two the plain file is read.

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
        self._headers = {table: _header(self._paths[table], names.split()) for table, names in COLUMNS.items()}
        self._db = duckdb.connect()
        self._db.execute("SET preserve_insertion_order = true; SET enable_progress_bar = false")
        self._db.execute("SET disabled_optimizers = 'in_clause'")  # it makes a join of IN, which loses the order
        self._db.execute("SET temp_directory = ''")  # rows are streamed: nothing is to be spilled to disk

    def read(
        self,
        table: str,
        where: str = "true",
        keep: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
    ) -> pd.DataFrame:
        """The rows of ``table`` that satisfy the SQL condition ``where`` and pass ``keep``, in file order.

        Whole numbers are int64 (float64 where some are NULL), other numbers float64, times datetime64,
        text is lower-cased and stripped; NULL is NaN or NaT. ``where`` sees the cells as the file has them,
        numbers with a fraction as text. ``keep`` gets some 100,000 rows at a time: a table need not fit in memory.
        """
        path, names = self._paths[table], COLUMNS[table].split()
        query = f"""
            SELECT {", ".join(names)}
            FROM read_csv($path, columns = $columns, nullstr = $null_cells, auto_detect = false,
                          header = true, delim = ',', quote = '"', escape = '"')
            WHERE {where}"""
        columns = {name: _duckdb_type(name) if name in names else "VARCHAR" for name in self._headers[table]}
        parameters = {"path": str(path), "columns": columns, "null_cells": NULL_CELLS}
        kept = []
        try:
            self._db.execute(query, parameters)
            while True:
                rows = self._db.fetch_df_chunk(50)  # vectors of 2,048 rows; at the end a frame without rows
                kept.append(keep(_convert(rows)))
                if rows.empty:
                    return pd.concat(kept, ignore_index=True)
        except duckdb.Error as error:
            raise InputError(f"cannot read {path}: {_explain(error)}; repair or replace the file") from error
        except ValueError as error:
            raise InputError(f"cannot read {path}: {error}; repair or replace the file") from error


def _find(data_dir: Path, table: str) -> Path | None:
    candidates = (data_dir / f"{table}.csv", data_dir / f"{table}.csv.gz")
    return next((path for path in candidates if path.is_file()), None)


def _header(path: Path, needed: list[str]) -> list[str]:
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        with open_file(path, "rt", encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise InputError(f"cannot read {path}: {error}; repair or replace the file") from error
    missing = [column for column in needed if column not in header]
    if missing:
        raise InputError(f"{path} lacks the column {', '.join(missing)}; give MIMIC-IV's own file")
    return header


def _duckdb_type(column: str) -> str:
    if column in WHOLE_NUMBERS:
        return "BIGINT"
    return "TIMESTAMP" if column in TIMES else "VARCHAR"


def _convert(rows: pd.DataFrame) -> pd.DataFrame:
    """Lower-case and strip text, parse numbers; each distinct cell of a column once."""
    for name in rows:
        if name in WHOLE_NUMBERS or name in TIMES:
            continue
        column = rows[name].astype(object)
        convert = _stored_number if name in NUMBERS else _clean_text
        try:
            column = column.map({cell: convert(cell) for cell in column.dropna().unique()})
        except ValueError as error:
            raise ValueError(f"column {name}: {error}") from error
        rows[name] = column.astype(float if name in NUMBERS else object)
    return rows


def _clean_text(text: str) -> str:
    return text.lower().strip()


def _stored_number(text: str) -> float:
    """EHRSQL-2024's numbers were read from the source, written to another CSV file and read again."""
    return parse_number(repr(parse_number(text)))


def parse_number(text: str) -> float:
    """The number that older pandas reads from ``text``; its last digit may differ from that of ``float(text)``.

    EHRSQL-2024 was made with such a pandas, and 19 of its input amounts are not the nearest floats: up to 17
    digits are gathered in a float, which is then scaled by a power of ten, with a rounding at each step.
    Raises ``ValueError`` for anything but a finite decimal number.
    """
    match = re.fullmatch(r"\s*([+-]?)(?=\.?\d)(\d*)\.?(\d*)(?:e([+-]?\d+))?\s*", text, re.ASCII | re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a number")
    sign, whole, fraction, exponent = match.groups()
    digits = (whole + fraction)[:17]
    number = 0.0
    for digit in digits:
        number = number * 10.0 + int(digit)
    scale = len(whole) - len(digits) + int(exponent or 0)
    number = number * float(f"1e{scale}") if scale > 0 else number / float(f"1e{-scale}")
    return -number if sign == "-" else number


def _explain(error: duckdb.Error) -> str:
    """DuckDB's message without its long advice and without the row itself, which may be a patient's."""
    first, *others = str(error).splitlines()
    return ", ".join([first, *(line for line in others if line.startswith(("Error when", "Expected Number")))])
