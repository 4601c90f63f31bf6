"""Reads the CSV files of a MIMIC-IV tree, plain or gzip, in source order and with checked types."""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from data_prep.common.errors import InputError
from data_prep.mimic.gzip_files import DAMAGE, VerifiedFiles, find_damage, open_gzip

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


BAD_INPUT = (duckdb.DataError, duckdb.OperationalError, duckdb.InvalidInputException)

# White space that Python's strip() removes, in ASCII.
BLANKS = "chr(9) || chr(10) || chr(11) || chr(12) || chr(13) || chr(28) || chr(29) || chr(30) || chr(31) || ' '"

# A time as MIMIC-IV writes it (for LIKE, which is faster), and all that is understood: a day or a time of the years
# 1 to 9999, in UTC. Whatever else follows a time, DuckDB would take for the name of a time zone and leave out: PM too.
USUAL_TIME = "____-__-__ __:__:__"
TIME = (
    r"^\s*((?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])[-/][0-9]{1,2}[-/][0-9]{1,2}"
    r"(?:[ T]+[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.][0-9]*)?)?)?)(?:\s*(?:Z|UTC|[+-]00(?::?00)?))?\s*$"
)
WHOLE_BELOW = 2**53  # from here on there are whole numbers that are no doubles

# What the views and the rules do to cells. Python is asked for the rare cells on which DuckDB differs from it:
# letters beyond ASCII, and numbers of so many digits that the way of rounding counts.
MACROS = f"""
    CREATE MACRO clean(cell) AS
        CASE WHEN strlen(cell) = length(cell) THEN trim(lower(cell), {BLANKS}) ELSE python_clean(cell) END;
    CREATE MACRO place(file_row, name) AS format('row {{:,}}, column {{}}', file_row, name);
    CREATE MACRO number(cell, file_row, name) AS
        CASE WHEN length(cell) <= 15 AND regexp_full_match(cell, '-?[0-9]+([.][0-9]+)?') THEN CAST(cell AS DOUBLE)
        ELSE coalesce(python_number(cell), error(format('{{}}: ''{{}}'' is not a number', place(file_row, name), cell)))
        END;
    CREATE MACRO whole(value, file_row, name) AS
        CASE WHEN value <> trunc(value) OR abs(value) >= {WHOLE_BELOW}
        THEN error(format('{{}}: {{}} is not a whole number', place(file_row, name), value))
        ELSE CAST(value AS BIGINT) END;
    CREATE MACRO moment(cell, file_row, name) AS coalesce(
        TRY_CAST(CASE WHEN cell LIKE '{USUAL_TIME}' AND cell >= '0001' THEN cell
            ELSE regexp_extract(cell, '{TIME}', 1) END AS TIMESTAMP),
        CASE WHEN cell IS NOT NULL THEN error(
            format('{{}}: ''{{}}'' is not a time such as 2150-03-01 23:00:00', place(file_row, name), cell)) END);
"""


class MimicTree:
    """A folder with MIMIC-IV's ``hosp/*.csv[.gz]`` and ``icu/*.csv[.gz]``; of the two the plain file is read.

    Columns may stand in any order, and files may have more of them, whatever their names. Raises ``InputError`` at once
    where the folder, a file or a column is missing, or a column stands twice.
    """

    def __init__(self, data_dir: Path):
        if not data_dir.is_dir():
            raise InputError(f"no such folder: {data_dir}; give a MIMIC-IV tree with hosp/ and icu/")
        self._paths = {table: _find(data_dir, table) for table in COLUMNS}
        missing = [f"{table}.csv[.gz]" for table, path in self._paths.items() if path is None]
        if missing:
            raise InputError(f"{data_dir} lacks {', '.join(missing)}; give a whole MIMIC-IV tree")
        self._headers = {table: _header(self._paths[table], names.split()) for table, names in COLUMNS.items()}
        self._damage: dict[Path, Exception] = {}
        self._verified_files = VerifiedFiles(self._damage.__setitem__)

    def sizes(self) -> list[tuple[Path, int]]:
        """Each file that a build streams, with its bytes on the disk; prescriptions is read twice."""
        return [(path, path.stat().st_size) for path in (*self._paths.values(), self._path("prescriptions"))]

    def create_views(self, db: duckdb.DuckDBPyConnection) -> None:
        """One view a file, named as the file, with ``file_row`` (from 1) and the columns in ``COLUMNS``.

        Whole numbers and times are parsed, and an error names the first of any row that is none. Text and numbers with
        a fraction are as in the file: the macros ``clean`` and ``number`` cost more than the reading, so they are for
        the rows that pass cheaper tests.
        A view is read as a stream in file order: ``row_number() OVER ()`` keeps it on one thread.
        """
        db.create_function("python_clean", _clean_text, ["VARCHAR"], "VARCHAR")
        db.create_function("python_number", _stored_number, ["VARCHAR"], "DOUBLE", null_handling="special")
        db.execute(MACROS)
        db.register_filesystem(self._verified_files)
        for table, names in COLUMNS.items():
            path = self._paths[table]
            source, compression = os.fspath(path), "none"
            if _is_gzip(path):
                source, compression = self._verified_files.url(path), "zstd"
            # DuckDB rounds 12.5 where it reads whole numbers. Doubles it reads as fast, and 12.0 is a whole one.
            types = {name: "DOUBLE" if name in WHOLE_NUMBERS else "VARCHAR" for name in self._headers[table]}
            columns = ", ".join(f"{_cell(name)} AS {name}" for name in names.split())
            db.execute(f"""
                CREATE VIEW {table.split("/")[1]} AS SELECT file_row, {columns}
                FROM (SELECT row_number() OVER () AS file_row, *
                    FROM read_csv({_literal(source)}, columns = {_literal(types)},
                        nullstr = {_literal(NULL_CELLS)}, auto_detect = false, compression = '{compression}',
                        header = true, delim = ',', quote = '"', escape = '"'))""")

    @contextmanager
    def reading(self, table: str) -> Iterator[None]:
        """Turn an error of DuckDB while it reads the table's view, or a damaged file, into an ``InputError``."""
        path = self._path(table)
        try:
            yield
        except RuntimeError as error:
            if "Query interrupted" in str(error):  # DuckDB has seen Ctrl-C first
                raise KeyboardInterrupt from error
            raise
        except duckdb.OutOfMemoryException as error:
            raise InputError(f"{table} needs more memory than --memory_limit; raise it") from error
        except BAD_INPUT as error:
            self.check_gzip(table)
            raise _unreadable(path, _explain(error)) from error
        if path in self._damage:
            self.check_gzip(table)

    def check_gzip(self, table: str) -> None:
        """Raise ``InputError`` if the table's file is a damaged gzip file: then that explains what is in its rows."""
        path = self._path(table)
        if _is_gzip(path) and (damage := self._damage.get(path) or find_damage(path)):
            raise _damaged(path, damage) from damage

    def _path(self, table: str) -> Path:
        return next(path for name, path in self._paths.items() if name.endswith(f"/{table}"))


def _find(data_dir: Path, table: str) -> Path | None:
    candidates = (data_dir / f"{table}.csv", data_dir / f"{table}.csv.gz")
    return next((path for path in candidates if path.is_file()), None)


def _is_gzip(path: Path) -> bool:
    return path.suffix == ".gz"


def _unreadable(path: Path, reason: object) -> InputError:
    return InputError(f"cannot read {path}: {reason}; repair or replace the file")


def _damaged(path: Path, damage: Exception) -> InputError:
    return _unreadable(path, f"damaged GZIP data ({damage})")


def _header(path: Path, needed: list[str]) -> list[str]:
    """The columns in the order of the file. Those that are not ``needed`` get names of our own: theirs may be any."""
    try:
        with open_gzip(path) if _is_gzip(path) else path.open("rb") as file:
            header = next(csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline="")), [])
    except DAMAGE as error:
        raise (_damaged if _is_gzip(path) else _unreadable)(path, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(path, error) from error
    counts = Counter(header)
    if missing := [column for column in needed if not counts[column]]:
        raise InputError(f"{path} lacks the column {', '.join(missing)}; give MIMIC-IV's own file")
    if repeated := [column for column in needed if counts[column] > 1]:
        raise InputError(f"{path} has the column {', '.join(repeated)} more than once; keep one of them")
    if broken := [name for name in header if not {"\r", "\n"}.isdisjoint(name)]:  # DuckDB would lose rows
        raise InputError(f"{path} has a line break in the name of the column {broken[0]!r}; remove it")
    return [name if name in needed else f"further_{number}" for number, name in enumerate(header)]


def _cell(column: str) -> str:
    """The column's value in a view, as SQL."""
    if column in WHOLE_NUMBERS:
        return f"whole({column}, file_row, '{column}')"
    return f"moment({column}, file_row, '{column}')" if column in TIMES else column


def _literal(value: str | list | dict) -> str:
    """``value`` as a DuckDB literal."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(key)}: {_literal(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return "'" + value.replace("'", "''") + "'"


def _clean_text(text: str) -> str:
    return text.lower().strip()


def _stored_number(text: str) -> float | None:
    """EHRSQL-2024's numbers were read from the source, written to another CSV file and read again."""
    try:
        return parse_number(repr(parse_number(text)))
    except ValueError:
        return None  # the caller knows where the cell stands


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
