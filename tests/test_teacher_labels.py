"""A teacher's unverified labels for some of the train questions: ``data_prep.ehrsql --teacher_labels``."""

import json
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from data_prep import make_teacher
from data_prep.common.errors import InputError
from data_prep.ehrsql import main
from reward_fns.sql.answers import ABSTAIN, canonical_answer

GENDER, COUNT = "What is the gender of patient {}?", "How many patients are {}?"


def gender_sql(patient: int) -> str:
    return f"SELECT gender FROM patients WHERE subject_id = {patient}"


def age_sql(age: int) -> str:
    return f"SELECT COUNT(*) FROM patients WHERE age = {age}"


BROKEN = "SELECT a FROM nowhere"
# (question, gold, template); train-8 gets no gold below.
TRAIN = [
    *[(GENDER.format(100 + i), gender_sql(100 + i), GENDER) for i in range(8)],
    *[(COUNT.format(40 + i), age_sql(40 + i), COUNT) for i in range(4)],
    ("Who is the doctor?", ABSTAIN, "-"),
    ("What will happen tomorrow?", ABSTAIN, "-"),
    ("Broken gold?", BROKEN, "Broken gold?"),
    ("Broken gold too?", BROKEN, "Broken gold?"),
]
VALID = [
    ("Which sex has patient 101?", gender_sql(101), GENDER),
    ("Who is the oldest?", "SELECT subject_id FROM patients ORDER BY age DESC LIMIT 1", "Who is the oldest?"),
    ("How is the weather?", ABSTAIN, "-"),
]
TEACHER = {
    "train-0": "SELECT gender FROM patients WHERE 100 = subject_id",  # right, in other words
    "train-1": gender_sql(100),  # wrong: of another patient
    "train-2": "SELECT sex FROM patients",  # fails
    "train-3": ABSTAIN,  # wrong
    "train-8": age_sql(40),  # of a question without gold
    "train-12": ABSTAIN,  # right
    "train-15": "SELECT 1 FROM patients",  # of a question whose gold fails
}
UNTAUGHT = ["train-4", "train-5", "train-6", "train-7", "train-9", "train-10", "train-11", "train-13"]  # not 14


@pytest.fixture
def db(tmp_path) -> Path:
    path = tmp_path / "hospital.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE patients (subject_id INT, gender VARCHAR(5), age INT)")
        rows = [(100 + i, "f" if i % 4 == 0 else "m", 40 + i) for i in range(8)]
        database.executemany("INSERT INTO patients VALUES (?, ?, ?)", rows)
    database.close()
    return path


def write_split(folder: Path, items: list[tuple[str, str, str]]) -> None:
    folder.mkdir(parents=True)
    ids = [f"{folder.name}-{number}" for number in range(len(items))]
    questions = [{"id": id, "question": question} for id, (question, _, _) in zip(ids, items, strict=True)]
    records = [{"id": id, "template": template} for id, (_, _, template) in zip(ids, items, strict=True)]
    (folder / "data.json").write_text(json.dumps({"version": "test", "data": questions}))
    (folder / "label.json").write_text(json.dumps({id: sql for id, (_, sql, _) in zip(ids, items, strict=True)}))
    (folder / "annotated.json").write_text(json.dumps(records))


def edit_json(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    write_split(folder / "train", TRAIN)
    write_split(folder / "valid", VALID)
    edit_json(folder / "train" / "label.json", lambda labels: labels.pop("train-8"))
    return folder


@pytest.fixture
def teacher(tmp_path) -> Path:
    path = tmp_path / "teacher.json"
    path.write_text(json.dumps(TEACHER))
    return path


def run(data: Path, db: Path, teacher: Path, *options: str) -> Path:
    out = data.parent / "out"
    given = {"--data_dir": data, "--db": db, "--out_dir": out, "--teacher_labels": teacher}
    main([*(str(part) for pair in given.items() for part in pair), *options])
    return out


def taught(out: Path, split: str = "train") -> dict[str, str]:
    """Question -> what SFT teaches, with the question_only prompt."""
    messages = pd.read_parquet(out / f"sft_{split}.parquet")["messages"]
    return {row[-2]["content"]: row[-1]["content"] for row in messages}


def infos(out: Path, split: str = "train") -> list[dict]:
    return list(pd.read_parquet(out / f"{split}.parquet")["extra_info"])


def question(id: str) -> str:
    return TRAIN[int(id.split("-")[1])][0]


def test_sft_is_taught_the_teachers_labels_and_grpo_gets_the_other_answers(data, db, teacher):
    out = run(data, db, teacher, "--prompt", "question_only")
    assert taught(out) == {question(id): label for id, label in TEACHER.items()}
    assert [info["id"] for info in infos(out)] == UNTAUGHT
    assert {info["gold_sql"] for info in infos(out)} == {""}
    truths = [reward["ground_truth"] for reward in pd.read_parquet(out / "train.parquet")["reward_model"]]
    assert truths == [canonical_answer([(sex,)]) for sex in "fmmm"] + 3 * [canonical_answer([(1,)])] + [ABSTAIN]
    assert not {info["question"] for info in infos(out)} & taught(out).keys()
    assert taught(out, "valid") == {text: gold for text, gold, _ in VALID}
    assert [info["gold_sql"] for info in infos(out, "valid")] == [gold for _, gold, _ in VALID]


def test_counts_by_hand(data, db, teacher, capsys):
    out = run(data, db, teacher)
    manifest = json.loads((out / "manifest.json").read_text())
    error = "error: no such column: sex"
    assert manifest["teacher"] == {
        "labels": 7,
        "reasoned": 0,
        "queries": 5,
        "executing": 4,
        "answer_known": 5,  # not of train-8 and train-15
        "right": 2,
        "failed": {"train-2": error},
    }
    assert str(teacher) in manifest["inputs"]
    assert set(manifest["failed_gold"]["train"]) == {"train-14", "train-15"}
    printed = capsys.readouterr().out
    assert "teacher: 7 labels, 4 of 5 queries execute, 2 of 5 labels with a known answer are right" in printed
    assert f"teacher: 1 of 5 queries fail, kept for SFT: train-2 ({error})" in printed


def test_executing_only_leaves_failing_queries_out_of_both_files(data, db, teacher, capsys):
    out = run(data, db, teacher, "--prompt", "question_only", "--executing_only")
    assert taught(out) == {question(id): label for id, label in TEACHER.items() if id != "train-2"}
    assert [info["id"] for info in infos(out)] == UNTAUGHT
    assert "teacher: 1 of 5 queries fail, left out: train-2" in capsys.readouterr().out


def test_with_think_sft_is_taught_reasoning_about_the_teachers_queries(data, db, teacher):
    out = run(data, db, teacher, "--prompt", "question_only", "--think")
    answers = taught(out)
    assert answers[question("train-1")] == (
        f"<think>Read patients, look up subject_id, give gender.</think>\n```sql\n{gender_sql(100)}\n```"
    )
    assert answers[question("train-3")].endswith("</think>\nnull")
    assert answers.keys() == {question(id) for id in TEACHER}


def test_same_labels_same_bytes(data, db, teacher):
    first, second = (json.loads((run(data, db, teacher) / "manifest.json").read_text()) for _ in range(2))
    measured = {"slowest_gold_seconds": None}
    assert first | measured == second | measured


def test_examples_of_few_shot_prompts_are_the_teachers(data, db, teacher):
    out = run(data, db, teacher, "--prompt", "few_shot")
    system = pd.read_parquet(out / "valid.parquet")["prompt"][0][0]["content"].splitlines()
    examples = [line.removeprefix("Answer: ") for line in system if line.startswith("Answer: ")]
    assert len(examples) == 4 and set(examples) <= set(TEACHER.values())  # null, and one of each template


def test_a_template_that_only_the_teacher_knows_counts_as_seen(data, db, teacher):
    """By its annotation; without one by the teacher's query, in place of the gold that is missing."""

    def statuses() -> dict[str, str]:
        return {info["id"]: info["seen_template"] for info in infos(run(data, db, teacher), "valid")}

    write_split(data / "other", [("a", "SELECT MAX(age) FROM patients", "a"), ("b", age_sql(41), COUNT)])
    shutil.rmtree(data / "valid")
    shutil.move(data / "other", data / "valid")
    for id in ("train-9", "train-10", "train-11"):  # leaves train-8 alone of its template
        edit_json(data / "train" / "label.json", lambda labels, id=id: labels.update({id: gender_sql(1)}))
    edit_json(data / "train" / "annotated.json", lambda records: records.__delitem__(slice(9, None)))
    assert statuses() == {"other-0": "unseen", "other-1": "seen"}
    (data / "train" / "annotated.json").unlink()
    (data / "valid" / "annotated.json").unlink()
    assert statuses() == {"other-0": "unseen", "other-1": "seen"}
    edit_json(teacher, lambda labels: labels.update({"train-8": "SELECT MAX(age) FROM patients"}))
    assert statuses() == {"other-0": "seen", "other-1": "unseen"}


def test_an_id_of_train_in_another_split_stays_there(data, db, teacher):
    write_split(data / "test", VALID)
    for file in ("data", "label", "annotated"):
        path = data / "test" / f"{file}.json"
        path.write_text(path.read_text().replace("test-0", "train-0"))
    out = run(data, db, teacher)
    assert not (out / "sft_test.parquet").exists()
    assert len(infos(out, "test")) == len(VALID)


def relabel(labels) -> object:
    return lambda data, teacher: teacher.write_text(labels if isinstance(labels, str) else json.dumps(labels))


def no_train(data, teacher):
    shutil.rmtree(data / "train")


def nothing(data, teacher):
    pass


def only_broken_gold_left(data, teacher):
    edit_json(teacher, lambda labels: labels.update({id: ABSTAIN for id in UNTAUGHT}))


@pytest.mark.parametrize(
    ("breakage", "options", "message"),
    [
        (relabel({**TEACHER, "valid-0": "SELECT 1", "x": "null"}), [], "valid-0, x: no questions of .*train; remove"),
        (relabel({}), [], "teacher.json labels no question; write the teacher's queries"),
        (
            relabel({f"train-{n}": "SELECT 1" for n in range(len(TRAIN))}),
            [],
            "labels all 16 questions of .*none for GRPO",
        ),
        (relabel('{\n"train-0": oops}'), [], "teacher.json: bad JSON in line 2, column 12"),
        (
            relabel('{"train-0": "null", "train-0": "SELECT 1"}'),
            [],
            "cannot read .*teacher.json: 'train-0' occurs twice; keep one of them",
        ),
        (relabel([]), [], 'expected {id: SQL or "null"}'),
        (relabel({"train-0": 1}), [], "the label of train-0 must be SQL"),
        (relabel({"train-8": BROKEN, "train-1": "null"}), [], "no query of .*teacher.json executes .*no such table"),
        (relabel({"train-8": ABSTAIN}), [], 'no query of .*teacher.json executes .*all of its labels are "null"'),
        (only_broken_gold_left, [], "every gold query of the train questions that .*teacher.json leaves out fails"),
        (no_train, [], "--teacher_labels is about train questions, but .*data has no train split"),
        (lambda data, teacher: teacher.unlink(), [], "no teacher's labels at .*teacher.json; check the path"),
        (
            relabel({**TEACHER, "train-0": f"<think>Whose?</think>So: {gender_sql(100)} That is it."}),
            [],
            "the label of train-0 holds reasoning; write <think>...</think>, and behind it one query",
        ),
        (relabel({**TEACHER, "train-0": "<think>r SELECT 2"}), [], "the label of train-0 holds reasoning"),
        (
            relabel({**TEACHER, "train-0": f"<answer>{gender_sql(100)}</answer>"}),
            ["--think"],
            "the label of train-0 is more than a query, .* write the query alone",
        ),
        (nothing, ["--gold_sql_share", "0.5"], "--teacher_labels and --gold_sql_share .*give one of them"),
    ],
)
def test_a_bad_teacher_file_is_one_clear_line_and_leaves_nothing(data, db, teacher, breakage, options, message):
    breakage(data, teacher)
    with pytest.raises(InputError, match=message) as raised:
        run(data, db, teacher, *options)
    assert "\n" not in str(raised.value)
    assert not (data.parent / "out").exists()


@pytest.mark.parametrize("think", [True, False])
def test_the_teachers_own_reasoning_is_taught_to_a_model_that_thinks(data, db, teacher, think, capsys):
    fenced = f"<think>Whose? Of\n100.</think>\n```sql\n{gender_sql(100)}\n```"
    relabel({**TEACHER, "train-0": fenced, "train-1": "<Think>Nothing.</Think>null"})(data, teacher)
    out = run(data, db, teacher, *(["--think"] if think else []))
    answers = {id: answer for text, answer in taught(out).items() for id in TEACHER if question(id) in text}
    expected = (fenced, "<think>Nothing.</think>\nnull") if think else (gender_sql(100), ABSTAIN)
    assert (answers["train-0"], answers["train-1"]) == expected
    counts = json.loads((out / "manifest.json").read_text())["teacher"]
    assert (counts["labels"], counts["reasoned"]) == (7, 2)
    assert "teacher: 2 labels come with reasoning" in capsys.readouterr().out


def test_a_question_without_any_label_is_named(data, db, teacher):
    edit_json(teacher, lambda labels: labels.pop("train-8"))
    with pytest.raises(InputError, match="train-8 in data.json but not in label.json"):
        run(data, db, teacher)


def test_executing_only_needs_a_teacher(data, db):
    with pytest.raises(InputError, match="--executing_only is about the queries of --teacher_labels"):
        main(["--data_dir", str(data), "--db", str(db), "--out_dir", str(data.parent / "out"), "--executing_only"])


def test_a_teacher_of_the_real_questions(shared_data, tmp_path):
    """A third of the real validation questions as train: the teacher errs on some, and its queries execute."""
    source, train = shared_data / "ehrsql2024", tmp_path / "data" / "train"
    labels = json.loads((source / "valid" / "label.json").read_text())
    chosen = list(labels)[::3]
    train.mkdir(parents=True)
    questions = json.loads((source / "valid" / "data.json").read_text())["data"]
    kept = [{"id": entry["id"], "question": entry["question"]} for entry in questions if entry["id"] in chosen]
    (train / "data.json").write_text(json.dumps({"data": kept}))
    (train / "label.json").write_text(json.dumps({id: labels[id] for id in chosen}))
    teacher = tmp_path / "teacher.json"
    make_teacher.main(["--labels", str(train / "label.json"), "--out_file", str(teacher)])
    out = run(train.parent, source / "mimic_iv.sqlite", teacher, "--prompt", "question_only")
    counts = json.loads((out / "manifest.json").read_text())["teacher"]
    assert counts["labels"] == counts["answer_known"] == round(0.4 * len(chosen))
    assert counts["queries"] == counts["executing"] > 100
    assert 0.5 < counts["right"] / counts["labels"] < 0.9
    assert len(infos(out)) == len(chosen) - counts["labels"]
    assert not {info["question"] for info in infos(out)} & taught(out).keys()
