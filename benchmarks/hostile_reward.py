"""Reward functions that grade a hostile query in place of every completion: what does that do to a training step?

``bash scripts/run_grpo_ehrsql.sh reward.custom_reward_function.path=benchmarks/hostile_reward.py
reward.custom_reward_function.name=attacks``, in an ``OUTPUT_DIR`` of its own. ``attacks`` takes those of
``tests/test_sql_attacks.py`` in turn; ``endless`` takes queries that never end and never repeat, so that each costs its
deadline.

``python -m benchmarks.hostile_reward --dataset_path valid.parquet`` does without training: it grades a step's rollouts,
all of them endless, and then gold queries, in threads as verl does. ``--busy N`` runs N programs beside it that do
nothing but compute; ``--right N`` mixes that many gold queries into the endless ones.
"""

import argparse
import itertools
import os
import random
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from data_prep.common.errors import InputError, run_main
from recipes.tasks.ehrsql.rows import DEFAULT_PROMPT, read_rows
from reward_fns.ehrsql import compute_score

REPO = Path(__file__).parents[1]
sys.path += [str(REPO), str(REPO / "tests")]  # a reward worker's path lacks the checkout

from test_sql_attacks import ATTACKS, HARMLESS  # noqa: E402

from benchmarks.sql_reward import HOSTILE  # noqa: E402

# Stands in for the table "numbers" of the tests' database.
NUMBERS = "(SELECT row_id AS n FROM labevents)"

_attacks = itertools.cycle(
    [re.sub(r"\bnumbers\b(?!\.)", NUMBERS, sql) for sql, statuses in ATTACKS if statuses != HARMLESS]
)
_numbers = itertools.count()  # like cycle, and unlike a generator, safe to ask from verl's threads


def attacks(data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **options) -> dict:
    return _grade(next(_attacks), data_source, ground_truth, extra_info, options)


def endless(data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **options) -> dict:
    number = next(_numbers)
    return _grade(HOSTILE[number % len(HOSTILE)].format(number + 2), data_source, ground_truth, extra_info, options)


def _grade(sql: str, data_source: str, ground_truth: str, extra_info: dict | None, options: dict) -> dict:
    return compute_score(data_source, f"```sql\n{sql}\n```", ground_truth, extra_info, **options)


@contextmanager
def busy_programs(count: int):
    """Programs that compute until the end of the block."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hostile_reward",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--dataset_path", type=Path, required=True, help="parquet file of data_prep.ehrsql with gold SQL"
    )
    parser.add_argument("--rollouts", type=int, default=256, help="endless queries")
    parser.add_argument("--right", type=int, default=256, help="gold queries among them")
    parser.add_argument("--busy", type=int, default=0, help="programs that only compute, beside it")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the choice of gold queries")
    args = parser.parse_args(argv)

    rows = read_rows(args.dataset_path, None, DEFAULT_PROMPT)
    rows = [row for row in rows if row["extra_info"]["answerable"] and row["extra_info"]["gold_sql"]]
    if len(rows) < max(1, args.right):
        raise InputError(f"{args.dataset_path} has {len(rows)} questions with gold SQL, fewer than --right")
    rng = random.Random(args.seed)
    jobs = [(False, rng.choice(rows)) for _ in range(args.rollouts)] + [
        (True, row) for row in rng.sample(rows, args.right)
    ]
    rng.shuffle(jobs)

    def grade(job: tuple[bool, dict]) -> dict:
        right, row = job
        truth, info = row["reward_model"]["ground_truth"], row["extra_info"]
        if right:
            return compute_score("ehrsql", info["gold_sql"], truth, info)
        return endless("ehrsql", "", truth, info)

    started = time.perf_counter()
    with busy_programs(args.busy), ThreadPoolExecutor(min(32, os.cpu_count() + 4)) as pool:  # as asyncio's executor
        scores = list(pool.map(grade, jobs))
    seconds = time.perf_counter() - started
    lost = sum(right and not score["acc"] for (right, _), score in zip(jobs, scores, strict=True))
    timed_out = sum(not right and score["timed_out"] for (right, _), score in zip(jobs, scores, strict=True))
    print(
        f"{args.busy} programs beside it: {seconds:.1f} s; "
        f"{timed_out:.0f} of {args.rollouts} endless queries timed out, {lost} of {args.right} gold queries lost"
    )


if __name__ == "__main__":
    run_main(main)
