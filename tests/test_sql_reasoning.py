"""The reasoning that SFT with ``--think`` teaches: what it says of a query, and that the query behind it is read."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep import build_ehr_db, make_demo_ehr, make_demo_questions
from data_prep.common.errors import InputError
from data_prep.sql.reasoning import NO_ANSWER, reasoned, reasoning
from data_prep.sql.source import Question, read_split
from reward_fns.sql.answers import ABSTAIN
from reward_fns.sql.text import clean_up, extract_sql

LAST_VISIT = (
    "SELECT hadm_id FROM admissions WHERE subject_id = 7 AND dischtime IS NOT NULL ORDER BY admittime DESC LIMIT 1"
)


# The demo's and EHRSQL-2024's spelling.
@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("SELECT COUNT(*) FROM admissions", "Read admissions, count rows."),
        ("SELECT COUNT(*)>0 FROM a WHERE a.b LIKE 'x'", "Read a, look up b, tell whether there is any row."),
        (
            "SELECT COUNT( DISTINCT a.subject_id ) FROM a WHERE a.itemid IN ( SELECT d.itemid FROM d "
            "WHERE d.label = 'it''s WHERE x = 1 FROM y' ) AND strftime('%Y-%m', a.charttime) <= '2100-05'",
            "Read a and d, look up label, keep times until 2100-05, count different subject_id.",
        ),
        (
            f"SELECT SUM(dose) FROM rx WHERE hadm_id IN ( {LAST_VISIT} ) AND drug IN ( 'a', 'b' )",
            "Read rx and admissions, look up subject_id and drug, take the last by admittime, take the sum of dose.",
        ),
        (
            "SELECT c.v FROM c WHERE datetime(c.t,'start of year') = datetime(current_time,'start of year','-1 year') "
            "AND strftime('%m-%d',c.t) = '05-03' AND c.v < -1.5 ORDER BY c.t ASC LIMIT 1",
            "Read c, look up v, keep times last year and in 05-03, take the first by t, give v.",
        ),
        (
            "SELECT DISTINCT a FROM b WHERE datetime(t) >= datetime(current_time,'-3 month') "
            "AND datetime(t,'start of day') = datetime(current_time,'start of day','-0 day')",
            "Read b, keep times this day and since 3 months ago, list different a.",
        ),
        (
            "SELECT T1.a FROM ( SELECT b.a, DENSE_RANK() OVER ( ORDER BY COUNT(*) DESC ) AS C1 FROM b JOIN c "
            "ON b.i = c.i GROUP BY b.a ) AS T1 WHERE T1.C1 <= 3",
            "Read b and c, rank by number of rows, give a.",
        ),
        ("WITH t AS (SELECT a FROM b) SELECT max(a) FROM t", "Read b, compute the answer."),
        ("SELECT strftime('%J',x) - strftime('%J',y) FROM i WHERE stay_id = 3", "Read i, look up stay_id, compute the "
         "answer."),
        ("SELECT 1", "Compute the answer."),
        ("no SQL at all", "Compute the answer."),
        (ABSTAIN, NO_ANSWER),
    ],
)  # fmt: skip
def test_it_says_what_stands_in_the_query(sql, sentence):
    assert reasoning(sql) == sentence


def target(label: str) -> str:
    return reasoned(Question("q", 0, "?", label, ""))


def test_the_query_stands_in_a_fence_and_an_abstention_alone():
    assert target("SELECT 1") == "<think>Compute the answer.</think>\n```sql\nSELECT 1\n```"
    assert target(ABSTAIN) == f"<think>{NO_ANSWER}</think>\nnull"


@pytest.mark.parametrize(
    "label",
    [
        "<think>Count.</think>SELECT 1",
        "```sql\nSELECT 1\n```",
        "<answer>SELECT 1</answer>",
        "SELECT '```'",
        "SELECT 1;\nThis counts.",
        "'SELECT 1'",
    ],
)
def test_a_label_that_is_more_than_a_query_is_refused(label):
    with pytest.raises(InputError, match="the label of q is more than a query") as raised:
        target(label)
    assert "\n" not in str(raised.value)


PIECES = [
    "SELECT a FROM b",
    "```",
    "```sql\n",
    "<think>",
    "</Think>",
    "</answer>",
    "null",
    "'",
    '"',
    ";",
    "--",
    "\n",
    " ",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=9), min_size=1).map("".join).map(str.strip).filter(bool))
def test_any_label_is_read_back_as_it_is_or_refused(label):
    try:
        read = extract_sql(target(label))
    except InputError:
        return
    assert (ABSTAIN if read.abstained else read.sql) == label


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The labels of the demo's training questions, gold and the teacher's, and their database."""
    work = tmp_path_factory.mktemp("reasoning")
    make_demo_ehr.main(["--out_dir", str(work / "tree"), "--patients", "60"])
    build_ehr_db.main(["--data_dir", str(work / "tree"), "--out_dir", str(work)])
    db, train = work / "mimic_iv.sqlite", work / "questions" / "train"
    make_demo_questions.make_questions(db, work / "questions", {"train": 400, "valid": 100, "test": 100})
    questions = read_split(train, train / "teacher.json")
    return [label for question in questions for label in (question.gold, question.teacher) if label], db


@pytest.fixture(scope="module")
def real(shared_data):
    source = shared_data / "ehrsql2024"
    return [q.gold for split in ("train", "valid") for q in read_split(source / split)], source / "mimic_iv.sqlite"


@pytest.mark.parametrize("source", ["demo", "real"])
def test_the_grader_reads_each_label_in_an_accepted_format(source, request):
    labels, _ = request.getfixturevalue(source)
    for label in set(labels):
        read = extract_sql(target(label))
        assert (read.sql, read.abstained) == ((None, True) if label == ABSTAIN else (label, False))
        assert read.format_ok, label


@pytest.mark.parametrize("source", ["demo", "real"])
def test_sqlite_reads_the_tables_and_columns_that_the_reasoning_names(source, request):
    labels, path = request.getfixturevalue(source)
    with closing(sqlite3.connect(path)) as database:
        for label in set(labels) - {ABSTAIN}:
            tables, columns = read_by_sqlite(database, label)
            steps = dict(step.split(" ", 1) for step in reasoning(label)[:-1].replace("look up", "look_up").split(", "))
            assert set(steps["Read"].split(" and ")) == tables, label
            assert set(steps.get("look_up", "").split(" and ")) <= columns | {""}, label


def read_by_sqlite(database: sqlite3.Connection, sql: str) -> tuple[set[str], set[str]]:
    """The tables and the columns that SQLite's compiler says a query reads."""
    read = set()

    def note(action, table, column, *_):
        if action == sqlite3.SQLITE_READ:
            read.add((table, column))
        return sqlite3.SQLITE_OK

    database.set_authorizer(note)
    database.execute(f"EXPLAIN {clean_up(sql)}").fetchall()
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    return {table for table, _ in read if table in names and table != "sqlite_master"}, {column for _, column in read}
