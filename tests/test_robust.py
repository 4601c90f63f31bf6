"""Robust execution accuracy: which answers are right by luck, on a small pair of databases and on the demo."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import build_ehr_db, make_demo_ehr, make_demo_questions
from data_prep.common.errors import InputError
from recipes.evaluate import evaluate, parser
from recipes.evaluation.generation import Response
from recipes.tasks.ehrsql.pipeline import DATABASE_OPTIONS
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, canonical_answer
from reward_fns.sql.text import NOW

PATIENTS = "SELECT count(DISTINCT subject_id) FROM visits WHERE kind = 'er'"
VISITS = "SELECT count(*) FROM visits WHERE kind = 'er'"
INTENSIVE = "SELECT subject_id FROM visits WHERE kind = 'icu'"
FIRST = "SELECT min(subject_id) FROM visits WHERE kind = 'icu'"
DRUGS = "SELECT name FROM drugs"

# id -> gold SQL, its answer on the database, whether the template is seen.
QUESTIONS = {
    "patients": (PATIENTS, canonical_answer([(2,)]), "seen"),
    "intensive": (INTENSIVE, canonical_answer([(3,)]), "seen"),
    "first": (FIRST, canonical_answer([(3,)]), "unseen"),
    "drugs": (DRUGS, canonical_answer([("aspirin",)]), "unseen"),
    "shoes": ("null", ABSTAIN, "unknown"),
    "gone": ("SELECT a FROM dropped", GOLD_FAILED, "seen"),
}
GOLD = {id: sql for id, (sql, _, _) in QUESTIONS.items()}


def make_database(path: Path, visits: list[tuple], *more: str) -> Path:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE visits (subject_id INTEGER, kind TEXT)")
        database.executemany("INSERT INTO visits VALUES (?, ?)", visits)
        database.executescript("; ".join(more))
        database.commit()
    return path


@pytest.fixture
def db(tmp_path) -> Path:
    drugs = "CREATE TABLE drugs (name TEXT)", "INSERT INTO drugs VALUES ('aspirin')"
    return make_database(tmp_path / "ehr.sqlite", [(1, "er"), (2, "er"), (3, "icu")], *drugs)


@pytest.fixture
def twice(tmp_path) -> Path:
    """Patient 7 came twice. Nobody was in intensive care, and there is no table of drugs."""
    return make_database(tmp_path / "variant1.sqlite", [(7, "er"), (7, "er"), (8, "er"), (9, "er")])


@pytest.fixture
def intensive(tmp_path) -> Path:
    """Another patient was in intensive care; the ER had as many patients as in the database."""
    return make_database(tmp_path / "variant2.sqlite", [(1, "er"), (2, "er"), (5, "icu")])


@pytest.fixture
def dataset(tmp_path, db) -> Path:
    rows = [
        {
            "data_source": "ehrsql",
            "prompt": [{"role": "user", "content": id}],
            "reward_model": {"style": "rule", "ground_truth": ground_truth},
            "extra_info": {
                **{"id": id, "question": f"question about {id}", "template": id, "seen_template": seen},
                **{"answerable": gold != "null", "db_path": str(db), "gold_sql": gold, "timeout_s": 5.0},
            },
        }
        for id, (gold, ground_truth, seen) in QUESTIONS.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    return tmp_path / "test.parquet"


def run(dataset: Path, policy: dict[str, str], *variants: Path, db: Path | None = None) -> Path:
    """Evaluate a policy, the texts by the prompts; the results are in a new folder beside ``dataset``."""

    def respond(options):
        return lambda prompts: [Response(policy[prompt[-1]["content"]], 1, "stop") for prompt in prompts]

    folder = dataset.parent / "results"
    given = ["--model_name", "org/model", "--dataset_path", str(dataset), "--output_dir", str(folder)]
    given += ["--run_name", f"run_{len(list(folder.glob('*/*')))}"]
    given += ["--variants", *map(str, variants)] if variants else []
    given += ["--db_path", str(db)] if db else []
    (written,) = evaluate(parser().parse_args(given), respond)
    return written


def results(folder: Path) -> tuple[dict, dict[str, dict]]:
    """The summary, and the verdicts on the variants by question."""
    written = json.loads((folder / "results.json").read_text())
    return written["summary"], {sample["id"]: sample["variants"] for sample in written["samples"]}


def percents(robust: dict) -> dict[str, float]:
    return {name: figure["percent"] for name, figure in robust["accuracy"].items()}


def test_gold_is_robust(dataset, twice, intensive):
    summary, verdicts = results(run(dataset, GOLD, twice, intensive))
    robust = summary["robust"]
    assert set(percents(robust).values()) == {100}
    assert robust["accuracy"]["all questions"]["questions"] == 5
    assert robust["variants"]["variant1.sqlite"] == {"questions": 2, "percent": 100, "low": 100, "high": 100}
    assert robust["variants"]["variant2.sqlite"]["questions"] == 4
    assert (robust["right_by_luck"], robust["examples"], robust["judged_on_one"]) == (0, [], 1)
    # Where gold is empty, NULL or fails, a variant says nothing.
    assert verdicts["intensive"] == verdicts["first"] == {"variant1.sqlite": None, "variant2.sqlite": True}
    assert verdicts["drugs"] == {"variant1.sqlite": None, "variant2.sqlite": None}
    assert verdicts["shoes"] == {"variant1.sqlite": True, "variant2.sqlite": True}


def test_what_is_right_by_luck_is_told_from_what_is_right(dataset, twice, intensive, capsys):
    lucky = GOLD | {"patients": VISITS, "intensive": "SELECT 3", "first": "SELECT 4", "drugs": "SELECT 'aspirin'"}
    folder = run(dataset, lucky, twice, intensive)
    summary, verdicts = results(folder)
    assert verdicts["patients"] == {"variant1.sqlite": False, "variant2.sqlite": True}
    assert verdicts["intensive"] == {"variant1.sqlite": None, "variant2.sqlite": False}
    plain = {name: figure["percent"] for name, figure in summary["execution_accuracy"].items()}
    assert plain == {"seen templates": 100, "unseen templates": 50, "all answerable": 75, "all questions": 80}
    robust = summary["robust"]
    assert percents(robust) == {"seen templates": 0, "unseen templates": 50, "all answerable": 25, "all questions": 40}
    assert robust["accuracy"]["all questions"]["low"] == 0
    # A wrong answer is not lucky, and a constant is not found out where no variant says anything.
    assert (robust["right_by_luck"], robust["examples"], robust["judged_on_one"]) == (2, ["patients", "intensive"], 1)
    log = (folder / "evaluation.log").read_text()
    assert log.count("by luck:  wrong on ") == 2
    assert "by luck:  wrong on variant1.sqlite\n" in log and "right by luck, for example: patients, intensive" in log
    assert "Robust accuracy: right on 2 variants" in capsys.readouterr().out


def test_an_answer_to_an_unanswerable_question_is_wrong_everywhere(dataset, twice):
    summary, verdicts = results(run(dataset, GOLD | {"shoes": "SELECT 1"}, twice))
    assert verdicts["shoes"] == {"variant1.sqlite": False}
    assert summary["robust"]["right_by_luck"] == 0
    assert percents(summary["robust"])["all questions"] == 80


def test_at_most_ten_examples_are_named(tmp_path, db, twice):
    labels = {f"How many patients came to the ER, asked for the {number}th time?": PATIENTS for number in range(12)}
    questions = [{"id": text, "question": text} for text in labels]
    (tmp_path / "data.json").write_text(json.dumps({"version": "1", "data": questions}))
    (tmp_path / "label.json").write_text(json.dumps(labels))
    robust = results(run(tmp_path / "data.json", dict.fromkeys(labels, VISITS), twice, db=db))[0]["robust"]
    assert robust["right_by_luck"] == 12 and robust["examples"] == list(labels)[:10]


def test_without_variants_nothing_is_said_of_luck(dataset, capsys):
    folder = run(dataset, GOLD)
    summary, verdicts = results(folder)
    assert "robust" not in summary and set(map(str, verdicts.values())) == {"{}"}
    assert "luck" not in (folder / "evaluation.log").read_text() + capsys.readouterr().out


def test_bad_variants_are_one_line(tmp_path, dataset, db, twice):
    link, text, birds = tmp_path / "link.sqlite", tmp_path / "text.sqlite", tmp_path / "birds.sqlite"
    link.symlink_to(db)
    text.write_text("no database")
    with closing(sqlite3.connect(birds)) as database:
        database.execute("CREATE TABLE birds (name TEXT)")
    (tmp_path / "other").mkdir()
    same_name = make_database(tmp_path / "other" / twice.name, [])
    copy = shutil.copy(db, tmp_path / "copy.sqlite")
    for variants, message in {
        (tmp_path / "absent.sqlite",): r"no database at .*absent\.sqlite",
        (text,): r"cannot read .*text\.sqlite as a SQLite database",
        (link,): r"--variants .*link\.sqlite is the database of the questions",
        (twice, twice): r"--variants names .*variant1\.sqlite twice",
        (twice, same_name): r"--variants names two files variant1\.sqlite",
        (copy,): r"--variants .*copy\.sqlite is the database of the questions, or a copy",
        (birds,): r"every gold query fails on .*birds\.sqlite",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            run(dataset, GOLD, *variants)
        assert "\n" not in str(error.value)
    assert not list((tmp_path / "results").rglob("*"))


def test_questions_without_gold_sql_are_refused(dataset, twice):
    rows = pq.read_table(dataset).to_pylist()
    rows[1]["extra_info"]["gold_sql"] = ""
    pq.write_table(pa.Table.from_pylist(rows), dataset)
    with pytest.raises(InputError, match=r"test\.parquet lacks the gold SQL of 1 of 6 questions"):
        run(dataset, GOLD, twice)


def test_variants_are_of_ehrsql(dataset, twice):
    options = ["--recipe", "ecg", "--model_name", "m", "--dataset_path", str(dataset), "--output_dir", "results"]
    with pytest.raises(InputError, match="--variants is of --recipe ehrsql"):
        evaluate(parser().parse_args([*options, "--variants", str(twice)]))


# The demo and the variants that data preparation makes of it.


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("demo")
    make_demo_ehr.main(["--out_dir", str(work / "tree")])
    build = ["--data_dir", str(work / "tree"), "--out_dir", str(work), "--variants", "2", *DATABASE_OPTIONS]
    build_ehr_db.main(build)
    sizes = {"train": 400, "valid": 50, "test": 200}
    make_demo_questions.make_questions(work / "mimic_iv.sqlite", work / "questions", sizes)
    return work


def demo_figures(demo: Path, policy: dict[str, str]) -> dict:
    """The summary of a policy, the texts by the questions."""
    variants = [demo / f"mimic_iv.variant{number}.sqlite" for number in (1, 2)]
    questions = demo / "questions" / "test" / "data.json"
    return results(run(questions, policy, *variants, db=demo / "mimic_iv.sqlite"))[0]


@pytest.fixture(scope="module")
def labels(demo) -> dict[str, str]:
    """Gold SQL by question."""
    by_id = json.loads((demo / "questions" / "test" / "label.json").read_text())
    data = json.loads((demo / "questions" / "test" / "data.json").read_text())["data"]
    return {question["question"]: by_id[question["id"]] for question in data}


def test_the_variants_of_the_demo_are_at_the_same_current_time(demo):
    for name in ("mimic_iv", "mimic_iv.variant1", "mimic_iv.variant2"):
        with closing(sqlite3.connect(demo / f"{name}.sqlite")) as database:
            ((first, last),) = database.execute("SELECT min(charttime), max(charttime) FROM labevents")
            ((current,),) = database.execute("SELECT count(*) FROM admissions WHERE dischtime IS NULL")
        assert "2100-01-01" <= first < last <= NOW
        assert current > 0


def test_gold_is_robust_on_the_demo(demo, labels):
    robust = demo_figures(demo, labels)["robust"]
    assert set(percents(robust).values()) == {100}
    assert {figure["percent"] for figure in robust["variants"].values()} == {100}
    assert robust["right_by_luck"] == 0


def test_the_right_answers_as_constants_are_right_by_luck_on_the_demo(demo, labels):
    def constant(sql: str) -> str:
        if sql == ABSTAIN:
            return sql
        with closing(sqlite3.connect(demo / "mimic_iv.sqlite")) as database:
            rows = database.execute(sql.replace("current_time", f"'{NOW}'")).fetchall()
        texts = ("'" + str(cell).replace("'", "''") + "'" for row in rows for cell in row)
        return " UNION ALL ".join(f"SELECT {text}" for text in texts)

    summary = demo_figures(demo, {question: constant(sql) for question, sql in labels.items()})
    assert summary["execution_accuracy"]["all answerable"]["percent"] > 90
    assert summary["robust"]["accuracy"]["all answerable"]["percent"] < 40
