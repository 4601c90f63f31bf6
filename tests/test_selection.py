"""Selection from ``evaluate --select`` to the chat: what is chosen, refused, saved and withheld."""

import json
import math
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.common.errors import InputError
from recipes.chat_app.tasks import Reply
from recipes.evaluate import evaluate, parser
from recipes.evaluation.comparison import compare_with_first
from recipes.evaluation.generation import TOO_LONG, Response
from recipes.evaluation.results import read_run
from recipes.evaluation.selector import FILE, Selector, load_selector, save_selector
from recipes.evaluation.token_confidence import TokenConfidence
from recipes.tasks.ehrsql.chat import EhrsqlTask
from recipes.tasks.ehrsql.evaluation import grade_responses
from recipes.tasks.ehrsql.selection import select
from recipes.tasks.ehrsql.selection_fit import choose, fit, score_names
from reward_fns.sql.answers import ABSTAIN, canonical_answer

RIGHT, WRONG, BROKEN = (
    "SELECT count(*) FROM patients",
    "SELECT max(id) + 1 FROM patients",
    "SELECT nobody FROM patients",
)
SURE, FAIR, UNSURE = -0.01, -0.3, -0.9


@pytest.fixture
def db(tmp_path) -> Path:
    path = tmp_path / "ehr.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE patients (id INTEGER); INSERT INTO patients VALUES (1), (2);")
    return path


def row(id: str, db: Path, ground_truth: str) -> dict:
    info = {"id": id, "question": f"question {id}", "template": "", "seen_template": "seen", "db_path": str(db)}
    return {
        "data_source": "ehrsql",
        "prompt": [{"role": "user", "content": id}],
        "reward_model": {"ground_truth": ground_truth},
        "extra_info": info | {"answerable": ground_truth != ABSTAIN, "gold_sql": RIGHT},
    }


def response(text: str, logprob: float) -> Response:
    return Response(text, 3, "stop", TokenConfidence(logprob, logprob, 0.0, 0.0))


# By the kind of a question, with which its id begins: the right answer and the model's response.
TWO = canonical_answer([(2,)])
KINDS = {
    "sure": (TWO, response(RIGHT, SURE)),
    "fair": (TWO, response(RIGHT, FAIR)),
    "unfair": (TWO, response(WRONG, FAIR)),
    "unsure": (TWO, response(WRONG, UNSURE)),
    "broken": (TWO, response(BROKEN, 0.0)),  # more certain than any other
    "silent": (ABSTAIN, response("null", -3.0)),
    "invented": (ABSTAIN, response(WRONG, UNSURE)),
    "lost": (TWO, Response("", 0, TOO_LONG)),
}


def write(path: Path, db: Path, **numbers: int) -> Path:
    """A parquet file with so many questions of each kind."""
    ids = [f"{kind} {path.stem} {number}" for kind, count in numbers.items() for number in range(count)]
    pq.write_table(pa.Table.from_pylist([row(id, db, KINDS[id.split()[0]][0]) for id in ids]), path)
    return path


def respond(options):
    return lambda prompts: [KINDS[prompt[-1]["content"].split()[0]][1] for prompt in prompts]


@pytest.fixture
def test_set(tmp_path, db) -> Path:
    write(tmp_path / "valid.parquet", db, sure=6, unsure=4, broken=2, silent=2, invented=1)
    return write(tmp_path / "test.parquet", db, sure=4, unsure=2, broken=1, silent=1, invented=1, lost=1)


def run(tmp_path: Path, dataset: Path, *arguments: object, model: str = "org/model") -> Path:
    given = ["--model_name", model, "--dataset_path", dataset, "--output_dir", tmp_path / "results", *arguments]
    (folder,) = evaluate(parser().parse_args([*map(str, given)]), respond)
    return folder


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())["summary"]["selection"]


def test_a_whole_evaluation(tmp_path, test_set, capsys):
    folder = run(tmp_path, test_set, "--select")
    assert {path.name for path in folder.iterdir()} == {
        *("results.json", "evaluation.log", "risk_coverage.png", "calibration.png")
    }
    assert (folder / "risk_coverage.png").read_bytes().startswith(b"\x89PNG")
    results = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert results["config"]["select"] == str(tmp_path / "valid.parquet")
    kinds = {sample["id"].split()[0]: sample["withheld"] for sample in results["samples"]}
    assert kinds == {
        **{"sure": False, "silent": False},
        **{"unsure": True, "invented": True, "broken": True, "lost": True},
    }
    selection = results["summary"]["selection"]
    assert (selection["score"], selection["threshold"], selection["penalty"]) == ("logprob_mean", SURE, 10)
    valid = selection["valid"]
    assert valid["questions"] == 15
    # 6 answers and 2 abstentions are right of 15; without selection 7 more are wrong.
    assert valid["reliability"] == pytest.approx({"all": 100 * (8 - 70) / 15, "selected": 100 * 9 / 15})
    assert valid["scores"]["logprob_mean"] == pytest.approx(60)
    # Of 10 questions 4 answers and an abstention are right, 5 answers are wrong; one of them becomes right by silence.
    reliability = {name: (each["all"], each["selected"]) for name, each in selection["reliability"].items()}
    assert reliability == {
        "RS(0)": pytest.approx((50, 60)),
        "RS(5)": pytest.approx((-200, 60)),
        "RS(10)": pytest.approx((-450, 60)),
        "RS(N)": pytest.approx((-450, 60)),
    }
    assert selection["abstaining"] == pytest.approx(20)
    assert selection["coverage"] == pytest.approx({"all": 90, "selected": 40})
    assert selection["risk"] == pytest.approx({"all": 500 / 9, "selected": 0})
    assert selection["coverage_at_risk"] == pytest.approx({"5": 40, "10": 40})
    # The areas at the answers: no risk at the 4 right ones, 3/7 at the 3 that are unsure, 5/9 at those without result.
    assert selection["aurc"]["value"] == pytest.approx(100 * (3 * 3 / 7 + 2 * 5 / 9) / 9)
    # 9 of 10 questions: 8 with a result or an abstention, and half of the other two is wrong.
    assert selection["hcacc_90"] == pytest.approx(100 * 5 / 9)
    printed = capsys.readouterr().out
    assert "answers are withheld where logprob_mean is below -0.01" in printed
    assert "org/model is no folder of weights" in printed
    log = (folder / "evaluation.log").read_text()
    assert "wrong among these, % (risk)" in log and log.count("withheld: not certain enough") == 5


def test_other_runs_are_compared_by_the_selected_answers_where_all_have_them(tmp_path, test_set):
    selected, plain = (
        read_run(run(tmp_path, test_set, *options, "--run_name", name))
        for name, options in (("a", ["--select"]), ("b", []))
    )
    figures = compare_with_first({"x": selected, "y": selected})["y"]
    assert figures["RS(10), selected"]["value"] == pytest.approx(60)
    assert figures["RS(10)"]["value"] == pytest.approx(-450)
    assert "RS(10), selected" not in compare_with_first({"x": selected, "y": plain})["y"]
    assert compare_with_first({"x": plain, "y": plain})["y"]["RS(10), selected"]["questions"] == 0


@pytest.mark.parametrize(("penalty", "threshold"), [(3, FAIR), (5, SURE)])
def test_the_threshold_depends_on_the_penalty(tmp_path, db, test_set, penalty, threshold):
    valid = write(tmp_path / "four_of_five.parquet", db, sure=2, fair=4, unfair=1)
    folder = run(tmp_path, test_set, "--select", valid, "--select_penalty", penalty)
    assert summary_of(folder)["threshold"] == threshold


def test_the_threshold_does_not_depend_on_the_test_questions(tmp_path, db, test_set):
    other = write(tmp_path / "other.parquet", db, unsure=9)
    chosen = [
        {name: summary[name] for name in ("score", "weights", "threshold", "valid")}
        for summary in (
            summary_of(run(tmp_path, dataset, "--select", tmp_path / "valid.parquet", "--run_name", dataset.stem))
            for dataset in (test_set, other)
        )
    ]
    assert chosen[0] == chosen[1]


def test_all_validation_questions_choose_whatever_the_number_of_test_questions(tmp_path, test_set):
    assert summary_of(run(tmp_path, test_set, "--select", "--num_samples", "7"))["valid"]["questions"] == 15


def test_the_table_has_the_rs_that_the_choice_is_made_by(tmp_path, test_set):
    summary = summary_of(run(tmp_path, test_set, "--select", "--select_penalty", "2"))
    assert list(summary["reliability"])[:2] == ["RS(2)", "RS(0)"]


def test_the_valid_split_of_a_data_json(tmp_path, db):
    for split, kinds in {"test": ["sure", "unsure"], "valid": ["sure", "unsure", "silent"]}.items():
        folder = tmp_path / "questions" / split
        folder.mkdir(parents=True)
        questions = [{"id": f"{kind} {split}", "question": f"{kind} {split}"} for kind in kinds]
        (folder / "data.json").write_text(json.dumps({"version": "1", "data": questions}))
        labels = {each["id"]: "null" if each["id"].startswith("silent") else RIGHT for each in questions}
        (folder / "label.json").write_text(json.dumps(labels))
    dataset = tmp_path / "questions" / "test" / "data.json"
    folder = run(tmp_path, dataset, "--db_path", db, "--prompt", "question_only", "--select")
    assert summary_of(folder)["valid"]["questions"] == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--select", "{tmp}/test.parquet"], "test.parquet holds 10 of the questions of"),
        (["--select", "{tmp}/absent.parquet"], "no validation questions at {tmp}/absent.parquet"),
        (["--select", "{tmp}/ehr.sqlite"], "cannot evaluate on {tmp}/ehr.sqlite"),
        (["--select_penalty", "5"], "--select_penalty is of --select"),
        (["--select", "--select_penalty", "-1"], "--select_penalty is -1"),
        (["--recipe", "ecg", "--select"], "--select is of --recipe ehrsql"),
    ],
)
def test_what_cannot_be_selected_by_is_refused(tmp_path, test_set, arguments, message):
    with pytest.raises(InputError) as error:
        run(tmp_path, test_set, *(argument.format(tmp=tmp_path) for argument in arguments))
    assert message.format(tmp=tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_the_validation_file_itself_or_none_beside_the_dataset_is_refused(tmp_path, test_set):
    with pytest.raises(InputError, match=r"valid\.parquet holds 15 of the questions of .*valid\.parquet"):
        run(tmp_path, tmp_path / "valid.parquet", "--select")
    (tmp_path / "valid.parquet").unlink()
    with pytest.raises(InputError, match="no validation questions at"):
        run(tmp_path, test_set, "--select")


# What is chosen


def samples(db: Path, scored: list[tuple[bool, dict[str, float]]]):
    """Answers that are right or not, with their scores."""
    rows = [row(str(number), db, TWO) for number in range(len(scored))]
    graded = grade_responses(rows, [Response(RIGHT if right else WRONG, 1, "stop") for right, _ in scored])
    return [replace(sample, confidence=scores) for sample, (_, scores) in zip(graded, scored, strict=True)]


def test_several_scores_are_combined_only_where_that_is_better_for_sure(db):
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(2, 300))
    together = samples(
        db, [(a + b > 0, {"a": a, "b": b}) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    )
    selector, compared = choose(together, ["a", "b"], 10, 0)
    assert selector.name == "combination of scores" and compared["combination"]["low"] > 0
    assert selector.weights["a"] == pytest.approx(selector.weights["b"], rel=0.3)
    alone = samples(db, [(a > 0, {"a": a, "b": b}) for a, b in zip(first.tolist(), second.tolist(), strict=True)])
    selector, compared = choose(alone, ["a", "b"], 10, 0)
    assert selector.weights == {"a": 1.0} and compared["combination"]["low"] <= 0
    assert selector.threshold > 0


def test_the_probability_is_about_how_often_such_answers_are_right(db):
    draw = np.random.default_rng(0)
    scores = draw.normal(size=2000)
    right = draw.random(2000) < 1 / (1 + np.exp(-3 * scores + 1))
    selector = fit(samples(db, [(bool(r), {"a": s}) for r, s in zip(right, scores.tolist(), strict=True)]), ["a"], 10)
    assert selector.probability(1.0) == pytest.approx(1 / (1 + math.exp(-2)), abs=0.05)
    assert selector.probability(-math.inf) == 0


@pytest.mark.parametrize(("right", "threshold"), [(True, 0.5), (False, math.inf)])
def test_answers_that_are_all_right_or_all_wrong(db, right, threshold):
    graded = samples(db, [(right, {"a": 0.5, "b": 1.0})] * 3)
    selector, _ = choose(graded, ["a", "b"], 10, 0)
    assert (selector.weights, selector.threshold) == ({"a": 1.0}, threshold)
    assert selector.probability(0.5) == pytest.approx(0.8 if right else 0.2)
    summary = select(graded, graded, None, 0).summary
    assert json.loads(json.dumps(summary), parse_constant=pytest.fail)["risk"]["selected"] == (0 if right else None)


def test_a_score_that_some_answer_lacks_is_not_used(db):
    graded = samples(db, [(True, {"a": 0.5, "b": 1.0}), (False, {"b": 0.0})])
    assert score_names(graded) == ["b"]
    assert Selector({"a": -1.0, "b": 1.0}, 0.0, 1.0, 0.0).confidence({"b": 1.0}) == -math.inf


def test_a_chat_gets_scores_that_it_has(db):
    agreeing = [(number % 2 == 0, {"agreement": float(number % 2 == 0), "a": number / 100}) for number in range(40)]
    selection = select(samples(db, agreeing), samples(db, agreeing), None, 0)
    assert selection.summary["score"] == "agreement"
    assert selection.chat.weights == {"a": 1.0}
    assert selection.facts == {"score": "a", "penalty": 10.0, "valid_questions": 40}


# What is saved


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 5000)
    return folder


SELECTOR = Selector({"logprob_mean": 1.0}, SURE, 2.0, 0.5)


def test_a_selector_is_saved_with_the_model(tmp_path, test_set, model, capsys):
    run(tmp_path, test_set, "--select", model=str(model))
    assert f"Wrote {model / FILE}, which the chat reads" in capsys.readouterr().out
    content = json.loads((model / FILE).read_text())
    assert (content["score"], content["valid_questions"]) == ("logprob_mean", 15)
    selector = load_selector(str(model))
    assert (selector.weights, selector.threshold) == ({"logprob_mean": 1.0}, SURE)


@pytest.mark.parametrize("threshold", [0.1 + 0.2, math.inf, -math.inf])
def test_what_is_read_is_what_was_saved(model, threshold):
    selector = replace(SELECTOR, threshold=threshold)
    assert save_selector(selector, str(model), {}) == model / FILE
    assert load_selector(str(model)) == selector


def test_a_selector_of_other_weights_is_refused(model):
    save_selector(SELECTOR, str(model), {})
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[:640_000] + bytes(10_000) + weights[650_000:])
    with pytest.raises(InputError, match=r"selection\.json was made for other weights; evaluate again with --select"):
        load_selector(str(model))
    (model / "model.safetensors").write_bytes(weights)
    assert load_selector(str(model)) == SELECTOR
    (model / "model-2.safetensors").write_bytes(b"more")
    with pytest.raises(InputError, match="other weights"):
        load_selector(str(model))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weights": 1}', '{"weights": {"a": "x"}}'])
def test_a_damaged_file_is_refused(model, content):
    (model / FILE).write_text(content)
    with pytest.raises(InputError, match=r"selection\.json"):
        load_selector(str(model))


def test_a_folder_without_weights_gets_no_selector(tmp_path):
    assert save_selector(SELECTOR, "org/model", {}) is None
    assert save_selector(SELECTOR, str(tmp_path), {}) is None
    assert load_selector("org/model") is None


# What a chat withholds


@pytest.mark.parametrize(
    ("text", "logprob", "shown"),
    [
        (RIGHT, SURE, "1 row"),
        (RIGHT, UNSURE, "I would rather not answer: logprob_mean is -0.9, below the threshold -0.01; such a query is "
         "right with a probability of about 21%."),
        (BROKEN, SURE, "the query gives no result"),
        ("null", -9.0, "The model abstains"),
    ],
)  # fmt: skip
def test_a_chat_shows_no_result_that_it_is_not_certain_of(db, text, logprob, shown):
    reply = Reply(text, text, TokenConfidence(logprob, logprob, 0.0, 0.0), SELECTOR)
    (piece,) = EhrsqlTask("question_only", db).conclude(reply)
    assert piece.text.startswith(shown)
    assert bool(piece.rows) == (shown == "1 row")


def test_a_chat_without_a_selector_shows_all(db):
    (piece,) = EhrsqlTask("question_only", db).conclude(Reply(RIGHT, RIGHT))
    assert piece.rows == (("2",),)
