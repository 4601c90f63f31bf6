"""Reward functions that grade a hostile query in place of every completion: what does that do to a training step?

``bash scripts/run_grpo_ehrsql.sh reward.custom_reward_function.path=benchmarks/hostile_reward.py
reward.custom_reward_function.name=attacks +reward.custom_reward_function.reward_kwargs.timeout_s=1``, in an
``OUTPUT_DIR`` of its own. ``attacks`` takes those of ``tests/test_sql_attacks.py`` in turn; ``endless`` takes queries
that never end and never repeat, so that each costs its deadline.
"""

import itertools
import re
import sys
from pathlib import Path

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
