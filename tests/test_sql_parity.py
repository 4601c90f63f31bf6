"""``acc`` is the official scorer's verdict, prediction by prediction."""

import json
import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from official_scorer import OfficialScorer
from sql_mutations import predictions

from reward_fns.ehrsql import compute_score
from reward_fns.sql.sandbox import SqlSandbox

VALID_PREDICTIONS = 3_000
RANDOM_PAIRS = 20_000
# Cells that the scorer's rules treat differently, as SQL.
CELLS = [
    *("NULL", "1", "1.0", "10", "0.0004", "0.0006", "1.0004", "1.0005", "-0.0", "0", "9e999", "-9e999"),
    *("9007199254740993", "9007199254740992", "9223372036854775807", "'9007199254740993'", "'18446744073709551616'"),
    *("'1'", "' 1 '", "'1_0'", "'\u0661'", "'\uff12'", "'inf'", "'nan'", "'1e999'", "'None'", "''", "'a'", "'A'"),
    *("'ab'", "'a b'", "'a  b'", "'\"'", "'a''b'", "'\\'", "'\u00e9'", "char(10)", "char(0)"),
    *("x'31'", "x'ff'", "x'61ff62'", "x''", "CAST(x'61ff62' AS TEXT)"),
]


def verdicts(db_path: Path, pairs: list[tuple[str, str]]) -> list[tuple[bool, bool]]:
    """(ours, official) of each (prediction, gold)."""
    with SqlSandbox(workers=2) as sandbox, ThreadPoolExecutor(4) as pool:
        golds = sorted({gold for _, gold in pairs})
        truths = dict(zip(golds, pool.map(lambda gold: sandbox.execute(db_path, gold).answer, golds), strict=True))

        def ours(pair: tuple[str, str]) -> bool:
            prediction, gold = pair
            literal = "--" in prediction or "/*" in prediction
            info = {"db_path": str(db_path)}
            result = compute_score("ehrsql", prediction, truths[gold], info, official_clean_up=literal)
            assert result["grader_failed"] == result["timed_out"] == 0
            return bool(result["acc"])

        scorer = OfficialScorer(db_path)
        official = [scorer.verdict(prediction, gold) for prediction, gold in pairs]
        return list(zip(pool.map(ours, pairs), official, strict=True))


def check(pairs: list[tuple[str, str]], results: list[tuple[bool, bool]], least: float) -> None:
    """All agree, and at least that share of them is right, and wrong."""
    differing = [pair for pair, (ours, official) in zip(pairs, results, strict=True) if ours != official]
    assert not differing, f"{len(differing)} of {len(pairs)} differ: {differing[:5]}"
    right = sum(official for _, official in results) / len(results)
    assert least < right < 1 - least


def test_acc_is_the_official_verdict_on_predictions_made_from_valid(shared_data):
    folder = shared_data / "ehrsql2024"
    labels = json.loads((folder / "valid" / "label.json").read_text())
    golds = sorted(set(labels.values()) - {"null"})
    pairs = list(predictions(golds, VALID_PREDICTIONS, seed=0))
    check(pairs, verdicts(folder / "mimic_iv.sqlite", pairs), least=0.2)


def test_acc_is_the_official_verdict_on_random_pairs(tmp_path):
    db_path = tmp_path / "cells.sqlite"
    with closing(sqlite3.connect(db_path)) as connection:
        connection.execute("CREATE TABLE cells (id INTEGER, cell)")
        for id_, cell in enumerate(CELLS):
            connection.execute(f"INSERT INTO cells VALUES ({id_}, {cell})")
        connection.commit()
    rng = random.Random(0)

    some_columns = ["cell", "cell", "cell", "cell, id", "id, cell", "cell || ''", "cell + 0", "count(*)", "max(cell)"]

    def query() -> str:
        ids = ", ".join(str(rng.randrange(len(CELLS))) for _ in range(rng.choice([1, 1, 1, 2, 3])))
        columns = rng.choice(some_columns)
        order = rng.choice(["", " ORDER BY id DESC", " ORDER BY cell", " LIMIT 1"])
        sql = f"SELECT {columns} FROM cells WHERE id IN ({ids}){order}"
        return sql if order else rng.choice([sql, sql, f"{sql} UNION ALL {sql}"])

    # Few golds and predictions of few rows, so that many answers are equal.
    queries = sorted({query() for _ in range(2_000)})
    drawn = [(rng.choice(queries), rng.choice(queries)) for _ in range(RANDOM_PAIRS)]
    pairs = [(rng.choice([other, gold, f"{gold} ", gold.replace("SELECT", "select")]), gold) for other, gold in drawn]
    check(pairs, verdicts(db_path, pairs), least=0.2)
