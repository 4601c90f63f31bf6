"""Build the EHRSQL-2024 SQLite database from a MIMIC-IV tree (demo, full release or synthetic).

    python -m data_prep.build_ehr_db --data_dir mimic-iv-demo --out_dir data --num_patient 100 --timeshift \\
        --current_time "2100-12-31 23:59:00" --start_year 2100 --time_span 0 --cur_patient_ratio 0.1

are the shared task's options. The same tree and options always give the same database.
"""

import argparse
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
from rich.progress import Progress

from data_prep.atomic import atomic_output
from data_prep.ehr_cohort import TIME_FORMAT, BuildOptions
from data_prep.ehr_tables import EhrTables
from data_prep.errors import InputError
from data_prep.mimic_csv import MimicTree

SCHEMA = Path(__file__).with_name("ehr_schema.sql")
TABLE_COUNT = 17

# Cleaned text that is stored as NULL. The shared task's pipeline passed its tables through CSV files, where
# these became NULL only after the rules had counted them as values.
NULL_TEXT = ("", "-nan", "n/a", "nan", "null")


def build(
    data_dir: Path,
    out_path: Path,
    options: BuildOptions,
    on_table: Callable[[str, int], None] = lambda name, rows: None,
) -> dict[str, int]:
    """Write the database of the MIMIC-IV tree ``data_dir`` to ``out_path``, whole or not at all.

    ``on_table`` is called with each table's name and row count when it is written. Returns all row counts.
    Raises ``InputError`` for a missing or damaged tree, or where nothing can be written.
    """
    counts = {}
    tables = EhrTables(MimicTree(data_dir), options)
    with atomic_output(out_path) as partial:
        try:
            with closing(sqlite3.connect(partial)) as db:
                db.execute("PRAGMA journal_mode = OFF")  # the file is new: if anything fails, it is removed
                db.executescript(SCHEMA.read_text("utf-8"))
                for name, rows in tables:
                    _insert(db, name, rows)
                    counts[name] = len(rows)
                    on_table(name, len(rows))
                db.commit()
        except sqlite3.IntegrityError as error:
            raise InputError(f"cannot fill {name}: {error}; complete or remove such rows") from error
        except sqlite3.OperationalError as error:
            raise InputError(f"cannot write {out_path}: {error}; free space or choose another") from error
    return counts


def _insert(db: sqlite3.Connection, table: str, rows: pd.DataFrame) -> None:
    columns = [column[1] for column in db.execute(f"PRAGMA table_info({table})")]
    cells = [_cells(rows[column]) for column in columns if column != "row_id"]
    marks = ", ".join("?" * len(columns))
    db.executemany(f"INSERT INTO {table} VALUES ({marks})", zip(range(len(rows)), *cells, strict=True))


def _cells(column: pd.Series) -> list:
    """Python values for SQLite: times as text, NULL as None."""
    if pd.api.types.is_datetime64_dtype(column):
        column = column.dt.strftime(TIME_FORMAT)
    cells = column.astype(object)
    return cells.where(cells.notna() & ~cells.isin(NULL_TEXT), None).tolist()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--data_dir", type=Path, required=True, help="MIMIC-IV tree: hosp/*.csv[.gz] and icu/*.csv[.gz]")
    add("--out_dir", type=Path, required=True, help="folder for the database")
    add("--db_name", default="mimic_iv", help="the database is OUT_DIR/DB_NAME.sqlite")
    add("--num_patient", type=int, default=BuildOptions.num_patient, help="patients to draw, all where there are fewer")
    add(
        "--cur_patient_ratio",
        type=float,
        default=BuildOptions.cur_patient_ratio,
        help="share of --num_patient that is still in hospital at the current time",
    )
    add("--sample_icu_patient_only", action="store_true", help="draw only patients with an ICU stay")
    add(
        "--deid",
        action="store_true",
        help="number subjects, admissions, ICU stays and transfers anew from 1, in a fixed random order; "
        "this hides the ids, but whoever has the source can tell the patients by their records",
    )
    add(
        "--timeshift",
        action="store_true",
        help="move each patient's first admission into the years from --start_year on and hide what lies "
        "after --current_time; needs the three options below, which have no effect without it",
    )
    add("--current_time", help="'now' in the database, as '2100-12-31 23:59:00'")
    add("--start_year", type=int, help="first year of admissions")
    add("--time_span", type=int, help="further years in which first admissions lie, later ones more often")
    args = vars(parser.parse_args(argv))
    data_dir, out_dir, db_name = (args.pop(name) for name in ("data_dir", "out_dir", "db_name"))
    if not db_name or Path(db_name).name != db_name:
        raise InputError(f"db_name is {db_name!r}; give a plain file name")
    out_path = out_dir / f"{db_name}.sqlite"
    options = BuildOptions(**args)
    start = time.perf_counter()
    with Progress(transient=True) as progress:
        bar = progress.add_task("MIMIC-IV", total=TABLE_COUNT)

        def show(name: str, rows: int) -> None:
            progress.console.print(f"{name:20}{rows:>12,} rows")
            progress.advance(bar)

        counts = build(data_dir, out_path, options, show)
    seconds = time.perf_counter() - start
    print(f"{out_path}: {len(counts)} tables, {sum(counts.values()):,} rows, {seconds:.1f} s")


if __name__ == "__main__":
    main()
