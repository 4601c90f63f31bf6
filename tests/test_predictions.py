"""``evaluate --predictions`` and ``--write_predictions``: answers of other programs, and answers for another scorer."""

import json
import random
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from chat_server import choice, completion
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from official_scorer import OfficialScorer
from sql_mutations import predictions as mutated

from data_prep import build_ehr_db, make_demo_ecg, make_demo_ehr, make_demo_questions
from data_prep.common.errors import InputError
from data_prep.ecg_expert_qa import main as ecg_expert_qa
from recipes.evaluate import evaluate, parser
from recipes.evaluation import generation
from recipes.evaluation.generation import Response
from recipes.evaluation.predictions import NO_PREDICTION, predicted_responses
from recipes.tasks.ehrsql.canaries import POLICIES
from recipes.tasks.ehrsql.figures import Sample
from recipes.tasks.ehrsql.prediction_file import NO_ANSWER, write_predictions

IDS = ["a", "b", "c"]


def write(folder: Path, name: str, content) -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def lines(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# Files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("prediction.json", {"a": "SELECT 1", "c": "null"}),
        ("prediction.json", "\ufeff" + json.dumps({"a": "SELECT 1", "c": "null"})),
        ("some.jsonl", lines({"id": "c", "response": "null"}, {"id": "a", "sql": "SELECT 1"})),
        (
            "some.ndjson",
            "\ufeff\n" + lines({"id": "a", "response": "SELECT 1", "sql": "x"}, {"id": "c", "sql": "null"}) + "\n",
        ),
        (
            "results.json",
            {"config": {}, "samples": [{"id": "a", "response": "SELECT 1"}, {"id": "c", "response": "null"}]},
        ),
    ],
)
def test_the_forms_of_a_file(tmp_path, capsys, name, content):
    path = write(tmp_path, name, content)
    responses = predicted_responses(path, IDS, IDS)
    assert [response.text for response in responses] == ["SELECT 1", "", "null"]
    assert [response.finish_reason for response in responses] == ["unknown", NO_PREDICTION, "unknown"]
    expected = f"warning: 1 of 3 questions have no prediction in {path}, and count as answered wrongly"
    assert capsys.readouterr().err.splitlines() == [expected]


def test_results_keep_lengths_ends_and_further_answers(tmp_path):
    further = [{"response": "b", "response_tokens": 2, "acc": 1.0}, {"response": "c", "response_tokens": 3, "acc": 0.0}]
    sample = {"id": "a", "response": "x", "response_tokens": 9, "finish_reason": "length", "further": further}
    path = write(tmp_path, "results.json", {"samples": [sample]})
    others = Response("b", 2, "unknown"), Response("c", 3, "unknown")
    assert predicted_responses(path, ["a"], ["a"]) == [Response("x", 9, "length", further=others)]


def test_a_line_break_of_unicode_ends_no_line(tmp_path):
    path = write(
        tmp_path, "some.jsonl", json.dumps({"id": "a", "response": "x\u2028y\x85z"}, ensure_ascii=False) + "\n"
    )
    assert predicted_responses(path, ["a"], ["a"])[0].text == "x\u2028y\x85z"


def test_questions_that_were_not_drawn_may_have_predictions(tmp_path, capsys):
    path = write(tmp_path, "prediction.json", {id: id for id in IDS})
    assert [response.text for response in predicted_responses(path, ["b"], IDS)] == ["b"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "prediction.json",
            {"a": "x", "z1": "x", "z2": "x"},
            r"the data set lacks 2 of 3 ids, such as 'z1'; evaluate on",
        ),
        ("prediction.json", "{", "bad JSON"),
        ("prediction.json", '{"a": "x", "a": "y"}', "'a' occurs twice"),
        ("prediction.json", [], "no object of id and text; write one, or lines of JSON"),
        ("prediction.json", {"a": None}, "the prediction of 'a' is no text; write \"null\" to abstain"),
        ("prediction.json", {"a": ["SELECT 1"]}, "the prediction of 'a' is no text"),
        ("some.jsonl", lines({"id": "a", "sql": "x"}, {"id": "a", "sql": "y"}), "the id 'a' occurs twice; keep one"),
        ("some.jsonl", lines({"id": "a"}), "the prediction of 'a' is no text"),
        ("some.jsonl", lines({"id": "a", "response": None, "sql": "x"}), "the prediction of 'a' is no text"),
        ("some.jsonl", lines({"id": 7, "sql": "x"}), "a prediction has no id that is a text: .*7"),
        ("some.jsonl", lines(["a", "x"]), "a prediction has no id that is a text"),
        ("some.jsonl", lines({"id": "a", "sql": "x"}) + '{"id": "b"', "line 2 is no JSON"),
        ("some.jsonl", "[" * 100_000, "line 1 is no JSON"),
        ("results.json", {"samples": [{"response": "x"}]}, "a prediction has no id that is a text"),
        ("results.json", {"samples": [{"id": "a", "response": "x", "further": [3]}]}, "further answers of 'a'"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message) as raised:
        predicted_responses(write(tmp_path, name, content), IDS, IDS)
    assert str(raised.value).startswith(f"{tmp_path}") or str(raised.value).startswith(f"cannot read {tmp_path}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["absent.json", "absent.jsonl"])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(InputError, match=f"no file .*{name}; check the path"):
        predicted_responses(tmp_path / name, IDS, IDS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(IDS), st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_any_text_comes_back_as_it_was(tmp_path, texts):
    records = lines(*({"id": id, "response": text} for id, text in texts.items()))
    for path in (write(tmp_path, "p.json", texts), write(tmp_path, "p.jsonl", records)):
        responses = predicted_responses(path, IDS, IDS)
        assert [response.text for response in responses] == [texts.get(id, "") for id in IDS]


@pytest.mark.parametrize(("name", "content"), [("p.json", {}), ("p.jsonl", ""), ("p.json", {IDS[-1]: "null"})])
def test_a_file_without_any_prediction_for_the_questions_is_refused(tmp_path, name, content):
    with pytest.raises(InputError, match=f"{name} holds no prediction for any of the {len(IDS) - 1} questions"):
        predicted_responses(write(tmp_path, name, content), IDS[:-1], IDS)


# EHRSQL


@pytest.fixture(scope="module")
def hospital(tmp_path_factory) -> Path:
    """Questions with gold SQL, their database and a variant of it."""
    work = tmp_path_factory.mktemp("hospital")
    make_demo_ehr.main(["--out_dir", str(work / "tree"), "--patients", "60"])
    build_ehr_db.main(["--data_dir", str(work / "tree"), "--out_dir", str(work), "--variants", "1"])
    sizes = {"train": 400, "valid": 200, "test": 200}
    make_demo_questions.make_questions(work / "mimic_iv.sqlite", work / "questions", sizes)
    return work


DATABASES = ["mimic_iv.sqlite", "mimic_iv.variant1.sqlite"]


def labels(hospital: Path) -> dict[str, str]:
    return json.loads((hospital / "questions" / "test" / "label.json").read_text())


@pytest.fixture(autouse=True)
def no_model(monkeypatch):
    """Nothing here may load a model or a tokenizer."""

    def fail(*args, **options):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(generation.Generator, "__init__", fail)
    monkeypatch.setattr(generation, "load_tokenizer", fail)


def run(tmp_path, hospital, database, path, *more) -> Path:
    dataset = [
        "--dataset_path",
        str(hospital / "questions" / "test" / "data.json"),
        "--db_path",
        str(hospital / database),
    ]
    given = [*dataset, "--predictions", str(path), "--output_dir", str(tmp_path / "results"), *more]
    (folder,) = evaluate(parser().parse_args(given))
    return folder


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def accuracy(folder: Path) -> float:
    return results(folder)["summary"]["execution_accuracy"]["all questions"]["percent"]


@pytest.mark.parametrize("database", DATABASES)
def test_gold_is_right_on_every_database(tmp_path, hospital, database):
    label = hospital / "questions" / "test" / "label.json"
    folder = run(tmp_path, hospital, database, label, "--run_name", "gold")
    assert folder == tmp_path / "results" / "label" / "gold"
    assert accuracy(folder) == 100
    assert accuracy(run(tmp_path, hospital, database, folder / "results.json", "--model_name", "again")) == 100


@pytest.mark.parametrize("database", DATABASES)
@pytest.mark.parametrize("policy", ["empty", "always abstains", "SELECT 1"])
def test_degenerate_policies_earn_what_their_canaries_say(tmp_path, hospital, database, policy):
    texts = {id: POLICIES[policy]("?") for id in labels(hospital)}
    found = results(run(tmp_path, hospital, database, write(tmp_path, "policy.json", texts)))
    canary = found["summary"]["canaries"][policy]
    assert found["summary"]["execution_accuracy"]["all questions"]["percent"] == pytest.approx(100 * canary["acc"])
    scores = [sample["score"] for sample in found["samples"]]
    assert sum(scores) / len(scores) == pytest.approx(canary["score"])


def test_missing_predictions_count_as_empty_answers(tmp_path, hospital, capsys):
    texts = labels(hospital)
    answerable = [id for id, sql in texts.items() if sql != "null"]
    for id in answerable[:50]:
        del texts[id]
    folder = run(tmp_path, hospital, DATABASES[0], write(tmp_path, "some.json", texts))
    assert accuracy(folder) == pytest.approx(100 * (200 - 50) / 200)
    assert "warning: 50 of 200 questions have no prediction" in capsys.readouterr().err


def test_some_questions_of_a_whole_file(tmp_path, hospital, capsys):
    label = hospital / "questions" / "test" / "label.json"
    folder = run(tmp_path, hospital, DATABASES[0], label, "--num_samples", "20", "--model_name", "the label")
    assert folder.parent.name == "the label"
    assert len(results(folder)["samples"]) == 20 and accuracy(folder) == 100
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        *(["--max_response_length", "64"], ["--temperature", "0.0"], ["--further_answers", "2"]),
        *(["--further_temperature", "0.8"], ["--dtype", "float32"], ["--gpu_memory_utilization", "0.9"]),
        *(["--prompt", "full_schema"], ["--select"], ["--select_penalty", "5"], ["--tensor_parallel_size", "1"]),
        *(["--server", "http://127.0.0.1:8000/v1"], ["--allow_remote"], ["--server_concurrency", "8"]),
    ],
)
def test_options_of_generation_are_refused(tmp_path, hospital, option):
    with pytest.raises(InputError, match=f"{option[0]} has no effect with --predictions; leave it out"):
        run(tmp_path, hospital, DATABASES[0], tmp_path / "absent.json", *option)


def test_a_file_holds_one_model(tmp_path, hospital):
    with pytest.raises(InputError, match="--predictions holds the answers of one model"):
        run(tmp_path, hospital, DATABASES[0], tmp_path / "absent.json", "--model_name", "a", "b")


def test_the_record_names_no_option_without_effect(tmp_path, hospital):
    config = results(run(tmp_path, hospital, DATABASES[0], write(tmp_path, "p.json", labels(hospital))))["config"]
    assert config["predictions"] == str(tmp_path / "p.json")
    assert not {"temperature", "max_response_length", "prompt", "dtype", "server", "allow_remote"} & config.keys()


HOSTILE = [
    *("", " ", "-- nothing", "/* nothing */", "/* a */ null", "NULL", "null;", "null -- no such column"),
    *(
        "DELETE FROM patients",
        "DROP TABLE patients",
        "PRAGMA table_info(patients)",
        "EXPLAIN SELECT 1",
        "SELECT 1; SELECT 2",
    ),
    *(
        "SELECT x FROM patients",
        "no query at all",
        "```sql\n```",
        "```sql\n/* a */ null\n```",
        "SELECT '\x00'",
        "SELECT",
    ),
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "SELECT count(*) FROM patients -- all of them",
    "SELECT '--' || gender FROM patients /* each */ ORDER BY 1",
]


def guesses(golds: dict[str, str], rng: random.Random) -> list[str]:
    """A prediction for each question, made from its gold query where that is possible."""
    made: dict[str, list[str]] = {}
    for prediction, gold in mutated(sorted({*golds.values()} - {"null"}), 6 * len(golds), rng.randrange(100)):
        made.setdefault(gold, []).append(prediction)
    return [rng.choice(made.get(gold, ["null", "SELECT 1"])) for gold in golds.values()]


def official_verdicts(database: Path, golds: dict[str, str], written: dict[str, str]) -> dict[str, bool]:
    scorer = OfficialScorer(database)
    return {id: scorer.verdict(written[id], gold) for id, gold in golds.items()}


@pytest.mark.parametrize("database", DATABASES)
def test_the_official_scorer_gives_the_file_our_verdicts(tmp_path, hospital, database):
    golds, rng = labels(hospital), random.Random(0)
    texts = {
        id: rng.choice([gold, f"Here it is:\n```sql\n{gold}\n```", f"{gold} -- done", guess, rng.choice(HOSTILE)])
        for (id, gold), guess in zip(golds.items(), guesses(golds, rng), strict=True)
    }
    folder = run(tmp_path, hospital, database, write(tmp_path, "texts.json", texts), "--write_predictions")
    written = json.loads((folder / "prediction.json").read_text())
    assert list(written) == list(golds)  # the official scorer refuses a file with other ids
    ours = {sample["id"]: bool(sample["acc"]) for sample in results(folder)["samples"]}
    assert official_verdicts(hospital / database, golds, written) == ours
    assert 0.2 < sum(ours.values()) / len(ours) < 0.9
    again = run(tmp_path, hospital, database, folder / "prediction.json", "--model_name", "again")
    assert {sample["id"]: bool(sample["acc"]) for sample in results(again)["samples"]} == ours


def test_nothing_that_did_not_run_is_handed_to_another_scorer(tmp_path, hospital):
    golds = labels(hospital)
    texts = dict(zip(golds, HOSTILE, strict=False))
    path = write(tmp_path, "texts.json", {id: texts.get(id, "null") for id in golds})
    folder = run(tmp_path, hospital, DATABASES[0], path, "--write_predictions")
    written = json.loads((folder / "prediction.json").read_text())
    by_text = {text: written[id] for id, text in texts.items()}
    assert by_text["DELETE FROM patients"] == by_text["DROP TABLE patients"] == by_text[""] == NO_ANSWER
    assert by_text["SELECT count(*) FROM patients -- all of them"].strip() == "SELECT count(*) FROM patients"
    assert by_text["null -- no such column"] == "null"
    with (
        closing(sqlite3.connect(":memory:")) as database,
        pytest.raises(sqlite3.OperationalError, match="syntax error"),
    ):
        database.execute(NO_ANSWER)


def test_what_selection_withholds_is_an_abstention(tmp_path, hospital):
    label = hospital / "questions" / "test" / "label.json"
    samples = [Sample(**sample) for sample in results(run(tmp_path, hospital, DATABASES[0], label))["samples"]]
    answered = [sample for sample in samples if sample.answerable]
    write_predictions([replace(answered[0], withheld=True), replace(answered[1], withheld=False)], tmp_path / "p.json")
    written = json.loads((tmp_path / "p.json").read_text())
    assert written == {answered[0].id: "null", answered[1].id: answered[1].sql}


def test_the_official_scorer_agrees_on_real_questions(tmp_path, shared_data):
    folder = shared_data / "ehrsql2024"
    golds = json.loads((folder / "valid" / "label.json").read_text())
    texts = dict(zip(golds, guesses(golds, random.Random(2)), strict=True))
    given = ["--dataset_path", str(folder / "valid" / "data.json"), "--db_path", str(folder / "mimic_iv.sqlite")]
    given += ["--predictions", str(write(tmp_path, "texts.json", texts)), "--write_predictions"]
    (done,) = evaluate(parser().parse_args([*given, "--output_dir", str(tmp_path / "results")]))
    written = json.loads((done / "prediction.json").read_text())
    ours = {sample["id"]: bool(sample["acc"]) for sample in results(done)["samples"]}
    assert official_verdicts(folder / "mimic_iv.sqlite", golds, written) == ours
    assert 0.2 < sum(ours.values()) / len(ours) < 0.8


# ECG


@pytest.fixture(scope="module")
def ecg(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("ecg")
    make_demo_ecg.main(["--out_dir", str(work / "demo"), "--questions", "300"])
    ecg_expert_qa(["--data_dir", str(work / "demo"), "--out_dir", str(work / "parquet")])
    return work / "parquet" / "grpo_test.parquet"


def test_ecg_references_as_predictions_are_right(tmp_path, ecg):
    import pyarrow.parquet as pq

    from reward_fns.ecg_grader.reference import load_reference

    rows = pq.read_table(ecg).to_pylist()
    records = lines(
        *(
            {"id": row["extra_info"]["id"], "response": load_reference(row["reward_model"]["ground_truth"]).text}
            for row in rows
        )
    )
    given = ["--recipe", "ecg", "--dataset_path", str(ecg), "--output_dir", str(tmp_path / "results")]
    path = write(tmp_path, "references.jsonl", records)
    (folder,) = evaluate(parser().parse_args([*given, "--predictions", str(path)]))
    figures = results(folder)["summary"]["groups"]["all questions"]["figures"]
    assert figures["coverage"]["value"] == figures["ROUGE-L"]["value"] == 100
    assert figures["contradiction rate"]["value"] == 0
    (again,) = evaluate(
        parser().parse_args([*given, "--predictions", str(folder / "results.json"), "--run_name", "again"])
    )
    assert results(again)["samples"] == results(folder)["samples"]
    with pytest.raises(InputError, match="--write_predictions is of --recipe ehrsql"):
        evaluate(parser().parse_args([*given, "--predictions", str(path), "--write_predictions"]))


def test_ecg_by_a_server(tmp_path, ecg, server):
    text = "<think>Which leads?</think><answer>I do not know.</answer>"
    server.respond = lambda request: completion(choice(text))
    given = ["--recipe", "ecg", "--dataset_path", str(ecg), "--output_dir", str(tmp_path / "results")]
    (folder,) = evaluate(parser().parse_args([*given, "--server", server.url, "--num_samples", "5"]))
    assert [sample["answer"] for sample in results(folder)["samples"]] == ["I do not know."] * 5
    assert [request["messages"][0]["role"] for request in server.requests] == ["system"] * 5
