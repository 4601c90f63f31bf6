"""Build the EHRSQL-2024 SQLite database from a MIMIC-IV tree (demo, full release or synthetic).

    python -m data_prep.build_ehr_db --data_dir mimic-iv-demo --out_dir data --num_patient 100 --timeshift \\
        --current_time "2100-12-31 23:59:00" --start_year 2100 --time_span 0 --cur_patient_ratio 0.1

are the shared task's options. The same tree and options always give the same database.
"""

import argparse
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import fields
from pathlib import Path

from rich.console import Console

from data_prep.atomic import atomic_output
from data_prep.ehr_cohort import BuildOptions
from data_prep.ehr_cost import fill_cost
from data_prep.ehr_explain import count_rules, print_rules
from data_prep.ehr_progress import BuildProgress
from data_prep.ehr_source import EhrSource
from data_prep.ehr_tables import PRESCRIPTIONS
from data_prep.ehr_verify import compare_answers, print_comparisons
from data_prep.errors import InputError
from data_prep.mimic_csv import MimicTree
from data_prep.schema_prompt import full_schema

SCHEMA = Path(__file__).with_name("ehr_schema.sql")
MEMORY_LIMIT = "2GB"


def build(
    data_dir: Path,
    out_path: Path,
    options: BuildOptions,
    memory_limit: str = MEMORY_LIMIT,
    explain: bool = False,
    console: Console | None = None,
) -> dict[str, int]:
    """Write the database of the MIMIC-IV tree ``data_dir`` to ``out_path``, whole or not at all.

    Rows stream through; what DuckDB holds is bounded by ``memory_limit``. ``console`` gets the progress and, with
    ``explain``, what each rule keeps. Returns the number of rows of each table. Raises ``InputError`` for a missing or
    damaged tree, or where nothing can be written.
    """
    tree = MimicTree(data_dir)
    counts = {}
    with (
        atomic_output(out_path) as partial,
        EhrSource(tree, options, memory_limit, partial.with_name(f"{partial.name}.spill")) as source,
        BuildProgress(console or Console(quiet=True), tree.bytes_to_read()) as progress,
        closing(sqlite3.connect(partial, isolation_level=None)) as db,
    ):
        try:
            # The file is new and not yet in its place: if anything fails, it is removed.
            db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;")
            db.executescript(SCHEMA.read_text("utf-8"))
            db.execute("BEGIN")
            for table, parts in source.stream():
                counts[table.name] = _fill(db, table.name, parts, progress)
                if explain:
                    print_rules(progress.console, table, count_rules(source, table))
                if table is PRESCRIPTIONS:  # the last that costs something
                    counts["cost"] = fill_cost(db, source.rng)
                    progress.done("cost", counts["cost"])
            db.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            raise InputError(f"cannot fill the database: {error}; complete or remove such rows") from error
        except sqlite3.OperationalError as error:
            raise InputError(f"cannot write {out_path}: {error}; free space or choose another") from error
    return counts


def _fill(db: sqlite3.Connection, table: str, parts: Iterable[list[tuple]], progress: BuildProgress) -> int:
    """Insert the rows with row_id 0, 1, ...; return their number."""
    count = 0
    marks = ", ".join("?" * len(db.execute(f"PRAGMA table_info({table})").fetchall()))
    for rows in parts:
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", ((n, *row) for n, row in enumerate(rows, count)))
        count += len(rows)
        progress.filling(table, count)
    progress.done(table, count)
    return count


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
    add("--explain", action="store_true", help="show what each rule keeps and drops; reads the files twice")
    add("--schema", action="store_true", help="print the schema with sample values, as prompts hold it")
    add(
        "--verify",
        nargs=2,
        type=Path,
        action="append",
        default=[],
        metavar=("LABELS", "ANSWERS"),
        help="execute the gold queries of LABELS (label.json) and compare with the published ANSWERS (answer.json); "
        "may be given for each split",
    )
    add("--memory_limit", default=MEMORY_LIMIT, help="most memory for reading; what needs more goes to OUT_DIR")
    args = parser.parse_args(argv)
    if not args.db_name or Path(args.db_name).name != args.db_name:
        raise InputError(f"db_name is {args.db_name!r}; give a plain file name")
    options = BuildOptions(**{field.name: getattr(args, field.name) for field in fields(BuildOptions)})
    out_path = args.out_dir / f"{args.db_name}.sqlite"
    console = Console(soft_wrap=True)
    start = time.perf_counter()
    counts = build(args.data_dir, out_path, options, args.memory_limit, args.explain, console)
    seconds = time.perf_counter() - start
    print(f"{out_path}: {len(counts)} tables, {sum(counts.values()):,} rows, {seconds:.1f} s")
    if args.schema:
        print(full_schema(out_path))
    if args.verify:
        compared = {labels.resolve().parent.name: compare_answers(out_path, labels, a) for labels, a in args.verify}
        print_comparisons(console, compared)


if __name__ == "__main__":
    main()
