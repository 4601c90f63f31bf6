"""Grades texts that a model might write for one question: ``python3 -m reward_fns.example``, without installation."""

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

DATABASE = """
CREATE TABLE prescriptions (subject_id INTEGER, drug TEXT);
INSERT INTO prescriptions VALUES (1, 'aspirin'), (1, 'aspirin'), (2, 'aspirin'), (3, 'heparin');
"""
QUESTION = "How many patients were given aspirin?"
GOLD = "SELECT count(DISTINCT subject_id) FROM prescriptions WHERE drug = 'aspirin'"
TEXTS = (
    "SELECT count(DISTINCT subject_id) FROM prescriptions WHERE drug LIKE 'aspirin'",
    "SELECT count(*) FROM prescriptions WHERE drug = 'aspirin'",
    "SELECT count(*) FROM medicines",
    "SELECT 2",
    "null",
)


def outcome(reward: dict) -> str:
    """What ``compute_score`` found out about a text, in words."""
    if reward["abstained"]:
        return "does not answer"
    if not reward["executed"]:
        return "does not execute"
    if not reward["acc"]:
        return "executes, but gives another answer"
    return "gives the right answer" if reward["score"] else "gives the right answer without reading the database"


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  the only program that needs no set-up, which would refuse
        raise SystemExit(
            f"needs Python 3.11 or newer, and this is {sys.version.split()[0]}; try python3.11, python3.12 ..."
        )
    from reward_fns.ehrsql import compute_score  # which an older Python cannot import
    from reward_fns.sql.sandbox import shared_sandbox

    print(f"question: {QUESTION}\ngold SQL: {GOLD}\n\nreward  the model writes")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "toy.sqlite")
        with closing(sqlite3.connect(path)) as database:
            database.executescript(DATABASE)
        gold = shared_sandbox().execute(path, GOLD)
        for text in TEXTS:
            reward = compute_score("ehrsql", text, gold.answer, {"db_path": str(path)})
            print(f"{reward['score']:6.1f}  {text}\n        ({outcome(reward)})")


if __name__ == "__main__":
    main()
