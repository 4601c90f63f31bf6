"""Degenerate EHRSQL policies, and what they earn: an evaluation prints it beside the model's figures.

A policy under training may collapse to any of them. The tests hold their rewards under ceilings.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from recipes.evaluation.rows import Row
from reward_fns.ehrsql import compute_score
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, says_nothing

# name -> the policy's response to a question.
POLICIES: dict[str, Callable[[str], str]] = {
    "SELECT 1": lambda question: "SELECT 1",
    "SELECT 0": lambda question: "SELECT 0",
    "a constant that opens a table": lambda question: "SELECT 1 FROM patients LIMIT 1",
    "a constant that reads a table": lambda question: "SELECT count(*) > 0 FROM patients",
    "a query that returns nothing": lambda question: "SELECT subject_id FROM patients WHERE 0",
    "a query that returns NULL": lambda question: "SELECT max(subject_id) FROM patients WHERE 0",
    "empty": lambda question: "",
    "always abstains": lambda question: "null",
    "the question copied": lambda question: question,
    "a fence without a query": lambda question: "```sql\n```",
}
MOST_FREQUENT = "the gold query of the most frequent answer"


def canaries(rows: Sequence[Row], **weights: float) -> dict[str, dict[str, float]]:
    """name -> ``acc`` and ``score``, means over ``rows`` in [0, 1] (with negative ``weights`` below).

    ``rows`` are as ``data_prep.ehrsql.rl_row`` makes them; those whose gold query failed are left out. ``weights`` are
    keyword arguments of ``reward_fns.ehrsql.compute_score``.
    """
    rows = [row for row in rows if row["reward_model"]["ground_truth"] != GOLD_FAILED]
    policies = dict(POLICIES)
    golds = {row["reward_model"]["ground_truth"]: row["extra_info"]["gold_sql"] for row in rows}
    truths = (row["reward_model"]["ground_truth"] for row in rows)
    # Queries that return nothing or NULL are canaries of their own.
    answers = Counter(truth for truth in truths if truth != ABSTAIN and not says_nothing(truth))
    if answers:
        gold = golds[answers.most_common(1)[0][0]]
        policies[MOST_FREQUENT] = lambda question: gold
    earned = {}
    for name, respond in policies.items():
        scores = [
            compute_score(
                row["data_source"],
                respond(row["extra_info"]["question"]),
                row["reward_model"]["ground_truth"],
                row["extra_info"],
                **weights,
            )
            for row in rows
        ]
        earned[name] = {key: fmean(score[key] for score in scores) for key in ("acc", "score")}
    return earned
