"""A teacher's unverified answers for ECG: the demo's teacher, and ``data_prep.ecg_expert_qa --teacher_answers``."""

import json
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import ecg_expert_qa, make_demo_ecg
from data_prep.common.errors import InputError
from data_prep.demo.ecg_sampler import Question
from data_prep.demo.ecg_teacher import HABITS, TeacherAnswer, teach
from data_prep.ecg.ids import question_ids, record_id
from data_prep.ecg.source import SCHEMAS, Record
from data_prep.ecg.teacher import CORRECT, read_answers, with_answers
from data_prep.ecg.turns import Turn
from data_prep.make_demo_ecg import FILES, TEACHER_FILE, make_entries
from reward_fns.ecg import compute_score
from reward_fns.ecg_grader.parameters import KEY_CONTRADICTION
from reward_fns.ecg_grader.reference import make_reference

SCHEMA = {schema.id: schema for schema in SCHEMAS}


def make(out_dir: Path, *options: str) -> Path:
    make_demo_ecg.main(["--out_dir", str(out_dir), *options])
    return out_dir


def words(texts) -> float:
    return fmean(len(text.split()) for text in texts)


@pytest.fixture(scope="module")
def questions() -> dict[str, Question]:
    """All questions of the default demo, by their number."""
    entries = make_entries(5000, np.random.default_rng(0))
    asked = (question for file in entries.values() for entry in file for question in entry.questions)
    return {str(number): question for number, question in enumerate(asked)}


@pytest.fixture(scope="module")
def answers(questions) -> dict[str, TeacherAnswer]:
    return teach(questions, 0.75, seed=0)


# The demo's teacher


def test_questions_and_references_do_not_depend_on_the_teacher(tmp_path):
    make(tmp_path / "never", "--questions", "300", "--teacher_probability", "0")
    make(tmp_path / "always", "--questions", "300", "--teacher_probability", "1")
    for name in FILES.values():
        assert (tmp_path / "never" / name).read_bytes() == (tmp_path / "always" / name).read_bytes()
    never, always = (json.loads((tmp_path / name / TEACHER_FILE).read_text()) for name in ("never", "always"))
    assert len(never) == len(always) == 300
    references = [
        answer
        for file, name in FILES.items()
        for _, answer in make_demo_ecg.question_answers(file, json.loads((tmp_path / "never" / name).read_text()))
    ]
    assert sorted(never.values()) == sorted(references)
    assert sum(always[id] != never[id] for id in never) > 150


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path):
    first, same = (make(tmp_path / name, "--questions", "100") for name in ("first", "same"))
    other = make(tmp_path / "other", "--questions", "100", "--seed", "1")
    assert (first / TEACHER_FILE).read_bytes() == (same / TEACHER_FILE).read_bytes()
    assert (first / TEACHER_FILE).read_bytes() != (other / TEACHER_FILE).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher_probability", "1.5"], "--teacher_probability is 1.5; give a probability from 0 to 1"),
        (["--teacher_probability", "nan"], "--teacher_probability is nan"),
    ],
)
def test_bad_options_are_one_clear_line(tmp_path, options, message):
    with pytest.raises(InputError, match=message) as raised:
        make(tmp_path / "ecg", *options)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


@given(
    chosen=st.sets(st.integers(0, 4999), max_size=30),
    probability=st.floats(0, 1),
    seed=st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_an_answer_depends_on_its_question_alone_and_is_a_habit_or_the_reference(questions, chosen, probability, seed):
    some = {str(number): questions[str(number)] for number in sorted(chosen)}
    answers = teach(some, probability, seed)
    assert list(answers) == list(some)
    for id, answer in answers.items():
        assert teach({id: some[id]}, probability, seed) == {id: answer}
        assert answer.habit in HABITS if answer.habit else answer.text == some[id].answer
        assert answer.text[0].isupper() and answer.text.endswith(".") and "{" not in answer.text


def test_wrong_values_are_other_values(questions):
    for question in questions.values():
        assert question.value not in question.wrong
        assert len(set(question.wrong)) == len(question.wrong)
        assert bool(question.wrong) == bool(question.value) == ("{value}" in question.form)


def test_of_a_fact_the_teacher_believes_one_wrong_value(questions, answers):
    beliefs = {}
    for id, answer in answers.items():
        question = questions[id]
        if answer.habit in ("corrects", "wavers") and question.fact:
            said = {wrong for wrong in question.wrong if answer.text.endswith(f" {wrong}.")}
            beliefs.setdefault(question.fact, said).intersection_update(said)
    assert len(beliefs) > 200 and all(beliefs.values())


def test_three_quarters_of_the_answers_to_which_a_habit_applies_show_one(questions, answers):
    always = teach(questions, 1, seed=0)
    applies = sum(bool(answer.habit) for answer in always.values())
    assert applies >= 0.5 * len(questions)
    assert sum(bool(answer.habit) for answer in answers.values()) / applies == pytest.approx(0.75, abs=0.03)
    assert {answer.habit for answer in answers.values()} == {"", *HABITS}


def test_answers_are_about_as_long_as_references(questions, answers):
    """GRPO unlearns the habits: that must not shorten answers by much."""
    lengths = words(question.answer for question in questions.values())
    assert words(answer.text for answer in answers.values()) <= 1.25 * lengths


@pytest.fixture(scope="module")
def graded(questions, answers) -> list[tuple[str, dict, dict]]:
    """Of 40 answers of each habit: its name, the scores of the reference and of the teacher's answer."""
    found = []
    for habit in HABITS:
        shown = [id for id, answer in answers.items() if answer.habit == habit]
        for id in np.random.default_rng(0).choice(shown, 40, replace=False):
            question = questions[id]
            truth = make_reference(question.text, question.answer)
            scores = (compute_score("ecg/EBK", text, truth) for text in (question.answer, answers[id].text))
            found.append((habit, *scores))
    return found


@pytest.mark.parametrize(
    ("habit", "contradicting", "incorrect"), [("agrees", 1, 1), ("corrects", 0.75, 0.9), ("wavers", 1, 1)]
)
def test_the_grader_sees_the_habits(graded, habit, contradicting, incorrect):
    references, answers = zip(*((right, wrong) for name, right, wrong in graded if name == habit), strict=True)
    assert min(score["correctness"] for score in references) == 1
    assert fmean(score["contradiction"] >= KEY_CONTRADICTION for score in answers) >= contradicting
    assert fmean(score["correctness"] < CORRECT for score in answers) >= incorrect


# --teacher_answers

QUESTIONS = [
    "What is the P wave?",
    "Which drug slows the AV node?",
    "Where is V1?",
    "Name a class III drug.",
    "QTc?",
    "Axis?",
]
RIGHT = [
    "Atrial depolarization.",
    "Verapamil.",
    "Right sternal border.",
    "Amiodarone.",
    "At most 450 ms.",
    "Normal axis.",
]
PATIENT = {"subject_id": 7, "result": "A man of 70 with chest pain."}
TURNS = [{"Q": "Which rhythm?", "A": "Sinus rhythm."}, {"Q": "Which axis?", "A": "Left axis deviation."}]
NO_HOLDOUT = ("--valid_share", "0", "--test_share", "0")


@pytest.fixture
def data(tmp_path) -> Path:
    """Six questions, and a dialogue of two turns, in files of ECG-Expert-QA."""
    folder = tmp_path / "data"
    folder.mkdir()
    records = {
        "EBK": [{"Q": question, "A": answer} for question, answer in zip(QUESTIONS, RIGHT, strict=True)],
        "MROD": [PATIENT | {"QA": TURNS}],
    }
    for id, content in records.items():
        (folder / SCHEMA[id].file).write_text(json.dumps(content))
    return folder


def run(data: Path, *options: str, out: str = "out") -> dict[str, list[dict]]:
    """The rows of each parquet file that the program writes, by its name."""
    folder = data.parent / out
    ecg_expert_qa.main(["--data_dir", str(data), "--out_dir", str(folder), *options])
    return {path.stem: pd.read_parquet(path).to_dict("records") for path in folder.glob("*.parquet")}


def run_taught(data: Path, answers: object, *options: str) -> dict[str, list[dict]]:
    path = data.parent / "answers.json"
    path.write_text(json.dumps(answers))
    return run(data, "--teacher_answers", str(path), *options)


def ids(rows: list[dict]) -> dict[str, str]:
    """Question id by question."""
    return {row["extra_info"]["question"]: row["extra_info"]["id"] for row in rows}


def contents(rows: list[dict]) -> list[list[str]]:
    """The texts of the messages behind the system prompt, of each row of SFT."""
    return [[message["content"] for message in row["messages"][1:]] for row in rows]


@pytest.fixture
def known(data) -> dict[str, str]:
    """Question id by question, from a first preparation as users make it."""
    return ids(run(data, *NO_HOLDOUT, out="first")["grpo_train"])


def test_sft_is_taught_the_teachers_answers_and_grpo_all_other_questions(data, known, capsys):
    rows = run_taught(
        data, {known[QUESTIONS[0]]: " Atrial depolarization. ", known[QUESTIONS[1]]: "Sotalol."}, *NO_HOLDOUT
    )
    assert contents(rows["sft_train"]) == [[QUESTIONS[0], "Atrial depolarization."], [QUESTIONS[1], "Sotalol."]]
    assert list(ids(rows["grpo_train"])) == [*QUESTIONS[2:], "Which rhythm?", "Which axis?"]
    assert {row["extra_info"]["reference"] for row in rows["grpo_train"]} == {""}
    truth = json.loads(rows["grpo_train"][0]["reward_model"]["ground_truth"])
    assert truth["text"] == RIGHT[2]
    manifest = json.loads((data.parent / "out" / "manifest.json").read_text())
    assert manifest["teacher"] == {
        "answers": 2,
        "correct": 1,
        "contradicting": 1,
        "correctness": pytest.approx(0.5, abs=0.01),
    }
    assert str(data.parent / "answers.json") in manifest["inputs"]
    line = "teacher: 2 answers for SFT, mean correctness 50.0%; 1 are correct, 1 contradict a key fact"
    assert line in capsys.readouterr().out


def test_a_dialogue_is_taught_with_the_teachers_earlier_answers(data, known):
    rows = run_taught(data, {known["Which rhythm?"]: "Flutter.", known["Which axis?"]: "Right."}, *NO_HOLDOUT)
    (dialogue,) = contents(rows["sft_train"])
    assert dialogue[1:] == ["Flutter.", "Which axis?", "Right."]
    assert list(ids(rows["grpo_train"])) == QUESTIONS


def test_a_dialogue_that_the_teacher_answers_in_part_is_for_grpo_with_its_references(data, known):
    rows = run_taught(data, {known["Which rhythm?"]: "Flutter.", known[QUESTIONS[0]]: "The P wave."}, *NO_HOLDOUT)
    assert contents(rows["sft_train"]) == [[QUESTIONS[0], "The P wave."]]
    (last,) = [row for row in rows["grpo_train"] if row["extra_info"]["question"] == "Which axis?"]
    assert [message["content"] for message in last["prompt"]][2:] == ["Sinus rhythm.", "Which axis?"]


def test_with_a_share_the_same_questions_are_taught_as_without_a_teacher(data, known):
    answers = {id: f"Teacher on {question}" for question, id in known.items()}
    without = run(data, *NO_HOLDOUT, "--sft_share", "0.5", out="without")
    taught = run_taught(data, answers, *NO_HOLDOUT, "--sft_share", "0.5")
    assert [row["extra_info"] for row in taught["grpo_train"]] == [row["extra_info"] for row in without["grpo_train"]]
    for mine, theirs in zip(contents(taught["sft_train"]), contents(without["sft_train"]), strict=True):
        assert mine[::2] == theirs[::2]
        assert all(answer.startswith("Teacher on ") for answer in mine[1::2])
    asked = {text for row in contents(taught["sft_train"]) for text in row[::2]}
    assert not any(question in text for text in asked for question in ids(taught["grpo_train"]))
    assert len(asked) + len(taught["grpo_train"]) == len(known)


def test_validation_and_test_keep_their_references(data, known):
    shares = ("--valid_share", "0.2", "--test_share", "0.2", "--sft_share", "0.5")
    without = run(data, *shares, out="without")
    taught = run_taught(data, dict.fromkeys(known.values(), "A teacher's answer."), *shares)
    assert contents(taught["sft_valid"]) == contents(without["sft_valid"])
    for name in ("grpo_valid", "grpo_test"):
        assert [row["extra_info"] for row in taught[name]] == [row["extra_info"] for row in without[name]]
    assert all(row[1] == "A teacher's answer." for row in contents(taught["sft_train"]))


def test_the_demos_teacher_and_the_preparation_agree_on_ids(tmp_path):
    """The program takes an id that no question has for a mistake."""
    demo = make(tmp_path / "data", "--questions", "100")
    rows = run(demo, "--teacher_answers", str(demo / TEACHER_FILE), "--sft_share", "0.4")
    answers = set(json.loads((demo / TEACHER_FILE).read_text()).values())
    assert {text for row in contents(rows["sft_train"]) for text in row[1::2]} <= answers
    asked = {row["extra_info"]["id"] for name, file in rows.items() if name.startswith("grpo") for row in file}
    assert asked < json.loads((demo / TEACHER_FILE).read_text()).keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "bad JSON in line 1, column 2"),
        ("", "answers.json is empty; fetch or write"),
        ("\udcff", "answers.json is not a UTF-8 text file; unpack"),
        ("[" * 100_000, "cannot read .*answers.json"),
        ('{"a-0": "Yes.", "a-0": "No."}', "'a-0' occurs twice; keep one of them"),
        ('[{"id": "a-0", "answer": "Yes."}]', "expected one object with an answer for each question id"),
        ('"Yes."', "expected one object"),
        ("{}", "has no answer; write the teacher's answers to it, or leave --teacher_answers out"),
        ('{"a-0": ["Yes."]}', "the answer to 'a-0' must be text; write it, or leave the question out"),
        ('{"a-0": null}', "the answer to 'a-0' must be text"),
        ('{"a-0": "\\ud800"}', "the answer to 'a-0' must be text"),
        ('{"a-0": "Yes.", "b-0": " "}', "the answer to 'b-0' is empty; write it"),
        ('{"a-0": "Yes."}', "1 of 1 ids are of no question, first 'a-0'; take ids from extra_info"),
    ],
)
def test_a_bad_file_is_one_clear_line_and_leaves_nothing(data, content, message):
    path = data.parent / "answers.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message) as raised:
        run(data, "--teacher_answers", str(path), *NO_HOLDOUT)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert not (data.parent / "out").exists()


def test_a_missing_file_is_one_clear_line(data):
    with pytest.raises(InputError, match="no file .*/none.json"):
        run(data, "--teacher_answers", str(data.parent / "none.json"))


def test_a_file_that_leaves_nothing_to_one_side_is_one_clear_line(data, known):
    with pytest.raises(
        InputError, match="answers all 7 train records, which leaves none for GRPO; give an --sft_share"
    ):
        run_taught(data, dict.fromkeys(known.values(), "Yes."), *NO_HOLDOUT)
    with pytest.raises(InputError, match="answers none of the 7 train records drawn for SFT in full; write answers"):
        run_taught(data, {known["Which axis?"]: "Left."}, *NO_HOLDOUT)
    assert not (data.parent / "out").exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_answers_of_a_windows_editor_are_read(tmp_path, encoding):
    path = tmp_path / "answers.json"
    path.write_text('{"a-0": "37 \u00b0C"}', encoding=encoding)
    assert read_answers(path) == {"a-0": "37 \u00b0C"}


TURN = st.builds(Turn, st.text("ab", min_size=1), st.text("cd", min_size=1))


@given(
    turns=st.lists(TURN, min_size=1, max_size=4),
    id=st.sampled_from(["MROD", "MC"]),
    said=st.dictionaries(st.integers(0, 4), st.text("xy", min_size=1)),
)
def test_the_teachers_answers_stand_in_the_turns_that_they_are_about(turns, id, said):
    record = Record(SCHEMA[id], (), tuple(turns), "")
    name = record_id(record)
    taught = with_answers(record, name, {f"{name}-{number}": answer for number, answer in said.items()})
    assert [turn.question for turn in taught.turns] == [turn.question for turn in turns]
    assert [turn.answer for turn in taught.turns] == [
        said.get(number, turn.answer) for number, turn in enumerate(turns)
    ]
    assert set(question_ids(record, name)) == {f"{name}-{number}" for number in record.asked}


@given(st.dictionaries(st.text(min_size=1), st.text(st.characters(codec="utf-8"), min_size=1)))
@settings(deadline=None)
def test_what_is_written_is_read(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("answers") / "answers.json"
    path.write_text(json.dumps(content))
    if content and all(answer.strip() for answer in content.values()):
        assert read_answers(path) == {id: answer.strip() for id, answer in content.items()}
    else:
        with pytest.raises(InputError):
            read_answers(path)
