"""The EHRSQL reward as verl calls it, and the grader on the real gold queries."""

import hashlib
import json
import logging
import sqlite3
from ast import literal_eval
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reward_fns.ehrsql import _log_once, compute_score, grade, query_timeout
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, canonical_answer, says_nothing
from reward_fns.sql.reliability import reliability_score

KEYS = {
    "score",
    "acc",
    "executed",
    "abstained",
    "timed_out",
    "format_ok",
    "answerable",
    "pred",
    "grader_failed",
}
GOLD = canonical_answer([(2,)])
EMPTY, ONLY_NULL = canonical_answer([]), canonical_answer([(None,)])
RETURNS_NOTHING = "SELECT subject_id FROM patients WHERE 0"
RIGHT, WRONG, CONSTANT = "SELECT count(*) FROM patients", "SELECT max(1) FROM patients", "SELECT 2"
ENDLESS = "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s) SELECT count(*) FROM s, patients"


@pytest.fixture(scope="module")
def db_path(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("database") / "ehr.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE patients (subject_id INTEGER); INSERT INTO patients VALUES (1), (2);")
    connection.close()
    return str(path)


def score(db_path: str, text: str, ground_truth: str = GOLD, **kwargs) -> dict:
    result = compute_score("ehrsql", text, ground_truth, {"db_path": db_path}, **kwargs)
    assert set(result) == KEYS
    assert all(type(value) is (str if key == "pred" else float) for key, value in result.items())
    return result


@pytest.mark.parametrize(
    ("text", "ground_truth", "expected"),
    [
        (RIGHT, GOLD, {"score": 1.0, "acc": 1.0, "executed": 1.0, "format_ok": 1.0, "answerable": 1.0}),
        (f"Sure: ```sql\n{RIGHT};\n```", GOLD, {"score": 1.0, "acc": 1.0, "format_ok": 0.0}),
        (WRONG, GOLD, {"score": 0.1, "acc": 0.0, "executed": 1.0}),
        ("null", GOLD, {"score": 0.0, "acc": 0.0, "abstained": 1.0, "executed": 0.0, "pred": "abstain"}),
        ("null", ABSTAIN, {"score": 1.0, "acc": 1.0, "abstained": 1.0, "answerable": 0.0}),
        (RIGHT, ABSTAIN, {"score": 0.1, "acc": 0.0, "executed": 1.0, "answerable": 0.0}),
        (CONSTANT, GOLD, {"score": 0.0, "acc": 1.0, "executed": 1.0}),
        ("SELECT 2 FROM patients LIMIT 1", GOLD, {"score": 0.0, "acc": 1.0, "executed": 1.0}),
        ("VALUES (2)", GOLD, {"score": 0.0, "acc": 0.0, "executed": 0.0}),
        ("SELECT 1", GOLD, {"score": 0.0, "acc": 0.0}),
        ("SELECT x FROM patients", GOLD, {"score": 0.0, "acc": 0.0, "executed": 0.0, "pred": "error"}),
        ("SELECT x FROM patients", ABSTAIN, {"score": 0.0, "acc": 0.0}),
        ("DROP TABLE patients", GOLD, {"score": 0.0, "executed": 0.0, "pred": "error"}),
        ("I don't know", GOLD, {"score": 0.0, "executed": 0.0, "abstained": 0.0, "pred": "error"}),
        ("", ABSTAIN, {"score": 0.0, "acc": 0.0, "abstained": 0.0}),
        (RIGHT, GOLD_FAILED, {"score": 0.0, "acc": 0.0, "answerable": 1.0}),
        ("SELECT x FROM patients", GOLD_FAILED, {"score": 0.0, "acc": 0.0}),
        ("null", GOLD_FAILED, {"score": 0.0, "acc": 0.0}),
        ("error", GOLD_FAILED, {"score": 0.0, "acc": 0.0}),
    ],
)
def test_outcomes(db_path, text, ground_truth, expected):
    result = score(db_path, text, ground_truth)
    assert {key: result[key] for key in expected} == expected
    assert result["timed_out"] == result["grader_failed"] == 0.0


@pytest.mark.parametrize(
    ("text", "ground_truth"),
    [
        (RETURNS_NOTHING, EMPTY),
        ("SELECT subject_id FROM patients WHERE subject_id < 0", EMPTY),
        ("SELECT subject_id FROM patients WHERE subject_id <> subject_id", EMPTY),
        ("SELECT subject_id FROM patients LIMIT 0", EMPTY),
        ("SELECT subject_id FROM patients EXCEPT SELECT subject_id FROM patients", EMPTY),
        ("SELECT max(subject_id) FROM patients WHERE 0", ONLY_NULL),
        ("SELECT NULL, avg(subject_id) FROM patients WHERE subject_id > 9", canonical_answer([(None, None)])),
    ],
)
def test_a_query_that_returns_nothing_is_paid_as_one_that_executes(db_path, text, ground_truth):
    assert score(db_path, text, ground_truth)["acc"] == 1.0
    assert score(db_path, text, ground_truth)["score"] == score(db_path, WRONG, ground_truth)["score"] == 0.1
    assert score(db_path, text, ground_truth, executed=0.0)["score"] == 0.0
    assert score(db_path, text, ground_truth, official_empty=True)["score"] == 1.0
    # Training for RS(5): neither right nor wrong.
    assert score(db_path, text, ground_truth, reliability_penalty=5.0)["score"] == 0.0
    assert score(db_path, text, ground_truth, reliability_penalty=5.0, official_empty=True)["score"] == 1.0
    assert score(db_path, text, GOLD, reliability_penalty=5.0)["score"] == -5.0


@pytest.mark.parametrize("rows", [[("",)], [(0,)], [(None, 1)], [("None or [None]",)], [(None,), (2,)]])
def test_an_answer_that_says_something_is_paid(db_path, rows):
    values = " UNION ALL ".join(
        f"SELECT {', '.join('NULL' if cell is None else repr(cell) for cell in row)}, count(*) FROM patients"
        for row in rows
    )
    assert score(db_path, values, canonical_answer([(*row, 2) for row in rows]))["score"] == 1.0
    assert not says_nothing(canonical_answer(rows))


def test_a_constant_that_returns_nothing_earns_nothing(db_path):
    assert score(db_path, "SELECT 1 WHERE 0", EMPTY)["score"] == 0.0


@pytest.mark.parametrize("start", [";", ";;\n", "; -- why\n"])
def test_semicolons_before_a_query_do_not_matter(db_path, start):
    assert score(db_path, start + RIGHT)["score"] == 1.0
    assert score(db_path, start + "SELECT 2")["score"] == 0.0  # still a constant
    assert score(db_path, f"{start}DROP TABLE patients")["executed"] == 0.0
    assert score(db_path, f"{start}EXPLAIN {RIGHT}")["executed"] == 0.0
    assert score(db_path, f"{start}{RIGHT}; {RIGHT}")["executed"] == 0.0


def test_a_row_names_the_deadline_and_the_argument_overrides_it(db_path):
    def timed_out(extra_info: dict, **kwargs) -> float:
        return compute_score("ehrsql", ENDLESS, GOLD, {"db_path": db_path, **extra_info}, **kwargs)["timed_out"]

    assert query_timeout({"timeout_s": 0.2}) == 0.2
    assert query_timeout({}) == query_timeout(None) == query_timeout({"timeout_s": None}) == 10.0
    assert timed_out({"timeout_s": 0.2}) == 1.0
    assert timed_out({"timeout_s": 3600.0}, timeout_s=0.2) == 1.0


def test_an_endless_query_times_out(db_path):
    result = score(db_path, ENDLESS, timeout_s=0.3)
    assert (result["score"], result["timed_out"], result["executed"]) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "ground_truth", "kwargs", "expected"),
    [
        (RIGHT, GOLD, {"correct": 2.0}, 2.0),
        (WRONG, GOLD, {"executed": 0.3}, 0.3),
        (RIGHT, ABSTAIN, {"executed": 0.3}, 0.3),
        (RIGHT, ABSTAIN, {"answered_unanswerable": -1.0}, -1.0),
        (WRONG, GOLD, {"answered_unanswerable": -1.0}, 0.1),
        ("null", GOLD, {"abstained": 0.2}, 0.2),
        ("null", ABSTAIN, {"abstained": 0.2}, 1.0),
        (RIGHT, GOLD, {"format_bonus": 0.05}, 1.05),
        (f"So: {RIGHT}", GOLD, {"format_bonus": 0.05}, 1.0),
        ("SELECT x FROM patients", GOLD, {"format_bonus": 0.05}, 0.05),
        (CONSTANT, GOLD, {"format_bonus": 0.05}, 0.0),
        (RIGHT, GOLD_FAILED, {"format_bonus": 0.05}, 0.0),
        (RIGHT, GOLD, {"reliability_penalty": 5.0}, 1.0),
        ("null", ABSTAIN, {"reliability_penalty": 5.0}, 1.0),
        ("null", GOLD, {"reliability_penalty": 5.0, "abstained": 0.2}, 0.0),
        (WRONG, GOLD, {"reliability_penalty": 5.0}, -5.0),
        (RIGHT, ABSTAIN, {"reliability_penalty": 5.0}, -5.0),
        (CONSTANT, GOLD, {"reliability_penalty": 5.0}, -5.0),
        ("I don't know", GOLD, {"reliability_penalty": 5.0, "format_bonus": 0.05}, -5.0),
        (WRONG, GOLD, {"reliability_penalty": 0.0}, 0.0),
        (RIGHT, GOLD_FAILED, {"reliability_penalty": 5.0}, 0.0),
        # The scorer joins lines before it executes, and the comment swallows the rest.
        ("SELECT count(*) -- patients\nFROM patients", GOLD, {}, 1.0),
        ("SELECT count(*) -- patients\nFROM patients", GOLD, {"official_clean_up": True}, 0.0),
    ],
)
def test_weights(db_path, text, ground_truth, kwargs, expected):
    assert score(db_path, text, ground_truth, **kwargs)["score"] == expected


def test_a_misspelt_weight_is_not_ignored(db_path):
    with pytest.raises(TypeError, match="format_bonnus"):
        score(db_path, RIGHT, format_bonnus=0.1)


def test_pred_votes_by_execution(db_path):
    same = score(db_path, "SELECT 2 FROM patients LIMIT 1")["pred"]
    assert score(db_path, RIGHT)["pred"] == same == hashlib.sha256(GOLD.encode()).hexdigest()[:16]
    assert score(db_path, WRONG)["pred"] != same


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([RIGHT, "null", "```sql\n", "```", "<think>", "</think>", ";", "--", "\x00", "\ud800"])
             | st.text(st.characters(), max_size=8), max_size=8).map("".join),
    st.sampled_from([GOLD, ABSTAIN, GOLD_FAILED]),
)  # fmt: skip
@example("SELECT '\ud800' FROM patients", GOLD)
@example("SELECT \x00 FROM patients", GOLD)
@example("SELECT 1" + " " * 1_000_000, GOLD)
def test_any_text_is_scored(db_path, text, ground_truth):
    result = score(db_path, text, ground_truth)
    assert result["grader_failed"] == 0.0
    assert result["score"] in (0.0, 0.1, 1.0)


@pytest.mark.parametrize("text", [RIGHT, "null", ""])
@pytest.mark.parametrize("extra_info", [None, {}, {"db_path": "/nowhere/ehr.sqlite"}])
def test_a_missing_database_scores_zero_and_says_so_once(caplog, monkeypatch, extra_info, text):
    monkeypatch.delenv("EHRSQL_DB", raising=False)
    _log_once.cache_clear()
    with caplog.at_level(logging.ERROR):
        results = [compute_score("ehrsql", text, GOLD, extra_info) for _ in range(2)]
    assert results[0] == results[1]
    assert set(results[0]) == KEYS
    assert (results[0]["score"], results[0]["grader_failed"]) == (0.0, 1.0)
    assert len(caplog.records) == 1


def test_the_environment_names_the_database_of_a_node(db_path, monkeypatch):
    monkeypatch.setenv("EHRSQL_DB", db_path)
    assert compute_score("ehrsql", RIGHT, GOLD, {"db_path": "/nowhere/ehr.sqlite"})["score"] == 1.0


def test_an_empty_variable_names_no_database(monkeypatch):
    monkeypatch.setenv("EHRSQL_DB", "")
    assert "/nowhere/ehr.sqlite" in compute_score("ehrsql", RIGHT, GOLD, {"db_path": "/nowhere/ehr.sqlite"})["pred"]


def test_a_bad_option_is_named(db_path):
    result = compute_score("ehrsql", RIGHT, GOLD, {"db_path": db_path}, timeout_s=-1)
    assert result["grader_failed"] == 1.0
    assert "timeout_s is -1; give seconds" in result["pred"]


def test_verl_loads_and_calls_it_from_its_path(db_path):
    omegaconf = pytest.importorskip("omegaconf")
    reward = pytest.importorskip("verl.trainer.ppo.reward")
    path = Path(__file__).resolve().parent.parent / "reward_fns" / "ehrsql.py"
    custom = {"path": str(path), "name": "compute_score", "reward_kwargs": {"executed": 0.2}}
    function = reward.get_custom_reward_fn(omegaconf.OmegaConf.create({"reward": {"custom_reward_function": custom}}))
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(
                function,
                data_source="ehrsql",
                solution_str=text,
                ground_truth=GOLD,
                extra_info={"db_path": db_path},
            )
            for text in [RIGHT, WRONG] * 4
        ]
    assert [call.result()["score"] for call in calls] == [1.0, 0.2] * 4


def test_reliability_score(db_path):
    texts = [(RIGHT, GOLD), ("null", GOLD), (WRONG, GOLD), ("x", GOLD), ("null", ABSTAIN), (RIGHT, ABSTAIN)]
    grades = [grade(text, ground_truth, db_path) for text, ground_truth in texts]
    assert reliability_score(grades, penalty=0) == pytest.approx(2 / 6)
    assert reliability_score(grades, penalty=5) == pytest.approx((2 - 3 * 5) / 6)
    assert reliability_score(grades, penalty=len(grades)) == pytest.approx((2 - 3 * 6) / 6)
    with pytest.raises(ValueError, match="at least one"):
        reliability_score([], penalty=0)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_gold_is_right_on_every_verified_id(shared_data, split):
    """Gold SQL against the published gold answer, through the whole grader."""
    folder = shared_data / "ehrsql2024"
    read = {name: json.loads((folder / split / f"{name}.json").read_text()) for name in ("label", "answer")}
    verified = json.loads((folder / "verified_ids.json").read_text())[split]

    # Not in the threads: literal_eval of Python 3.11 fails in them now and then (cpython issue 106905).
    golds = {id_: canonical_answer(literal_eval(read["answer"][id_])) for id_ in verified}

    def acc(id_: str) -> float:
        return grade(read["label"][id_], golds[id_], folder / "mimic_iv.sqlite", timeout_s=30.0).acc

    with ThreadPoolExecutor(2) as pool:
        wrong = [id_ for id_, right in zip(verified, pool.map(acc, verified), strict=True) if right != 1.0]
    assert verified and wrong == []


def test_abstaining_is_right_on_every_unanswerable_question(shared_data):
    folder = shared_data / "ehrsql2024"
    labels = json.loads((folder / "valid" / "label.json").read_text()).values()
    unanswerable = [label for label in labels if label == "null"]
    assert len(unanswerable) == 232
    assert all(grade(label, ABSTAIN, folder / "mimic_iv.sqlite").acc == 1.0 for label in unanswerable)
