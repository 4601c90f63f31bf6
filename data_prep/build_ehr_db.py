"""Build the EHRSQL-2024 SQLite database from a MIMIC-IV tree (demo, full release or synthetic).

    python -m data_prep.build_ehr_db --data_dir mimic-iv-demo --out_dir data --num_patient 100 --timeshift \\
        --current_time "2100-12-31 23:59:00" --start_year 2100 --time_span 0 --cur_patient_ratio 0.1

are the shared task's options. The same tree and options always give the same database.
"""

import argparse
import time
from dataclasses import fields
from pathlib import Path

from rich.console import Console

from data_prep.common.errors import InputError, run_main
from data_prep.mimic.cohort import BuildOptions
from data_prep.mimic.database import MEMORY_LIMIT, build
from data_prep.mimic.indexes import build_indexed
from data_prep.mimic.variants import build_variants
from data_prep.mimic.verify import compare_answers, print_comparisons
from data_prep.sql.schema import full_schema
from reward_fns.sql.text import NOW

NO_TIMESHIFT = (
    f'Without --timeshift the times stay as in MIMIC-IV, but EHRSQL asks its questions at {NOW} ("this year", "last '
    'month"): about a fifth of their gold answers come out empty. For EHRSQL add the options that docs/real-data.md '
    f'has: --timeshift --current_time "{NOW}" --start_year 2100 --time_span 0 --cur_patient_ratio 0.1'
)


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
    add("--indexes", action="store_true", help="write DB_NAME_indexed.sqlite too, for rewards on a large database")
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
    add(
        "--variants",
        type=int,
        default=0,
        metavar="N",
        help="build N more databases DB_NAME.variant1.sqlite, ...: four fifths as many patients, drawn anew, "
        "half of them under ids of others, with --timeshift moved by up to 60 days more, with values exchanged among "
        "the rows of an item",
    )
    add("--memory_limit", default=MEMORY_LIMIT, help="most memory for reading; what needs more goes to OUT_DIR")
    args = parser.parse_args(argv)
    if not args.db_name or Path(args.db_name).name != args.db_name:
        raise InputError(f"db_name is {args.db_name!r}; give a plain file name")
    if args.variants < 0:
        raise InputError(f"variants is {args.variants}; give 0 or more")
    names = [field.name for field in fields(BuildOptions) if field.name in args]
    options = BuildOptions(**{name: getattr(args, name) for name in names})
    out_path = args.out_dir / f"{args.db_name}.sqlite"
    console = Console(soft_wrap=True)
    if not options.timeshift:
        print(NO_TIMESHIFT)
    start = time.perf_counter()
    counts = build(args.data_dir, out_path, options, args.memory_limit, args.explain, console)
    seconds = time.perf_counter() - start
    print(f"{out_path}: {len(counts)} tables, {sum(counts.values()):,} rows, {seconds:.1f} s")
    if args.indexes:
        print(build_indexed(out_path))
    for path in build_variants(args.data_dir, out_path, options, args.variants, args.memory_limit):
        print(path)
    if args.schema:
        print(full_schema(out_path))
    if args.verify:
        compared = {labels.resolve().parent.name: compare_answers(out_path, labels, a) for labels, a in args.verify}
        print_comparisons(console, compared)


if __name__ == "__main__":
    run_main(main)
