"""The simulated teacher's misreadings: what they change, and which wrong answers an evaluation says they give."""

import json
import random
import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from data_prep import make_teacher
from data_prep.common.errors import InputError
from data_prep.sql.misreadings import MISREADINGS, misread
from recipes.evaluation.generation import Response
from recipes.tasks.ehrsql.evaluation import grade_responses, summarize, summary_table
from recipes.tasks.ehrsql.misreadings import SEVERAL, misread_answers, misreading_counts
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, canonical_answer

BY_NAME = {misreading.name: misreading for misreading in MISREADINGS}
RELATIVE = "datetime(t.charttime,'start of year') = datetime(current_time,'start of year','-1 year')"


# Names, the demo's and EHRSQL-2024's spelling, and what comes of each.
@pytest.mark.parametrize(
    ("name", "sql", "changed"),
    [
        ("last is first", "a ORDER BY charttime DESC LIMIT 1", "a ORDER BY charttime ASC LIMIT 1"),
        (
            "last is first",
            "a ( b ORDER BY admissions.admittime DESC LIMIT 1 ) ORDER BY labevents.charttime DESC LIMIT 1",
            "a ( b ORDER BY admissions.admittime ASC LIMIT 1 ) ORDER BY labevents.charttime ASC LIMIT 1",
        ),
        ("last is first", "a ORDER BY COUNT(*) DESC ) LIMIT 1", None),
        ("last is first", "a ORDER BY n DESC LIMIT 10", None),
        ("rows for patients", "SELECT COUNT( DISTINCT subject_id ) FROM a", "SELECT COUNT(*) FROM a"),
        ("rows for patients", "SELECT COUNT( DISTINCT a.subject_id ) FROM a", "SELECT COUNT(*) FROM a"),
        ("rows for patients", "SELECT COUNT(DISTINCT drug) FROM a", None),
        ("duplicates in lists", "SELECT DISTINCT a FROM b", "SELECT a FROM b"),
        ("duplicates in lists", "SELECT a FROM b WHERE c IN ( SELECT DISTINCT d FROM e )", None),
        ("count for yes or no", "SELECT COUNT(*)>0 FROM a", "SELECT COUNT(*) FROM a"),
        ("relative time ignored", f"a WHERE b = 1 AND {RELATIVE} AND c = 2", "a WHERE b = 1 AND c = 2"),
        ("relative time ignored", f"a WHERE {RELATIVE} AND c = 2", "a WHERE c = 2"),
        ("relative time ignored", f"( a WHERE {RELATIVE} GROUP BY c )", "( a GROUP BY c )"),
        ("relative time ignored", f"( a WHERE {RELATIVE} )", "( a )"),
        ("relative time ignored", "a WHERE datetime(b) >= datetime(current_time,'-3 month')", "a"),
        ("relative time ignored", "a WHERE datetime(b) >= datetime(c,'-3 month')", None),
        ("since and until are in", "strftime('%Y-%m',a.b) >= '2100-03'", "strftime('%Y-%m',a.b) = '2100-03'"),
        ("since and until are in", "strftime('%Y',b) <= '2100' AND c", "strftime('%Y',b) = '2100' AND c"),
        ("since and until are in", "strftime('%J',a) >= strftime('%J',b)", None),
        ("rank below k", "a ) WHERE r <= 3 )", "a ) WHERE r < 3 )"),
        ("rank below k", "a ) AS T1 WHERE T1.C1 <= 3", "a ) AS T1 WHERE T1.C1 < 3"),
        ("rank below k", "a WHERE age <= 3", None),
    ],
)
def test_each_changes_what_it_is_about_and_nothing_else(name, sql, changed):
    assert BY_NAME[name].apply(sql) == (sql if changed is None else changed)


def test_names_are_different_and_meanings_are_one_sentence_each():
    assert len(BY_NAME) == len(MISREADINGS) >= 6
    for misreading in MISREADINGS:
        assert re.fullmatch(r"[A-Z][^.]*\.", misreading.meaning)


FULL = (
    "SELECT DISTINCT a FROM b WHERE c = {} AND strftime('%Y-%m',d) >= '2100-03' AND datetime(d) >= "
    "datetime(current_time,'-3 month') AND e IN ( SELECT COUNT(*)>0 FROM f WHERE g = {} ) ORDER BY d DESC LIMIT 1"
)
NASTY = [
    "COUNT(*)>0",
    "SELECT DISTINCT a",
    "a ORDER BY b DESC LIMIT 1",
    "' AND datetime(a) = datetime(current_time,'x') AND '",
    "COUNT( DISTINCT subject_id )",
    'x" WHERE r <= 3',
    "'0'",
]


def quoted(value: str, mark: str) -> str:
    return mark + value.replace(mark, 2 * mark) + mark


@settings(deadline=None)  # the machine may be busy
@given(st.sampled_from(NASTY) | st.text(), st.sampled_from(NASTY) | st.text(), st.sampled_from("'\""), st.integers())
def test_values_in_quotes_are_never_altered_and_never_matter(first, second, mark, seed):
    values = quoted(first, mark), quoted(second, mark)
    changed, names = misread(FULL.format(*values), 0.5, random.Random(seed))
    plain, plain_names = misread(FULL.format("{}", "{}"), 0.5, random.Random(seed))
    assert names == plain_names
    assert changed == plain.format(*values)


@settings(deadline=None)  # the machine may be busy
@given(st.text() | st.sampled_from(NASTY).map(lambda value: FULL.format(quoted(value, "'"), value)), st.integers())
def test_without_probability_nothing_is_misread(sql, seed):
    assert misread(sql, 0, random.Random(seed)) == (sql, [])


@settings(deadline=None)  # the machine may be busy
@given(st.text())
def test_any_text_can_be_misread_and_abstentions_stay(sql):
    changed, names = misread(sql, 1, random.Random(0))
    assert (changed != sql) == bool(names)
    assert misread(ABSTAIN, 1, random.Random(0)) == (ABSTAIN, [])


def test_a_query_with_an_open_quote_is_left_alone():
    assert misread("SELECT DISTINCT a FROM b WHERE c = 'it''s", 1, random.Random(0))[1] == []


def test_each_is_made_with_its_probability():
    sql = "SELECT DISTINCT a FROM b ORDER BY c DESC LIMIT 1"
    rng = random.Random(0)
    counts = Counter(name for _ in range(2000) for name in misread(sql, 0.75, rng)[1])
    assert counts.keys() == {"last is first", "duplicates in lists"}
    assert all(1400 < count < 1600 for count in counts.values())


# The labels of a teacher


LABELS = {f"q{n}": f"SELECT DISTINCT a FROM t{n % 2} WHERE b = {n}" for n in range(40)} | {
    f"n{n}": ABSTAIN for n in range(10)
}


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "label.json"
    path.write_text(json.dumps(LABELS))
    return path


def run_make_teacher(labels, *options):
    out = labels.with_name("teacher.json")
    make_teacher.main(["--labels", str(labels), "--out_file", str(out), *options])
    return json.loads(out.read_text())


def test_a_share_of_the_questions_is_labelled_evenly_over_skeletons(labels, capsys):
    teacher = run_make_teacher(labels)
    assert len(teacher) == 20
    assert Counter(LABELS[id].split(" WHERE")[0] for id in teacher) == {
        "SELECT DISTINCT a FROM t0": 8,
        "SELECT DISTINCT a FROM t1": 8,
        ABSTAIN: 4,
    }
    misread_ids = [id for id, label in teacher.items() if label != LABELS[id]]
    assert all(teacher[id] == LABELS[id].replace("DISTINCT ", "") for id in misread_ids)
    assert 0 < len(misread_ids) < 16
    printed = capsys.readouterr().out
    assert f"teacher: 20 of 50 questions, 4 unanswerable, {len(misread_ids)} queries misread" in printed
    assert f"duplicates in lists {len(misread_ids)}, count for yes or no 0" in printed


def test_probability_0_copies_and_1_always_misreads(labels):
    assert run_make_teacher(labels, "--probability", "0", "--share", "1") == LABELS
    always = run_make_teacher(labels, "--probability", "1", "--share", "1")
    assert not any("DISTINCT" in label for label in always.values())


def test_the_seed_decides_and_a_question_is_misread_alike_in_every_share(labels):
    assert run_make_teacher(labels) == run_make_teacher(labels)
    assert run_make_teacher(labels) != run_make_teacher(labels, "--seed", "1")
    everything = run_make_teacher(labels, "--share", "1")
    assert run_make_teacher(labels).items() <= everything.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--share", "0"], "--share is 0; give a share above 0"),
        (["--share", "1.5"], "--share is 1.5"),
        (["--share", "nan"], "--share is nan"),
        (["--share", "0.001"], "--share 0.001 of the 50 questions of .* is none"),
        (["--probability", "-1"], "--probability is -1; give a probability from 0 to 1"),
        (["--labels", "absent.json"], "no file absent.json"),
    ],
)
def test_bad_options_of_make_teacher(labels, options, message):
    with pytest.raises(InputError, match=message) as raised:
        run_make_teacher(labels, *options)
    assert "\n" not in str(raised.value)
    assert not labels.with_name("teacher.json").exists()


# The evaluation names them


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "ehr.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE visits (subject_id INTEGER, admittime TEXT, unit TEXT);"
            "INSERT INTO visits VALUES (1, '2100-01-01', 'a'), (1, '2100-01-02', 'a'), (2, '2100-02-05', 'b'),"
            "(2, '2100-02-06', 'c'), (3, '2100-02-07', 'c');"
        )
    return path


PATIENTS = "SELECT COUNT( DISTINCT subject_id ) FROM visits"
SINCE = f"{PATIENTS} WHERE strftime('%Y-%m',admittime) >= '2100-01'"


def count(number):
    return canonical_answer([(number,)])


def test_answers_of_misreadings_alone_and_together(db):
    assert misread_answers(SINCE, count(3), str(db)) == {
        "rows for patients": {count(5)},
        "since and until are in": {count(1)},
        SEVERAL: {count(2)},
    }


def test_a_misreading_that_changes_no_answer_or_fails_is_not_named(db):
    assert misread_answers("SELECT DISTINCT unit FROM visits WHERE subject_id = 3", '[["c"]]', str(db)) == {}
    assert misread_answers(f"{PATIENTS} WHERE unknown = 1", count(3), str(db)) == {}


def row(id, gold_sql, ground_truth, db):
    return {
        "data_source": "ehrsql",
        "prompt": [{"role": "user", "content": id}],
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {
            "id": id,
            "question": id,
            "template": "",
            "seen_template": "seen",
            "answerable": ground_truth != ABSTAIN,
            "db_path": str(db),
            "gold_sql": gold_sql,
        },
    }


CASES = {  # id: gold, its answer, the response, each misreading that applies and whether it gives that answer
    "misread": (PATIENTS, count(3), "SELECT COUNT(*) FROM visits", {"rows for patients": True}),
    "same answer": (PATIENTS, count(3), "SELECT MAX(subject_id) + 2 FROM visits", {"rows for patients": True}),
    "other mistake": (PATIENTS, count(3), "SELECT MIN(subject_id) FROM visits", {"rows for patients": False}),
    "right": (PATIENTS, count(3), PATIENTS, {"rows for patients": False}),
    "abstained": (PATIENTS, count(3), "null", {"rows for patients": False}),
    "no query": (PATIENTS, count(3), "", {"rows for patients": False}),
    "failed": (PATIENTS, count(3), "SELECT nobody FROM visits", {"rows for patients": False}),
    "two at once": (
        SINCE,
        count(3),
        "SELECT COUNT(*) FROM visits WHERE strftime('%Y-%m',admittime) = '2100-01'",
        {"rows for patients": False, "since and until are in": False, SEVERAL: True},
    ),
    "gold hidden": ("", count(3), "SELECT COUNT(*) FROM visits", {}),
    "unanswerable": (ABSTAIN, ABSTAIN, "SELECT COUNT(*) FROM visits", {}),
    "gold failed": ("SELECT COUNT( DISTINCT subject_id ) FROM x", GOLD_FAILED, "SELECT COUNT(*) FROM visits", {}),
}


def test_an_evaluation_names_the_misreadings_behind_wrong_answers(db):
    rows = [row(id, gold, truth, db) for id, (gold, truth, _, _) in CASES.items()]
    samples = grade_responses(rows, [Response(response, 1, "stop") for _, _, response, _ in CASES.values()])
    assert {sample.id: sample.misreadings for sample in samples} == {id: case[3] for id, case in CASES.items()}
    expected = {
        "rows for patients": {"changes": 8, "wrong": 2},
        "since and until are in": {"changes": 1, "wrong": 0},
        SEVERAL: {"changes": 1, "wrong": 1},
    }
    assert misreading_counts(samples) == expected
    assert summarize(samples)["misreadings"] == expected


def test_the_table_is_there_only_where_a_misreading_applies(db, capsys):
    for gold, shown in ((PATIENTS, True), ("", False)):
        samples = grade_responses([row("a", gold, count(3), db)], [Response("SELECT 1", 1, "stop")])
        Console().print(summary_table(summarize(samples) | {"canaries": {}}, ""))
        assert ("rows for patients" in capsys.readouterr().out) == shown


def test_no_reward_and_no_prompt_knows_of_them():
    root = Path(__file__).parent.parent
    files = [*root.glob("reward_fns/**/*.py"), *root.glob("configs/**/*.jinja"), root / "data_prep/sql/prompts.py"]
    assert len(files) > 10
    assert not [file for file in files if "misread" in file.read_text().lower()]


# Real data


def test_each_applies_to_the_real_gold_queries_too(shared_data):
    golds = json.loads((shared_data / "ehrsql2024/valid/label.json").read_text()).values()
    applied = {
        name: [(gold, changed) for gold in golds if (changed := misreading.apply(gold)) != gold]
        for name, misreading in BY_NAME.items()
    }
    assert {name for name, pairs in applied.items() if len(pairs) >= 50} == BY_NAME.keys()
    for pairs in applied.values():
        for gold, changed in pairs:
            assert set(re.findall(r"= '(?:[^']|'')*'", gold)) <= set(re.findall(r"= '(?:[^']|'')*'", changed))
