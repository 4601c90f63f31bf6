"""How long and with how much memory the EHR database is built, beside a plain pandas build of the same trees.

Synthetic trees with 1, 4 and 16 million chart events and all else in proportion are made in a temporary folder one
after another; on each both builds run with the shared task's options, in processes of their own. Memory is the peak
resident set. CPU time tells more where other work runs on the machine. For comparison the files are only decompressed
too, by Python's zlib in as many processes as there are cores.

    python -m benchmarks.build_ehr_db [--million_events 1 4 16] [--num_patient 100]
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from benchmarks.ecg_grader_speed import cpu_name
from data_prep.common.errors import run_main
from data_prep.make_demo_ehr import make_tree

REPO = Path(__file__).resolve().parent.parent
PATIENTS = 120
FULL_RELEASE = 313_645_063  # chart events in MIMIC-IV 2.2
SHARED_TASK = ["--timeshift", "--current_time", "2100-12-31 23:59:00", "--start_year", "2100", "--time_span", "0"]
SHARED_TASK += ["--cur_patient_ratio", "0.1"]

DECOMPRESS = """
import gzip, multiprocessing, sys
from data_prep.common.errors import run_main
def read(path):
    with gzip.open(path) as file:
        while file.read(1 << 20):
            pass
with multiprocessing.get_context("fork").Pool() as pool:
    pool.map(read, sys.argv[1:], chunksize=1)
"""


@dataclass(frozen=True)
class Cost:
    seconds: float
    cpu_seconds: float
    peak_mb: float


def measure(command: list[str]) -> Cost:
    """Run a process; raises ``CalledProcessError`` if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=REPO, env=os.environ | {"PYTHONPATH": str(REPO)},
                               stdout=subprocess.DEVNULL)  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, command)
    seconds = time.perf_counter() - start
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure_builds(tree: Path, out: Path, num_patient: int) -> dict[str, Cost]:
    ours = ["-m", "data_prep.build_ehr_db", "--data_dir", str(tree), "--out_dir", str(out), *SHARED_TASK]
    pandas = ["tests/pandas_ehr_build.py", str(tree), str(out / "pandas.sqlite"), str(num_patient)]
    largest_first = sorted(tree.glob("*/*.csv.gz"), key=lambda path: -path.stat().st_size)
    return {
        "ours": measure([*ours, "--num_patient", str(num_patient)]),
        "pandas": measure(pandas),
        "decompression alone": measure(["-c", DECOMPRESS, *map(str, largest_first)]),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.build_ehr_db", description=__doc__.splitlines()[0])
    parser.add_argument("--million_events", type=float, nargs="+", default=[1, 4, 16])
    parser.add_argument("--num_patient", type=int, default=100)
    args = parser.parse_args(argv)
    print(f"{cpu_name()}, {os.cpu_count()} cores; DuckDB {duckdb.__version__}, pandas {pd.__version__}")
    measured: list[tuple[int, dict[str, Cost]]] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        events_of_one = make_tree(tree, PATIENTS)["icu/chartevents"]
        for million in args.million_events:
            counts = make_tree(tree, PATIENTS, scale=math.ceil(million * 1e6 / events_of_one))
            events, rows = counts["icu/chartevents"], sum(counts.values())
            costs = measure_builds(tree, Path(folder), args.num_patient)
            measured.append((events, costs))
            print(f"{events:,} chart events, {rows:,} rows in all:")
            for name, cost in costs.items():
                print(
                    f"  {name}: {cost.seconds:.1f} s, {cost.cpu_seconds:.1f} s of CPU, {cost.peak_mb:,.0f} MB, "
                    f"{rows / cost.seconds:,.0f} rows/s"
                )
            ours, pandas = costs["ours"], costs["pandas"]
            clock, cpu = pandas.seconds / ours.seconds, pandas.cpu_seconds / ours.cpu_seconds
            memory = pandas.peak_mb / ours.peak_mb
            print(f"  pandas / ours: {clock:.1f} by the clock, {cpu:.1f} by CPU time, {memory:.1f} in memory")
    for (events, before), (more_events, after) in zip(measured, measured[1:], strict=False):
        for name in before:
            exponent = math.log(after[name].seconds / before[name].seconds) / math.log(more_events / events)
            print(f"{name}, {events:,} to {more_events:,}: time grows with the power {exponent:.2f}")
    events, costs = measured[-1]
    for name, cost in costs.items():
        hours = cost.seconds / events * FULL_RELEASE / 3600
        print(f"{name}: {hours:.2f} h for a full release's {FULL_RELEASE:,} chart events at the last tree's rate")


if __name__ == "__main__":
    run_main(main)
