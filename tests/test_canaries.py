"""Degenerate policies under their ceilings, on the demo's questions and on real ones."""

import copy
from collections import Counter
from statistics import fmean

import pytest

from data_prep import build_ehr_db, make_demo_ehr, make_demo_questions
from data_prep.sql.report import best_constant
from recipes.tasks.ehrsql.canaries import MOST_FREQUENT, canaries
from recipes.tasks.ehrsql.rows import read_rows
from reward_fns.ehrsql import compute_score
from reward_fns.sql.answers import GOLD_FAILED, canonical_answer

WRONG, FAILS = "SELECT count(*) + 0.5 FROM patients", "SELECT x FROM patients"
# name -> highest accuracy and reward allowed. The share of unanswerable questions comes on top of "always abstains".
CEILINGS = {
    "SELECT 1": (0.2, 0.0),
    "SELECT 0": (0.2, 0.0),
    "a constant that opens a table": (0.2, 0.0),
    "a constant that reads a table": (0.2, 0.25),
    "a query that returns nothing": (0.2, 0.1),
    "a query that returns NULL": (0.2, 0.1),
    "empty": (0.0, 0.0),
    "always abstains": (0.0, 0.0),
    "the question copied": (0.0, 0.0),
    "a fence without a query": (0.0, 0.0),
    MOST_FREQUENT: (0.2, 0.25),
}


@pytest.fixture(scope="module")
def demo_rows(tmp_path_factory):
    work = tmp_path_factory.mktemp("canaries")
    make_demo_ehr.main(["--out_dir", str(work / "tree"), "--patients", "60"])
    build_ehr_db.main(["--data_dir", str(work / "tree"), "--out_dir", str(work)])
    db = work / "mimic_iv.sqlite"
    sizes = {"train": 400, "valid": 200, "test": 200}
    make_demo_questions.make_questions(db, work / "questions", sizes)
    return read_rows(work / "questions" / "test" / "data.json", db, "question_only")


@pytest.fixture(scope="module")
def real_rows(shared_data):
    folder = shared_data / "ehrsql2024"
    return read_rows(folder / "valid" / "data.json", folder / "mimic_iv.sqlite", "question_only")


@pytest.fixture(scope="module")
def empty_rows(demo_rows):
    """A third of the answerable questions as on a database where no row fits them: half of these give NULL."""
    rows = copy.deepcopy(demo_rows)
    for number, row in enumerate(row for row in rows if row["extra_info"]["answerable"]):
        if number % 3 == 0:
            row["reward_model"]["ground_truth"] = canonical_answer([] if number % 2 else [(None,)])
    return rows


def score(row, text: str, **weights: float) -> float:
    ground_truth = row["reward_model"]["ground_truth"]
    return compute_score(row["data_source"], text, ground_truth, row["extra_info"], **weights)["score"]


def answering(rows, accuracy: float, **weights: float) -> float:
    """The mean reward of a policy that never abstains and is right on that share of the answerable questions."""
    golds = [row for row in rows if row["extra_info"]["answerable"]]
    right = {row["extra_info"]["id"] for row in golds[: round(accuracy * len(golds))]}
    gold_if_right = (row["extra_info"]["gold_sql"] if row["extra_info"]["id"] in right else WRONG for row in rows)
    return fmean(score(row, text, **weights) for row, text in zip(rows, gold_if_right, strict=True))


@pytest.mark.parametrize("data", ["demo_rows", "real_rows"])
def test_no_canary_earns_more_than_its_ceiling(data, request):
    rows = request.getfixturevalue(data)
    unanswerable = fmean(not row["extra_info"]["answerable"] for row in rows)
    earned = canaries(rows)
    assert set(earned) == set(CEILINGS)
    for name, (acc, reward) in CEILINGS.items():
        extra = unanswerable if name == "always abstains" else 0
        assert earned[name]["acc"] <= acc + extra, name
        assert earned[name]["score"] <= reward + extra, name


def test_a_query_that_returns_nothing_gains_nothing_where_gold_is_empty(demo_rows, empty_rows):
    before, after = canaries(demo_rows), canaries(empty_rows)
    for name in ("a query that returns nothing", "a query that returns NULL"):
        assert after[name]["acc"] > before[name]["acc"] == 0.0
        assert after[name]["score"] == before[name]["score"] == pytest.approx(0.1)
        assert canaries(empty_rows, official_empty=True)[name]["score"] > 0.15
        assert canaries(empty_rows, reliability_penalty=1.0)[name]["score"] < 0
    assert after[MOST_FREQUENT]["score"] <= before[MOST_FREQUENT]["score"]


def test_data_preparation_names_the_best_constant_policy_as_the_canaries_measure_it(empty_rows):
    rows = [row for row in empty_rows if row["reward_model"]["ground_truth"] != GOLD_FAILED]
    best = best_constant(Counter(row["reward_model"]["ground_truth"] for row in rows))
    earned = canaries(rows)
    assert best["accuracy"]["value"] == pytest.approx(max(values["acc"] for values in earned.values()))
    assert best["reward"]["value"] == pytest.approx(max(values["score"] for values in earned.values()))


@pytest.mark.parametrize("data", ["demo_rows", "real_rows"])
@pytest.mark.parametrize("weights", [{}, {"format_bonus": 0.05}, {"executed": 0.2}, {"answered_unanswerable": 0.0}])
def test_a_policy_that_tries_earns_more_than_any_canary(data, weights, request):
    rows = request.getfixturevalue(data)
    best = max(values["score"] for values in canaries(rows, **weights).values())
    assert answering(rows, accuracy=0.4, **weights) > best


def test_right_ranks_above_wrong_above_failing(demo_rows):
    answerable = [row for row in demo_rows if row["extra_info"]["answerable"]]
    for row in answerable:
        ranked = [score(row, text) for text in (row["extra_info"]["gold_sql"], WRONG, FAILS)]
        assert ranked == sorted(ranked, reverse=True)
        assert len(set(ranked)) == 3


@pytest.mark.parametrize(("penalty", "accuracy"), [(0.0, 0.3), (0.5, 0.6), (1.0, 0.8)])
def test_answering_at_base_accuracy_beats_always_abstaining(demo_rows, penalty, accuracy):
    """With RS(c) too, as long as the accuracy is above the break-even that the reward's docstring gives."""
    abstaining = canaries(demo_rows, reliability_penalty=penalty)["always abstains"]["score"]
    assert answering(demo_rows, accuracy, reliability_penalty=penalty) > abstaining


@pytest.mark.parametrize("penalty", [1.0, 5.0, 10.0])
def test_no_canary_but_abstention_gains_by_a_reliability_penalty(demo_rows, penalty):
    earned = canaries(demo_rows, reliability_penalty=penalty)
    assert all(values["score"] < 0 for name, values in earned.items() if name != "always abstains")
