"""The synthetic tree and the demo questions: what the recipes rely on when they run on the demo."""

import csv
import gzip
import json
import random
import sqlite3
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest

from data_prep import build_ehr_db, make_demo_ehr, make_demo_questions
from data_prep.common.errors import InputError
from data_prep.demo.records import vocabulary
from data_prep.demo.sql_sampler import answerable_templates, unanswerable_templates
from data_prep.sql.misreadings import misread
from data_prep.sql.source import SPLITS, read_split, sql_skeleton
from reward_fns.sql.answers import canonical_answer
from reward_fns.sql.text import clean_up

SIZES = {"train": 600, "valid": 100, "test": 300}
EVENT_TABLES = {
    *("patients", "admissions", "transfers", "diagnoses_icd", "procedures_icd", "labevents", "prescriptions", "cost"),
    *("microbiologyevents", "icustays", "chartevents", "inputevents", "outputevents"),
}


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def header(path: Path) -> list[str]:
    with gzip.open(path, "rt") as lines:
        return next(csv.reader(lines))


def annotated(questions: Path, split: str) -> list[dict]:
    return json.loads((questions / split / "annotated.json").read_text())


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "tree"
    make_demo_ehr.main(["--out_dir", str(folder), "--patients", "70"])
    return folder


@pytest.fixture(scope="module")
def db(tree: Path) -> Path:
    options = {"data_dir": tree, "out_dir": tree.parent / "db", "num_patient": 60, "cur_patient_ratio": 0.1}
    shift = {"current_time": "2100-12-31 23:59:00", "start_year": 2100, "time_span": 0}
    build_ehr_db.main(["--timeshift", *(f"--{name}={value}" for name, value in (options | shift).items())])
    return tree.parent / "db" / "mimic_iv.sqlite"


@pytest.fixture(scope="module")
def questions(db: Path) -> Path:
    folder = db.parent.parent / "questions"
    make_demo_questions.make_questions(db, folder, SIZES)
    return folder


@pytest.fixture
def rows(db: Path):
    connection = sqlite3.connect(f"file:{db}?mode=ro", uri=True)
    yield lambda sql: connection.execute(clean_up(sql)).fetchall()
    connection.close()


# The tree


def test_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_demo_ehr.make_tree(tmp_path / name, patients=6, seed=seed)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert files_of(tmp_path / "a") != files_of(tmp_path / "c")


def test_columns_are_those_of_mimic_iv(tree, shared_data):
    """The copy at hand may have dropped columns of the largest files, so its header is a part of ours, in order."""
    real = sorted((shared_data / "mimic_iv_demo").rglob("*.csv.gz"))
    assert len(real) == 16
    for path in real:
        ours = header(tree / path.relative_to(shared_data / "mimic_iv_demo"))
        assert [column for column in ours if column in header(path)] == header(path)


def test_no_id_of_a_real_patient(tree):
    """MIMIC-IV's subject ids lie between 10,000,000 and 19,999,999."""
    with gzip.open(tree / "hosp/patients.csv.gz", "rt") as lines:
        patients = list(csv.DictReader(lines))
    assert len({row["subject_id"] for row in patients}) == 70
    assert all(row["subject_id"].startswith("90") for row in patients)
    assert all(18 <= int(row["anchor_age"]) <= 91 for row in patients)


def test_every_table_has_rows_and_the_year_keeps_most_events(tree, db, rows):
    tables = [name for (name,) in rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert len(tables) == 17
    assert all(rows(f"SELECT COUNT(*) FROM {table}")[0][0] for table in tables)
    with gzip.open(tree / "hosp/labevents.csv.gz", "rt") as lines:
        drawn = Counter(int(row["hadm_id"]) for row in csv.DictReader(lines))
    kept = Counter(dict(rows("SELECT hadm_id, COUNT(*) FROM labevents GROUP BY hadm_id")))
    cohort = {hadm for (hadm,) in rows("SELECT hadm_id FROM admissions")}
    assert sum(kept.values()) > 0.85 * sum(count for hadm, count in drawn.items() if hadm in cohort)


def test_current_patients_can_be_drawn(rows):
    assert rows("SELECT COUNT(DISTINCT subject_id) FROM admissions WHERE dischtime IS NULL")[0][0] >= 6
    assert rows("SELECT COUNT(*) FROM patients")[0][0] == 60


def test_no_word_of_the_vocabulary_is_lost_in_the_database(rows):
    """A label that occurs in several tables is kept in one of them only; the vocabulary must avoid that."""
    labels = [label for (label,) in rows("SELECT label FROM d_labitems")]
    assert sorted(labels) == sorted(entry[1].lower() for entry in vocabulary()["labs"])
    items = {label for (label,) in rows("SELECT label FROM d_items")}
    assert items == {entry[1].lower() for kind in ("vitals", "inputs", "outputs") for entry in vocabulary()[kind]}
    drugs = {drug for (drug,) in rows("SELECT drug FROM prescriptions")}
    assert len({entry[0].lower() for entry in vocabulary()["drugs"]} - drugs) <= 2
    for table, kind in (("d_icd_diagnoses", "diagnoses"), ("d_icd_procedures", "procedures")):
        assert rows(f"SELECT COUNT(*) FROM {table}")[0][0] == len(vocabulary()[kind])


def read_rows(folder: Path, name: str) -> list[dict]:
    with gzip.open(folder / f"{name}.csv.gz", "rt") as lines:
        return list(csv.DictReader(lines))


def test_scaled_copies_are_equal_but_for_ids_that_no_other_copy_has(tmp_path):
    make_demo_ehr.make_tree(tmp_path / "one", patients=5)
    counts = make_demo_ehr.make_tree(tmp_path / "many", patients=5, scale=12)
    for name, count in counts.items():
        one, many = read_rows(tmp_path / "one", name), read_rows(tmp_path / "many", name)
        assert len(many) == count == len(one) * (1 if "/d_" in name else 12)
        ids = make_demo_ehr.OWN_IDS & set(one[0])
        values = [{column: cell for column, cell in row.items() if column not in ids} for row in one]
        assert [{column: row[column] for column in values[0]} for row in many] == values * (len(many) // len(one))
        for column in ids:
            assert len({row[column] for row in many}) == 12 * len({row[column] for row in one})
    stays = {row["stay_id"]: row["hadm_id"] for row in read_rows(tmp_path / "many", "icu/icustays")}
    assert all(stays[row["stay_id"]] == row["hadm_id"] for row in read_rows(tmp_path / "many", "icu/chartevents"))


# The templates


def test_templates_and_paraphrases():
    templates = answerable_templates()
    assert len(templates) >= 60
    assert 12 <= sum(template.unseen for template in templates) <= 15
    paraphrases = [question for template in templates + unanswerable_templates() for question in template.questions]
    assert len(set(paraphrases)) == len(paraphrases)
    assert all(len(template.questions) >= 3 for template in templates + unanswerable_templates())
    assert (
        len({template.name for template in templates})
        == len({template.sql for template in templates})
        == len(templates)
    )
    used = {word for template in templates for word in template.sql.split()}
    assert used >= EVENT_TABLES


# The questions


@pytest.mark.parametrize("split", SPLITS)
def test_split_has_its_size_and_a_tenth_is_unanswerable(questions, split):
    items = read_split(questions / split)
    assert len(items) == SIZES[split]
    assert sum(not item.answerable for item in items) == SIZES[split] // 10


@pytest.mark.parametrize("split", SPLITS)
def test_gold_gives_the_stored_answer_which_is_not_empty(questions, rows, split):
    labels = json.loads((questions / split / "label.json").read_text())
    answers = json.loads((questions / split / "answer.json").read_text())
    assert labels.keys() == answers.keys()
    for id, sql in labels.items():
        if sql == "null":
            assert answers[id] == "null"
            continue
        result = rows(sql)
        assert str(json.loads(canonical_answer(result))) == answers[id]
        assert result and all(len(row) == 1 and row[0] is not None for row in result)


@pytest.mark.parametrize(
    "table, time",
    [
        ("labevents", "charttime"),
        ("inputevents", "starttime"),
        ("outputevents", "charttime"),
        ("chartevents", "charttime"),
    ],
)
def test_first_and_last_measurement_are_unambiguous(rows, table, time):
    assert not rows(f"SELECT 1 FROM {table} GROUP BY subject_id, itemid, {time} HAVING COUNT(*) > 1")


@pytest.mark.parametrize("split", SPLITS)
def test_no_constant_answer_is_right_often(questions, split):
    answers = json.loads((questions / split / "answer.json").read_text()).values()
    answerable = [answer for answer in answers if answer != "null"]
    assert Counter(answerable).most_common(1)[0][1] <= 0.1 * len(answerable)


def test_yes_and_no_are_balanced(questions):
    answers = json.loads((questions / "train" / "answer.json").read_text())
    verdicts = [answers[entry["id"]] for entry in annotated(questions, "train") if "COUNT(*)>0" in entry["query"]]
    assert len(verdicts) >= 20
    assert 0.3 < verdicts.count("[['1.0']]") / len(verdicts) < 0.7


def test_no_question_and_no_gold_query_in_two_splits(questions):
    splits = [read_split(questions / split) for split in SPLITS]
    texts = [item.text for items in splits for item in items]
    assert len(set(texts)) == len(texts)
    golds = [{item.gold for item in items if item.answerable} for items in splits]
    assert len(set.union(*golds)) == sum(map(len, golds))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_fifth_asks_for_sql_of_a_shape_that_train_lacks(questions, split):
    unseen = {template.questions[0] for template in answerable_templates() if template.unseen}
    shapes = {sql_skeleton(entry["query"]) for entry in annotated(questions, "train")}
    assert not unseen & {entry["template"] for entry in annotated(questions, "train")}
    answerable = [entry for entry in annotated(questions, split) if entry["query"] != "null"]
    held_out = [entry for entry in answerable if entry["template"] in unseen]
    assert len(held_out) == round(0.2 * len(answerable))
    assert not shapes & {sql_skeleton(entry["query"]) for entry in held_out}


@pytest.mark.parametrize("split", SPLITS)
def test_values_are_spelt_alike_in_question_and_sql(questions, split):
    for entry in annotated(questions, split):
        assert "{" not in entry["question"] + entry["query"]
        if entry["query"] != "null":
            for value in entry["val_dict"]["val_placeholder"].values():
                assert value in entry["question"] and value in entry["query"]


def test_same_seed_gives_the_same_questions(db, questions, tmp_path):
    make_demo_questions.make_questions(db, tmp_path / "again", SIZES)
    assert files_of(tmp_path / "again") == files_of(questions)


# The simulated teacher


def test_the_teacher_labels_a_share_of_each_template_and_errs_by_misreadings_alone(questions):
    labels = json.loads((questions / "train" / "label.json").read_text())
    teacher = json.loads((questions / "train" / "teacher.json").read_text())
    assert len(teacher) == round(0.4 * SIZES["train"]) and teacher.keys() <= labels.keys()
    for template, entries in groupby(sorted(annotated(questions, "train"), key=by_template), key=by_template):
        ids = [entry["id"] for entry in entries]
        if template != "-":
            assert abs(sum(id in teacher for id in ids) - 0.4 * len(ids)) <= 1
    assert all(teacher[id] == "null" for id in teacher if labels[id] == "null")
    always = {id: misread(label, 1, random.Random(0))[0] for id, label in labels.items()}
    assert {id for id in teacher if teacher[id] != labels[id]} <= {id for id in labels if always[id] != labels[id]}
    assert 0.4 * len(teacher) < sum(teacher[id] != labels[id] for id in teacher) < 0.7 * len(teacher)


def by_template(entry: dict) -> str:
    return entry["template"]


def test_the_teacher_changes_no_question(db, questions, tmp_path):
    make_demo_questions.make_questions(db, tmp_path / "sure", SIZES, teacher_share=0.2, teacher_probability=1)
    ours, theirs = files_of(tmp_path / "sure"), files_of(questions)
    assert ours.pop("train/teacher.json") != theirs.pop("train/teacher.json")
    assert ours == theirs


@pytest.mark.parametrize(("option", "value"), [("--teacher_share", "0"), ("--teacher_probability", "2")])
def test_a_teacher_needs_a_share_and_a_probability(db, tmp_path, option, value):
    with pytest.raises(InputError, match=f"{option} is {value}"):
        run_questions(db, tmp_path / "out", option, value)
    assert not list(tmp_path.iterdir())


def test_command_line_tells_of_the_teacher(db, tmp_path, capsys):
    run_questions(db, tmp_path / "out", "--train", "50", "--valid", "10", "--test", "10")
    assert "teacher: 20 of 50 questions, " in capsys.readouterr().out


# Bad input


def run_questions(db: Path, folder: Path, *more: str) -> None:
    make_demo_questions.main(["--db", str(db), "--out_dir", str(folder), *more])


def test_missing_or_foreign_database_is_one_clear_line(tmp_path):
    with pytest.raises(InputError, match="no database at"):
        run_questions(tmp_path / "none.sqlite", tmp_path / "out")
    sqlite3.connect(tmp_path / "empty.sqlite").execute("VACUUM").connection.close()
    with pytest.raises(InputError, match="no EHRSQL database"):
        run_questions(tmp_path / "empty.sqlite", tmp_path / "out")
    (tmp_path / "text.sqlite").write_text("not a database" * 100)
    with pytest.raises(InputError, match="no EHRSQL database"):
        run_questions(tmp_path / "text.sqlite", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.sqlite", "text.sqlite"]


@pytest.mark.parametrize("option", ["--train", "--valid", "--test", "--seed"])
def test_negative_numbers_are_refused(db, tmp_path, option):
    with pytest.raises(InputError, match=f"{option} is -1"):
        run_questions(db, tmp_path / "out", option, "-1")


def test_more_questions_than_the_database_holds(db, tmp_path, monkeypatch):
    few = [template for template in answerable_templates() if template.name in ("patient birth", "procedure code")]
    monkeypatch.setattr(make_demo_questions, "answerable_templates", lambda: few)
    with pytest.raises(InputError, match="too small for so many test questions"):
        run_questions(db, tmp_path / "out", "--test", "300")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", [["--patients", "0"], ["--seed", "-1"], ["--scale", "0"]])
def test_a_tree_needs_patients_and_a_seed(tmp_path, option):
    with pytest.raises(InputError, match=f"{option[0]} is {option[1]}"):
        make_demo_ehr.main(["--out_dir", str(tmp_path / "tree"), *option])


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "hosp").mkdir()
    with pytest.raises(InputError, match="holds other files"):
        make_demo_ehr.make_tree(tmp_path, patients=1)
    assert [path.name for path in tmp_path.iterdir()] == ["hosp"]


def test_patients_are_not_replaced_by_questions(tmp_path, db):
    make_demo_ehr.make_tree(tmp_path / "demo", patients=1)
    with pytest.raises(InputError, match="holds other files"):
        make_demo_questions.main(["--db", str(db), "--out_dir", str(tmp_path / "demo")])
    assert (tmp_path / "demo" / "hosp").is_dir()
