import ast
import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from data_prep.common.checksum import sha256_file
from data_prep.common.errors import InputError
from data_prep.ehrsql import main
from data_prep.mimic.indexes import build_indexed
from data_prep.sql.gold import training_timeout
from data_prep.sql.prompts import PromptBuilder, prompt_names
from data_prep.sql.schema import compact_schema, full_schema
from data_prep.sql.source import sql_skeleton
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, canonical_answer
from reward_fns.sql.sandbox import SqlSandbox

PATIENTS = 8
TRAIN_PER_TEMPLATE = 8
COUNT = "How many patients are {}?"
GENDER = "What is the gender of patient {}?"
OLDEST = "Who is the oldest?"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "hospital.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE patients (row_id INT PRIMARY KEY, subject_id INT, gender VARCHAR(5), age INT)")
        database.execute(
            "CREATE TABLE admissions (row_id INT PRIMARY KEY, subject_id INT, admission_type VARCHAR(50), "
            "FOREIGN KEY(subject_id) REFERENCES patients(subject_id))"
        )
        rows = [(i, 100 + i, "f" if i % 4 == 0 else "m", 40 + i) for i in range(PATIENTS)]
        database.executemany("INSERT INTO patients VALUES (?, ?, ?, ?)", rows)
        database.execute("INSERT INTO admissions VALUES (0, 100, 'urgent')")
    database.close()
    return path


def gender_sql(patient: int) -> str:
    return f"SELECT gender FROM patients WHERE subject_id = {patient}"


def age_sql(age: int) -> str:
    return f"SELECT count(*) FROM patients WHERE age = {age}"


def write_split(folder: Path, items: list[tuple[str, str, str]], annotated: bool = True) -> None:
    """Write (question, SQL or "null", template) as a split; ids are the split's name and a number."""
    folder.mkdir(parents=True)
    ids = [f"{folder.name}-{number}" for number in range(len(items))]
    data = [{"id": id, "question": question} for id, (question, _, _) in zip(ids, items, strict=True)]
    (folder / "data.json").write_text(json.dumps({"version": "test", "data": data}))
    (folder / "label.json").write_text(json.dumps({id: sql for id, (_, sql, _) in zip(ids, items, strict=True)}))
    if annotated:
        records = [{"id": id, "template": template} for id, (_, _, template) in zip(ids, items, strict=True)]
        (folder / "annotated.json").write_text(json.dumps(records))


TRAIN = [
    *[(GENDER.format(100 + i), gender_sql(100 + i), GENDER) for i in range(TRAIN_PER_TEMPLATE)],
    *[(COUNT.format(40 + i), age_sql(40 + i), COUNT) for i in range(TRAIN_PER_TEMPLATE)],
    ("Who is the doctor?", "null", "-"),
    ("What will happen tomorrow?", "null", "-"),
    ("Broken gold?", "SELECT a FROM nowhere", "Broken gold?"),
]
VALID = [
    ("Which sex has patient 101?", gender_sql(101), GENDER),
    (OLDEST, "SELECT subject_id FROM patients ORDER BY age DESC LIMIT 1", OLDEST),
    ("How is the weather?", "null", "-"),
    ("Broken too?", "SELECT a FROM nowhere", "Broken gold?"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_split(folder / "train", TRAIN)
    write_split(folder / "valid", VALID)
    return folder


def run(data: Path, db: Path, *options: str) -> Path:
    out = data.parent / "out"
    main(["--data_dir", str(data), "--db", str(db), "--out_dir", str(out), *options])
    return out


def ids(path: Path) -> list[str]:
    return [info["id"] for info in pd.read_parquet(path)["extra_info"]]


def test_row_has_the_shape_that_verl_reads(data, db):
    row = pd.read_parquet(run(data, db) / "valid.parquet").iloc[0]
    assert row["data_source"] == "ehrsql"
    assert row["ability"] == "text2sql"
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][1]["content"] == "Which sex has patient 101?"
    assert row["reward_model"] == {"style": "rule", "ground_truth": canonical_answer([("m",)])}
    assert row["extra_info"] == {
        "id": "valid-0",
        "split": "valid",
        "index": 0,
        "question": "Which sex has patient 101?",
        "template": GENDER,
        "seen_template": "seen",
        "answerable": True,
        "db_path": str(db.resolve()),
        "gold_sql": gender_sql(101),
        "timeout_s": 1.0,
    }


def test_gold_is_executed_and_failed_gold_is_never_rewarded(data, db, capsys):
    out = run(data, db)
    valid = pd.read_parquet(out / "valid.parquet")
    oldest = canonical_answer([(100 + PATIENTS - 1,)])
    truths = [reward["ground_truth"] for reward in valid["reward_model"]]
    assert truths == [canonical_answer([("m",)]), oldest, ABSTAIN, GOLD_FAILED]
    assert len(pd.read_parquet(out / "sft_valid.parquet")) == len(VALID) - 1
    assert "train-18" not in ids(out / "train.parquet")
    assert len(pd.read_parquet(out / "sft_train.parquet")) == len(TRAIN) - 1
    failed = json.loads((out / "manifest.json").read_text())["failed_gold"]
    assert list(failed["train"]) == ["train-18"] and list(failed["valid"]) == ["valid-3"]
    assert (
        "train: gold failed on 1 of 19 questions, left out: train-18 (error: no such table: nowhere)"
        in capsys.readouterr().out
    )


def test_sft_answers_are_gold_sql_or_null(data, db):
    messages = pd.read_parquet(run(data, db) / "sft_valid.parquet")["messages"]
    assert [row[-1]["role"] for row in messages] == ["assistant"] * 3
    assert [row[-1]["content"] for row in messages] == [gender_sql(101), VALID[1][1], "null"]


def test_seen_template_by_annotation_and_by_skeleton(data, db):
    def statuses() -> list[str]:
        rows = pd.read_parquet(run(data, db) / "valid.parquet")["extra_info"]
        return [info["seen_template"] for info in rows]

    by_annotation = ["seen", "unseen", "unknown", "seen"]
    assert statuses() == by_annotation
    (data / "train" / "annotated.json").unlink()
    assert statuses() == by_annotation
    (data / "valid" / "annotated.json").unlink()
    assert statuses() == by_annotation
    shutil.rmtree(data / "train")
    assert statuses() == ["unknown"] * 4


def test_one_known_skeleton_makes_a_whole_template_seen(data, db):
    shutil.rmtree(data / "valid")
    other_form = "SELECT p.gender FROM patients p WHERE p.subject_id = 101"
    write_split(data / "valid", [("a", gender_sql(102), "t"), ("b", other_form, "t"), ("c", other_form, "u")])
    (data / "train" / "annotated.json").unlink()
    rows = pd.read_parquet(run(data, db) / "valid.parquet")["extra_info"]
    assert [info["seen_template"] for info in rows] == ["seen", "seen", "unseen"]


def test_skeleton_masks_values_only():
    assert sql_skeleton("SELECT a1 FROM t WHERE b = 'it''s' AND c > 1.5") == "select a1 from t where b = ? and c > ?"
    assert sql_skeleton("SELECT a FROM t") != sql_skeleton("SELECT b FROM t")


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_gold_share_splits_train_in_two_and_keeps_templates_even(data, db, share):
    out = run(data, db, "--gold_sql_share", str(share))
    rl = pd.read_parquet(out / "train.parquet")
    taught = {row[-2]["content"] for row in pd.read_parquet(out / "sft_train.parquet")["messages"]}
    untaught = {info["question"] for info in rl["extra_info"]}
    usable = {question for question, _, _ in TRAIN[:-1]}
    assert taught | untaught == usable and not taught & untaught
    assert len(taught) == round(share * len(usable))
    for template_items in (TRAIN[:TRAIN_PER_TEMPLATE], TRAIN[TRAIN_PER_TEMPLATE : 2 * TRAIN_PER_TEMPLATE]):
        given = sum(question in taught for question, _, _ in template_items)
        assert abs(given - share * TRAIN_PER_TEMPLATE) <= 1
    assert {info["gold_sql"] for info in rl["extra_info"]} == {""}
    assert all(reward["ground_truth"] for reward in rl["reward_model"])


def test_same_seed_same_bytes_other_seed_other_draw(data, db):
    def outputs(seed: int) -> dict:
        out = run(data, db, "--gold_sql_share", "0.5", "--seed", str(seed))
        return json.loads((out / "manifest.json").read_text())["outputs"]

    assert outputs(0) == outputs(0)
    assert outputs(0)["train.parquet"] != outputs(1)["train.parquet"]


def test_prompts_hold_schema_time_and_the_rule_to_abstain(db):
    systems = {}
    for name in prompt_names():
        messages = PromptBuilder(name, db).messages("Who?", [{"question": "Which one?", "answer": "SELECT 7"}])
        assert messages[-1] == {"role": "user", "content": "Who?"}
        systems[name] = messages[0]["content"] if len(messages) == 2 else None
    assert systems.pop("question_only") is None
    for text in systems.values():
        assert "2100-12-31 23:59:00" in text and "null" in text
    assert compact_schema(db) in systems["compact_schema"] and compact_schema(db) in systems["few_shot"]
    assert full_schema(db) in systems["full_schema"]
    assert "Question: Which one?\nAnswer: SELECT 7" in systems["few_shot"]


def test_think_adds_words_to_every_prompt_with_a_system_message(db):
    plain, thinks = ({name: PromptBuilder(name, db, think) for name in prompt_names()} for think in (False, True))
    assert [name for name, builder in plain.items() if builder.asks_to_think] == ["reasoning"]
    assert [name for name, builder in thinks.items() if not builder.asks_to_think] == ["question_only"]
    assert [name for name, builder in plain.items() if builder.think] == ["reasoning"]
    assert all(builder.think for builder in thinks.values())
    system, user = thinks["full_schema"].messages("Who?")
    assert "inside <think>...</think>" in system["content"] and "```sql fence, or with null" in system["content"]
    assert plain["reasoning"].messages("Who?") == [system, user]
    assert thinks["question_only"].messages("Who?") == plain["question_only"].messages("Who?") == [user]


SENTENCE = "Read patients, look up subject_id, give gender."


@pytest.mark.parametrize("options", [["--think", "--prompt", "question_only"], ["--prompt", "reasoning"], ["--think"]])
def test_with_think_sft_is_taught_reasoning_before_the_query(data, db, options):
    truths = pd.read_parquet(run(data, db) / "train.parquet")["reward_model"].tolist()
    out = run(data, db, *options)
    messages = pd.read_parquet(out / "sft_valid.parquet")["messages"]
    answers = [row[-1]["content"] for row in messages]
    assert answers[0] == f"<think>{SENTENCE}</think>\n```sql\n{gender_sql(101)}\n```"
    assert answers[2] == "<think>The tables do not hold what is asked for.</think>\nnull"
    asked = ["<think>" in row[0]["content"] for row in messages if row[0]["role"] == "system"]
    assert asked == ([] if "question_only" in options else [True] * len(messages))
    assert pd.read_parquet(out / "train.parquet")["reward_model"].tolist() == truths


def test_few_shot_examples_think_where_the_model_is_to(data, db):
    out = run(data, db, "--prompt", "few_shot", "--think")
    system = pd.read_parquet(out / "train.parquet")["prompt"][0][0]["content"]
    assert system.count("Answer: <think>") == system.count("Answer: ") == 3


def test_full_schema_has_types_keys_and_frequent_values_and_is_valid_sql(db):
    schema = full_schema(db)
    assert "gender VARCHAR(5), -- 'm', 'f'\n" in schema  # 'm' is more frequent
    assert "subject_id INT,\n" in schema  # no identifiers of patients
    assert "FOREIGN KEY (subject_id) REFERENCES patients(subject_id)" in schema
    database = sqlite3.connect(":memory:")
    database.executescript(schema)
    assert database.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone() == (2,)
    database.close()


def test_few_shot_examples_come_from_the_given_gold_and_never_answer_their_own_prompt(data, db):
    out = run(data, db, "--prompt", "few_shot", "--gold_sql_share", "0.5")
    taught = {row[-2]["content"]: row for row in pd.read_parquet(out / "sft_train.parquet")["messages"]}
    shown = set()
    for row in [*taught.values(), *pd.read_parquet(out / "train.parquet")["prompt"]]:
        system = row[0]["content"]
        shown |= {line.removeprefix("Question: ") for line in system.splitlines() if line.startswith("Question: ")}
    assert shown and shown <= taught.keys()
    assert all(f"Question: {question}\n" not in row[0]["content"] for question, row in taught.items())


def test_manifest_hashes_inputs_and_outputs(data, db):
    out = run(data, db)
    manifest = json.loads((out / "manifest.json").read_text())
    inputs = {Path(path).name for path in manifest["inputs"]}
    assert {"hospital.sqlite", "data.json", "label.json", "annotated.json", "compact_schema.jinja"} <= inputs
    assert all(sha256_file(Path(path)) == sha256 for path, sha256 in manifest["inputs"].items())
    for name, output in manifest["outputs"].items():
        assert output == {"rows": len(pd.read_parquet(out / name)), "sha256": sha256_file(out / name)}
    counts = manifest["counts"]["valid"]
    assert (counts["questions"], counts["answerable"], counts["unanswerable"], counts["failed_gold"]) == (
        4,
        3,
        1,
        1,
    )
    # Each age 40..47 belongs to one patient: the count is 1 on 8 of 17 answerable train questions.
    assert manifest["counts"]["train"]["select_1"] == pytest.approx(8 / 17)


def test_empty_gold_is_reported_and_the_likely_cause_is_named(data, db, capsys):
    nothing = [(f"Who is {age}?", f"SELECT subject_id FROM patients WHERE age = {age}", "t") for age in (1, 2, 3)]
    null = [("How old is the oldest of nobody?", "SELECT max(age) FROM patients WHERE age > 99", "u")]
    write_split(data / "test", [*nothing, *null, ("a", gender_sql(100), "v"), ("b", "null", "-")])
    counts = json.loads((run(data, db) / "manifest.json").read_text())["counts"]
    shares = {key: counts["test"][key] for key in ("empty", "null_only", "most_frequent", "select_1")}
    assert shares == pytest.approx({"empty": 3 / 5, "null_only": 1 / 5, "most_frequent": 3 / 5, "select_1": 0})
    assert counts["test"]["best_constant"] == {
        "accuracy": {"policy": "always returns no row", "value": pytest.approx(3 / 6)},
        "reward": {"policy": 'always answers [["f"]]', "value": pytest.approx(0.1 + 0.9 / 6)},
    }
    # 8 of the 18 questions of train whose gold executes have the answer 1; the failed one counts nowhere.
    assert (counts["train"]["empty"], counts["train"]["null_only"]) == (0, 0)
    assert counts["train"]["best_constant"]["accuracy"] == {
        "policy": 'always answers [["1.0"]]', "value": pytest.approx(8 / 18)
    }  # fmt: skip
    printed = capsys.readouterr().out
    (warning,) = [line for line in printed.splitlines() if line.startswith("warning:")]
    assert warning.startswith("warning: test: 80.0% of the gold answers are empty or NULL") and "--timeshift" in warning
    assert "test: the best constant policy earns accuracy 50.0% (always returns no row), reward 0.250" in printed
    assert "gold answer empty" in printed and "most frequent gold answer" in printed


def test_a_split_without_answerable_questions_has_no_shares(data, db):
    write_split(data / "test", [("a", "null", "-")])
    counts = json.loads((run(data, db) / "manifest.json").read_text())["counts"]["test"]
    assert counts["empty"] is counts["null_only"] is counts["most_frequent"] is None
    assert counts["best_constant"]["reward"] == {"policy": "always abstains", "value": 1.0}


def test_the_deadline_of_an_answer_is_ten_times_that_of_its_gold_query(data, db, monkeypatch, capsys):
    times = iter([0.34, 0.31, 0.33])  # at first, and twice again

    def slow(sandbox, path, sql, *_):
        execution = execute(sandbox, path, sql)
        seconds = next(times) if sql == VALID[1][1] else 0.01
        return dataclasses.replace(execution, seconds=seconds)

    execute = SqlSandbox.execute
    monkeypatch.setattr(SqlSandbox, "execute", slow)
    out = run(data, db)
    deadlines = {info["id"]: info["timeout_s"] for info in pd.read_parquet(out / "valid.parquet")["extra_info"]}
    assert deadlines == {"valid-0": 1.0, "valid-1": 4.0, "valid-2": 1.0, "valid-3": 1.0}
    assert {info["timeout_s"] for info in pd.read_parquet(out / "train.parquet")["extra_info"]} == {1.0}
    assert json.loads((out / "manifest.json").read_text())["slowest_gold_seconds"] == 0.31
    assert "the slowest gold query takes 0.310 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "timeout_s"), [(0.0, 1), (0.1, 1), (0.101, 2), (0.64, 7), (60.0, 600), (3600.0, 3600)]
)
def test_the_deadline_is_in_whole_seconds_between_one_and_the_highest_allowed(seconds, timeout_s):
    assert training_timeout(seconds) == timeout_s


def test_absent_split_and_hidden_labels_are_named(data, db, capsys):
    shutil.rmtree(data / "train")
    write_split(data / "test", VALID)
    (data / "test" / "label.json").unlink()
    out = run(data, db)
    printed = capsys.readouterr().out
    assert "train: no folder" in printed and "test:" in printed and "hidden labels" in printed
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json",
        "sft_valid.parquet",
        "valid.parquet",
    ]


def test_rewards_are_computed_on_a_database_with_the_same_answers(data, db):
    indexed = build_indexed(db)
    assert indexed == db.with_name("hospital_indexed.sqlite")
    with sqlite3.connect(indexed) as database:
        plan = database.execute("EXPLAIN QUERY PLAN " + gender_sql(101)).fetchall()[0][-1]
    database.close()
    assert "USING INDEX" in plan
    rows = pd.read_parquet(run(data, db, "--reward_db", str(indexed)) / "valid.parquet")
    assert {info["db_path"] for info in rows["extra_info"]} == {str(indexed)}
    manifest = json.loads((data.parent / "out" / "manifest.json").read_text())
    assert str(indexed) in manifest["inputs"]


def test_a_reward_database_with_another_answer_is_refused(data, db):
    indexed = build_indexed(db)
    with sqlite3.connect(indexed) as database:
        database.execute("UPDATE patients SET gender = 'x' WHERE subject_id = 101")
    database.close()
    with pytest.raises(InputError, match="1 of .* gold queries have another answer on .*hospital_indexed.sqlite"):
        run(data, db, "--reward_db", str(indexed))
    assert not (data.parent / "out").exists()


def test_a_rerun_leaves_no_file_of_an_earlier_one(data, db):
    assert (run(data, db) / "train.parquet").exists()
    shutil.rmtree(data / "train")
    assert not (run(data, db) / "train.parquet").exists()


def test_prompt_length_is_counted_in_tokens_of_the_chat_template(data, db, tmp_path, capsys):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    path = str(tmp_path / "tokenizer")
    tokenizer.save_pretrained(path)
    options = ("--prompt", "question_only", "--tokenizer", path, "--max_prompt_length", "6")
    with pytest.raises(InputError, match="no chat template"):
        run(data, db, *options)
    tokenizer.chat_template = (
        "{% for m in messages %}<s> {{ m.content }} {% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    )
    tokenizer.save_pretrained(path)
    counts = json.loads((run(data, db, *options) / "manifest.json").read_text())["counts"]["valid"]
    lengths = [len(question.split()) + 2 for question, _, _ in VALID]
    assert counts["prompt_max"] == max(lengths)
    assert counts["prompt_mean"] == pytest.approx(sum(lengths) / len(lengths))
    assert counts["prompts_over_limit"] == sum(length > 6 for length in lengths)
    assert "prompts over 6 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_files_of_windows_editors_are_read(data, db, encoding):
    expected = {name: pd.read_parquet(run(data, db) / f"{name}.parquet") for name in ("train", "valid", "sft_train")}
    for path in data.glob("*/*.json"):
        path.write_text(path.read_text(), encoding=encoding)
    out = run(data, db)
    for name, rows in expected.items():
        pd.testing.assert_frame_equal(pd.read_parquet(out / f"{name}.parquet"), rows)


@pytest.mark.parametrize(
    "label",
    [
        *("NULL", "Null", "null;", "NULL;", " null ", "\tnull\n", "null.", "'null'", '"NULL"', "`null`", "**null**"),
        *("```\nnull\n```", "```sql\nNULL;\n```", "<answer>null</answer>", "SQL: null", "\ufeffnull"),
    ],
)
def test_a_label_abstains_where_the_reward_reads_an_abstention(data, db, label):
    edit_json(data / "valid" / "label.json", lambda labels: labels.update({"valid-2": label}))
    edit_json(data / "train" / "label.json", lambda labels: labels.update({"train-16": label}))
    out = run(data, db)
    rows = pd.read_parquet(out / "valid.parquet")
    assert rows["reward_model"][2]["ground_truth"] == ABSTAIN and not rows["extra_info"][2]["answerable"]
    assert list(json.loads((out / "manifest.json").read_text())["failed_gold"]["train"]) == ["train-18"]
    assert "null" in [row[-1]["content"] for row in pd.read_parquet(out / "sft_train.parquet")["messages"]]


@pytest.mark.parametrize("label", ["SELECT null", "SELECT 'null';", "select NULL WHERE 1 = 0"])
def test_a_query_for_null_is_no_abstention(data, db, label):
    edit_json(data / "valid" / "label.json", lambda labels: labels.update({"valid-0": label}))
    row = pd.read_parquet(run(data, db) / "valid.parquet").iloc[0]
    assert row["extra_info"]["answerable"] and row["extra_info"]["gold_sql"] == label


def edit_json(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def break_nothing(data, db):
    pass


def remove_data(data, db):
    shutil.rmtree(data)


def empty_data(data, db):
    shutil.rmtree(data)
    data.mkdir()


def bad_json(data, db):
    (data / "valid" / "label.json").write_text('{\n"valid-0": "SELECT 1",\noops}')


def wrong_shape(data, db):
    (data / "valid" / "data.json").write_text("[]")


def not_text(data, db):
    (data / "valid" / "data.json").write_bytes(b"\xff\xfe\x00")


def label_without_question(data, db):
    edit_json(data / "train" / "label.json", lambda labels: labels.update(extra="null"))


def question_without_label(data, db):
    edit_json(data / "train" / "label.json", lambda labels: labels.pop("train-3"))


def no_label_file(data, db):
    (data / "valid" / "label.json").unlink()


def no_question_file(data, db):
    (data / "valid" / "data.json").unlink()


def label_not_text(data, db):
    edit_json(data / "train" / "label.json", lambda labels: labels.update({"train-3": None}))


def fence_in_a_label(data, db):
    edit_json(data / "train" / "label.json", lambda labels: labels.update({"train-3": "SELECT '```' FROM patients"}))


def id_twice(data, db):
    edit_json(data / "train" / "data.json", lambda content: content["data"].append(content["data"][0]))


def empty_split(data, db):
    edit_json(data / "valid" / "data.json", lambda content: content["data"].clear())


def no_database(data, db):
    db.unlink()


def empty_database(data, db):
    db.write_bytes(b"")


def text_database(data, db):
    db.write_text("not a database, only some text " * 100)


def other_database(data, db):
    db.unlink()
    with sqlite3.connect(db) as database:
        database.execute("CREATE TABLE birds (name TEXT)")
    database.close()


def truncated_database(data, db):
    with sqlite3.connect(db) as database:
        database.executemany("INSERT INTO patients VALUES (?, 1, 'm', 1)", ((i,) for i in range(100, 20_000)))
    database.close()
    db.write_bytes(db.read_bytes()[:20_000])


def no_train(data, db):
    shutil.rmtree(data / "train")


@pytest.mark.parametrize(
    ("breakage", "options", "message"),
    [
        (remove_data, [], "no folder .*data"),
        (empty_data, [], "none of the splits"),
        (bad_json, [], "label.json: bad JSON in line 3, column 1"),
        (wrong_shape, [], "data.json: expected"),
        (not_text, [], "data.json is not a UTF-8 text file"),
        (label_without_question, [], "extra in label.json but not in data.json"),
        (question_without_label, [], "train-3 in data.json but not in label.json"),
        (no_label_file, [], "no .*valid/label.json"),
        (no_question_file, [], "no .*valid/data.json"),
        (label_not_text, [], "the label of train-3"),
        (id_twice, [], "train-0 occurs twice"),
        (empty_split, [], "the split has no questions"),
        (no_database, [], "no database at"),
        (empty_database, [], "holds no tables"),
        (text_database, [], "cannot read .*hospital.sqlite as a SQLite database"),
        (truncated_database, [], "hospital.sqlite"),
        (other_database, [], "every gold query fails .*no such table"),
        (
            break_nothing,
            ["--prompt", "haiku"],
            "unknown prompt 'haiku'; choose one of compact_schema, few_shot",
        ),
        (break_nothing, ["--gold_sql_share", "1.5"], "--gold_sql_share 1.5"),
        (break_nothing, ["--gold_sql_share", "0"], "--gold_sql_share 0"),
        (break_nothing, ["--gold_sql_share", "0.001"], "all of them on one side"),
        (break_nothing, ["--max_prompt_length", "10"], "give the --tokenizer"),
        (break_nothing, ["--max_prompt_length", "-1"], "at least 1 token"),
        (break_nothing, ["--timeout_s", "nan"], "give seconds above 0"),
        (break_nothing, ["--timeout_s", "7200"], "at most 3600"),
        (break_nothing, ["--tokenizer", "./no-such-folder"], "cannot load the tokenizer"),
        (no_train, ["--prompt", "few_shot"], "no train split"),
        (fence_in_a_label, ["--think"], "the label of train-3 is more than a query"),
    ],
)
def test_bad_input_gives_one_line_and_leaves_nothing(data, db, breakage, options, message):
    breakage(data, db)
    with pytest.raises(InputError, match=message) as raised:
        run(data, db, *options)
    assert "\n" not in str(raised.value)
    assert not (data.parent / "out").exists()


def test_a_failed_rerun_keeps_the_earlier_outputs(data, db):
    out = run(data, db)
    before = {path.name: sha256_file(path) for path in out.iterdir()}
    bad_json(data, db)
    with pytest.raises(InputError):
        run(data, db)
    assert {path.name: sha256_file(path) for path in out.iterdir()} == before


def test_a_file_in_place_of_the_output_folder_is_kept(data, db):
    (data.parent / "out").write_text("a file")
    with pytest.raises(InputError, match="is not a folder"):
        run(data, db)
    assert (data.parent / "out").read_text() == "a file"


def test_real_gold_gives_the_published_answers(shared_data, tmp_path):
    source = shared_data / "ehrsql2024"
    out = tmp_path / "out"
    main(["--data_dir", str(source), "--db", str(source / "mimic_iv.sqlite"), "--out_dir", str(out)])
    verified = json.loads((source / "verified_ids.json").read_text())
    for split, least in (("train", 4500), ("valid", 900)):
        rows = pd.read_parquet(out / f"{split}.parquet")
        truths = {row.extra_info["id"]: row.reward_model["ground_truth"] for row in rows.itertuples()}
        published = json.loads((source / split / "answer.json").read_text())
        assert len(verified[split]) > least
        wrong = [id for id in verified[split] if truths[id] != canonical_answer(ast.literal_eval(published[id]))]
        assert wrong == []

    counts = json.loads((out / "manifest.json").read_text())["counts"]
    assert (counts["train"]["questions"], counts["train"]["unanswerable"]) == (5124, 450)
    assert (counts["valid"]["questions"], counts["valid"]["unanswerable"]) == (1163, 232)
    assert counts["train"]["failed_gold"] == counts["valid"]["failed_gold"] == 0
    assert counts["train"]["select_1"] == pytest.approx(0.149, abs=5e-4)
    assert counts["valid"]["select_1"] == pytest.approx(0.165, abs=5e-4)
    for split in ("train", "valid"):
        assert 931 * (counts[split]["empty"] + counts[split]["null_only"]) <= 1
    assert counts["valid"]["templates_seen"] + counts["valid"]["templates_unseen"] == 134
