"""A synthetic MIMIC-IV tree, so that everything runs without access to patient data.

The 16 files that ``data_prep.build_ehr_db`` reads, with MIMIC-IV 2.2's columns and value styles. Who falls ill with
what is drawn from ``demo/vocabulary.yaml``; subject ids start with 90, which no MIMIC-IV patient's does.
The same options give the same bytes.
"""

import argparse
import gzip
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from data_prep.common.errors import InputError, run_main
from data_prep.demo.hospital import admit_patient, fill_dictionaries
from data_prep.demo.output import demo_output
from data_prep.demo.records import COLUMNS, Records

# Columns of ids. Each copy of the hospital gets new ids.
OWN_IDS = {
    *("subject_id", "hadm_id", "transfer_id", "stay_id", "labevent_id", "specimen_id", "pharmacy_id"),
    *("microevent_id", "micro_specimen_id", "orderid"),
}
COPY = "@"  # stands for the copy's number at the end of an id; occurs in no value


def make_tree(out_dir: str | Path, patients: int = 120, seed: int = 0, scale: int = 1) -> dict[str, int]:
    """Write the tree to ``out_dir``; return the number of rows of each file.

    With ``scale`` above 1 the patients come as often, with all that happened to them, under ids of their own: for each
    copy the digits of its number follow. Copies are written one by one, so memory does not grow with their number.

    Raises:
        InputError: ``patients`` or ``scale`` is not positive, ``seed`` is negative, ``out_dir`` holds something else.
    """
    for name, value in (("patients", patients), ("scale", scale)):
        if value < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1")
    if seed < 0:
        raise InputError(f"--seed is {seed}; it must not be negative")
    console = Console(stderr=True)
    counts = {}
    with demo_output(out_dir, "patients") as tree:
        records = Records(seed)
        fill_dictionaries(records)
        for _ in track(range(patients), description="patients", console=console):
            admit_patient(records)
        for name in track(COLUMNS, description="files", console=console):
            copies = 1 if name.split("/")[1].startswith("d_") else scale
            _write_file(tree / f"{name}.csv.gz", records.rows[name], COLUMNS[name], copies)
            counts[name] = len(records.rows[name]) * copies
    return counts


def _write_file(path: Path, rows: list[dict], columns: list[str], copies: int) -> None:
    table = pd.DataFrame(rows, columns=columns)
    if copies > 1:
        table = table.assign(**{column: table[column].astype(str) + COPY for column in OWN_IDS & set(columns)})
    header, _, lines = table.to_csv(index=False).partition("\n")
    digits = len(str(copies - 1))
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw, compresslevel=6) as file:
        file.write(f"{header}\n".encode())
        for number in range(copies):
            file.write(lines.replace(COPY, f"{number:0{digits}}").encode())


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.make_demo_ehr",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out_dir", required=True, help="folder for the tree")
    parser.add_argument("--patients", type=int, default=120, help="number of patients")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    parser.add_argument("--scale", type=int, default=1, help="copies of all patients, for a tree of a hospital's size")
    args = parser.parse_args(argv)
    rows = make_tree(args.out_dir, args.patients, args.seed, args.scale)
    print(f"{rows['hosp/patients']:,} patients, {sum(rows.values()):,} rows in {len(rows)} files: {args.out_dir}")


if __name__ == "__main__":
    run_main(main)
