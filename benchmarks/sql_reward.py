"""Speed of the SQL reward against bare SQLite and three ways in which it is usually written, on the same samples.

``python -m benchmarks.sql_reward --db X --labels valid/label.json`` grades GRPO-shaped samples (groups of 16 rollouts
with 5 distinct queries), distinct ones, and GRPO-shaped ones of which 2 % are hostile and distinct. Designs:

* ``floor``: bare sqlite3 executes each distinct query once, in as many processes as cores; nothing is compared.
* ``ours``: ``reward_fns.ehrsql.compute_score``, called from threads, as verl does.
* ``one connection``: executes gold and prediction for each sample, without a limit.
* ``thread per query``: executes both in a new thread with a new connection, interrupted at the deadline.
* ``pool per call``: executes both in a process pool of its own, terminated at the deadline.

Each runs in a process of its own. One that is not through after ``--limit_s`` is killed, and its figures are those of
the samples that it had graded.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import re
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from data_prep.common.errors import run_main
from reward_fns.ehrsql import compute_score
from reward_fns.sql.sandbox import SqlSandbox, shared_sandbox
from reward_fns.sql.text import clean_up

GROUP, DISTINCT = 16, 5
HOSTILE_SHARE = 0.02
CORES = os.cpu_count() or 1
SPAWN = multiprocessing.get_context("spawn")
HOSTILE = (
    "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + {} FROM s) SELECT count(*) FROM s, patients",
    "SELECT count(*) FROM labevents a, labevents b, labevents c WHERE a.valuenum + b.valuenum = c.valuenum + {}",
    "SELECT a.row_id FROM labevents a, labevents b ORDER BY a.valuenum * b.valuenum - {} LIMIT 1",
    "SELECT instr(a, b) FROM (SELECT printf('%.900000c', 'x') AS a, printf('%.450000c{}', 'x') AS b FROM patients)",
)


@dataclass(frozen=True)
class Sample:
    prediction: str
    gold: str
    ground_truth: str
    hostile: bool = False


@dataclass(frozen=True)
class Job:
    """What a design's process is given."""

    design: str
    db: Path
    samples: list[Sample]
    timeout_s: float
    callers: int


def mutated(gold: str, rng: random.Random) -> str:
    """The gold query with another number or text in place of one of its own, or another threshold behind it."""
    literals = list(re.finditer(r"'[^']*'|(?<![\w.'-])\d+(?![\w.'-])", gold))
    if not literals:
        return f"SELECT * FROM ({gold.rstrip('; ')}) LIMIT {rng.randrange(1000)}"
    chosen = rng.choice(literals)
    value = f"'{rng.randrange(10**6)}'" if chosen[0].startswith("'") else str(rng.randrange(10**6))
    return gold[: chosen.start()] + value + gold[chosen.end() :]


def make_samples(golds: dict[str, str], count: int, load: str, seed: int) -> list[Sample]:
    """``golds``: gold query -> canonical answer."""
    rng = random.Random(seed)
    queries = list(golds)
    samples = []
    while len(samples) < count:
        gold = rng.choice(queries)
        distinct = [gold, *(mutated(gold, rng) for _ in range(DISTINCT - 1))]
        predictions = distinct[1:] if load == "distinct" else rng.choices(distinct, k=GROUP)
        samples += [Sample(prediction, gold, golds[gold]) for prediction in predictions]
    samples = samples[:count]
    if load == "2 % hostile":
        for number, place in enumerate(rng.sample(range(count), round(HOSTILE_SHARE * count))):
            sql = HOSTILE[number % len(HOSTILE)].format(number + 2)
            samples[place] = Sample(sql, samples[place].gold, samples[place].ground_truth, hostile=True)
    return samples


def read_only(db: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{db}?mode=ro", uri=True, check_same_thread=False)


def rows(connection: sqlite3.Connection, sql: str) -> list | None:
    try:
        return sorted(map(repr, connection.execute(clean_up(sql)).fetchall()))
    except sqlite3.Error:
        return None


def ours(job: Job) -> Callable[[Sample], float]:
    info = {"db_path": str(job.db)}

    def grade(sample: Sample) -> float:
        result = compute_score("ehrsql", sample.prediction, sample.ground_truth, info, timeout_s=job.timeout_s)
        return result["acc"]

    return grade


def one_connection(job: Job) -> Callable[[Sample], float]:
    connection = read_only(job.db)
    return lambda sample: float(rows(connection, sample.prediction) == rows(connection, sample.gold))


def thread_per_query(job: Job) -> Callable[[Sample], float]:
    def grade(sample: Sample) -> float:
        connection, answers, queries = read_only(job.db), [], (sample.prediction, sample.gold)
        thread = threading.Thread(target=lambda: answers.extend(rows(connection, sql) for sql in queries), daemon=True)
        thread.start()
        thread.join(job.timeout_s)
        if thread.is_alive():
            connection.interrupt()
            return 0.0
        connection.close()
        return float(answers[0] == answers[1])

    return grade


def _both(db: Path, sample: Sample) -> float:
    connection = read_only(db)
    return float(rows(connection, sample.prediction) == rows(connection, sample.gold))


def pool_per_call(job: Job) -> Callable[[Sample], float]:
    def grade(sample: Sample) -> float:
        with multiprocessing.Pool(1) as pool:
            try:
                return pool.apply_async(_both, (job.db, sample)).get(job.timeout_s)
            except multiprocessing.TimeoutError:
                return 0.0

    return grade


DESIGNS: dict[str, Callable[[Job], Callable[[Sample], float]]] = {
    "ours": ours,
    "one connection": one_connection,
    "thread per query": thread_per_query,
    "pool per call": pool_per_call,
}


def execute_share(db: Path, queries: list[str], start: Barrier) -> None:
    connection = sqlite3.connect(f"file:{db}?mode=ro&immutable=1", uri=True)
    connection.execute("PRAGMA cache_size = -65536")

    def execute(sql: str) -> None:
        with suppress(sqlite3.Error):  # a mutated query may be a wrong one
            connection.execute(clean_up(sql)).fetchall()

    for sql in queries[:50]:
        execute(sql)  # until the file is in memory, as for the others
    start.wait()
    for sql in queries:
        execute(sql)


def floor(job: Job, report: Callable[[dict], None]) -> None:
    queries = list(dict.fromkeys(sample.prediction for sample in job.samples))
    start = SPAWN.Barrier(CORES + 1)
    shares = [queries[core::CORES] for core in range(CORES)]
    processes = [SPAWN.Process(target=execute_share, args=(job.db, share, start)) for share in shares]
    for process in processes:
        process.start()
    start.wait()
    started = time.perf_counter()
    for process in processes:
        process.join()
    report({"latencies": [], "seconds": time.perf_counter() - started, "done": len(job.samples)})


def run(job: Job, pipe) -> None:
    """The process of one design: sends what it has measured once a second, and at its end."""
    if job.design == "floor":
        floor(job, pipe.send)
        return
    grade, callers = DESIGNS[job.design](job), job.callers
    with ThreadPoolExecutor(callers) as pool:  # until processes are started and the file is in memory
        list(pool.map(grade, [sample for sample in job.samples if not sample.hostile][:50]))
    if job.design == "ours":
        shared_sandbox()._cache.clear()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    latencies: list[float] = []

    def timed(sample: Sample) -> float:
        started = time.perf_counter()
        acc = grade(sample)
        latencies.append(time.perf_counter() - started)
        return acc

    def measured() -> dict:
        process = psutil.Process()
        return {
            "latencies": list(latencies),
            "seconds": time.perf_counter() - started,
            "done": len(latencies),
            "threads": threading.active_count() - threads - (callers if callers > 1 else 0) - 1,
            "descriptors": len(os.listdir("/proc/self/fd")) - descriptors,
            "memory_mib": sum(p.memory_info().rss for p in (process, *process.children())) / 2**20,
        }

    started = time.perf_counter()
    stop = threading.Event()

    def send_often() -> None:
        while not stop.wait(1.0):
            pipe.send(measured())

    sender = threading.Thread(target=send_often, daemon=True)
    sender.start()
    if callers == 1:
        list(map(timed, job.samples))
        result = measured()
    else:
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(timed, job.samples))
            result = measured()
    stop.set()
    sender.join()
    pipe.send(result)


def measure(job: Job, limit_s: float) -> dict:
    """Run a design's process to its end or its limit; the last that it sent, and whether it was killed."""
    receiver, sender = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=run, args=(job, sender))
    process.start()
    sender.close()
    result: dict = {"latencies": [], "seconds": limit_s, "done": 0}
    deadline = time.monotonic() + limit_s
    while process.is_alive() or receiver.poll():
        if receiver.poll(0.2):
            try:
                result = receiver.recv()
            except EOFError:
                break
        if time.monotonic() > deadline:
            result["killed"] = True
            break
    for child in psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []:
        child.kill()
    process.kill()
    process.join()
    return result


def table_row(design: str, job: Job, result: dict, base: dict[str, float]) -> list[str]:
    latencies = sorted(result["latencies"])
    rate = result["done"] / result["seconds"]
    base[design] = rate
    cells = [design, f"{rate:,.0f}", f"{base['ours'] / rate:.2f}" if "ours" in base and rate else ""]
    if latencies:
        stalls = sum(latency > 2 * job.timeout_s for latency in latencies)
        p50, p99 = statistics.median(latencies), latencies[int(0.99 * (len(latencies) - 1))]
        cells += [f"{1000 * p50:.1f}", f"{1000 * p99:.0f}", f"{1000 * latencies[-1]:.0f}", str(stalls)]
        cells += [str(result["threads"]), str(result["descriptors"]), f"{result['memory_mib']:.0f}"]
    else:
        cells += [""] * 7
    return [*cells, f"killed after {result['done']:,}" if "killed" in result else f"{result['done']:,}"]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sql_reward",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--db", type=Path, required=True, help="SQLite database")
    parser.add_argument("--labels", type=Path, required=True, help="label.json of a split: gold queries")
    parser.add_argument("--samples", type=int, default=20_000, help="of each load")
    parser.add_argument("--timeout_s", type=float, default=0.5, help="deadline of a query")
    parser.add_argument("--limit_s", type=float, default=60.0, help="time after which a usual design is killed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    console = Console(width=130)
    queries = sorted(set(json.loads(args.labels.read_text()).values()) - {"null"})
    with SqlSandbox(CORES, 60.0) as sandbox, ThreadPoolExecutor(CORES) as pool:
        executions = list(pool.map(lambda sql: sandbox.execute(args.db, sql), queries))
    golds = {sql: e.answer for sql, e in zip(queries, executions, strict=True) if e.status == "ok"}
    console.print(
        f"{platform.processor() or platform.machine()}, {CORES} cores, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}; {len(golds):,} gold queries, deadline {args.timeout_s} s, seed {args.seed}"
    )
    for load in ("GRPO-shaped", "distinct", "2 % hostile"):
        samples = make_samples(golds, args.samples, load, args.seed)
        distinct = len({sample.prediction for sample in samples})
        table = Table(title=f"{load}: {len(samples):,} samples, {distinct:,} distinct queries")
        for column in ("design", "samples/s", "ours is faster by", "p50 ms", "p99 ms", "max ms", "over 2 deadlines",
                       "threads left", "descriptors left", "MiB", "graded"):  # fmt: skip
            table.add_column(column, justify="right" if table.columns else "left")
        rates: dict[str, float] = {}
        for design in ("ours", "floor", *list(DESIGNS)[1:]):
            if design == "floor" and load == "2 % hostile":
                continue
            # With more callers than processes none waits for a caller. Where queries are hostile, a caller would wait
            # for others' deadlines, and its latency tell nothing of its own.
            callers = 1 if design == "one connection" else CORES if load == "2 % hostile" else 2 * CORES
            job = Job(design, args.db, samples, args.timeout_s, callers)
            patience = 3600.0 if design in ("ours", "floor") else args.limit_s
            table.add_row(*table_row(design, job, measure(job, patience), rates))
        console.print(table)
        if load == "GRPO-shaped":
            benign_rate = rates["ours"]
        if load == "2 % hostile":
            hostile = sum(sample.hostile for sample in samples)
            expected = len(samples) / benign_rate + hostile * args.timeout_s / CORES
            console.print(
                f"The deadline's arithmetic: {len(samples):,} samples at the benign rate and {hostile:,} x "
                f"{args.timeout_s} s / {CORES} = {expected:.1f} s; measured {len(samples) / rates['ours']:.1f} s"
            )


if __name__ == "__main__":
    run_main(main)
