"""A synthetic MIMIC-IV tree, so that everything runs without access to patient data.

The 16 files that ``data_prep.build_ehr_db`` reads, with MIMIC-IV 2.2's columns and value styles. Who falls ill with
what is drawn from ``demo_vocabulary.yaml``; subject ids start with 90, which no MIMIC-IV patient's does.
The same patients and seed give the same bytes.
"""

import argparse
import gzip
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from data_prep.demo_hospital import admit_patient, fill_dictionaries
from data_prep.demo_output import demo_output
from data_prep.demo_records import COLUMNS, Records
from data_prep.errors import InputError


def make_tree(out_dir: str | Path, patients: int = 120, seed: int = 0) -> dict[str, int]:
    """Write the tree to ``out_dir``; return the number of rows of each file.

    Raises:
        InputError: ``patients`` is not positive, ``seed`` is negative, or ``out_dir`` holds something else.
    """
    if patients < 1:
        raise InputError(f"--patients is {patients}; it must be at least 1")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must not be negative")
    with demo_output(out_dir, "patients") as tree:
        records = Records(seed)
        fill_dictionaries(records)
        for _ in track(range(patients), description="patients", console=Console(stderr=True)):
            admit_patient(records)
        for name, columns in COLUMNS.items():
            text = pd.DataFrame(records.rows[name], columns=columns).to_csv(index=False)
            path = tree / f"{name}.csv.gz"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(text.encode(), mtime=0))
    return {name: len(rows) for name, rows in records.rows.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.make_demo_ehr",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out_dir", required=True, help="folder for the tree")
    parser.add_argument("--patients", type=int, default=120, help="number of patients")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    args = parser.parse_args(argv)
    rows = make_tree(args.out_dir, args.patients, args.seed)
    print(f"{args.patients} patients, {sum(rows.values()):,} rows in {len(rows)} files: {args.out_dir}")


if __name__ == "__main__":
    main()
