"""What is wrong with a wrong answer: pairs of queries, edits of real gold queries, any text, and real executions."""

import json
import re
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from recipes.evaluation.generation import Response
from recipes.tasks.ehrsql.error_kinds import (
    ABSTAINED,
    AGGREGATION,
    ANSWERED,
    COLUMN,
    CONDITION,
    DISTINCT,
    FAILED,
    JOIN,
    KINDS,
    NEAR_VALUE,
    NO_QUERY,
    ORDER,
    OTHER,
    OTHER_VALUE,
    TABLE,
    TIME,
    UNREADABLE,
    clause_kinds,
    error_kinds,
)
from recipes.tasks.ehrsql.evaluation import grade_responses, log_lines, summarize, summary_table
from reward_fns.ehrsql import grade
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, canonical_answer

# In EHRSQL-2024's style, and what the edits below make of them.
DRUGS = (
    "SELECT COUNT( DISTINCT admissions.subject_id ) FROM admissions WHERE admissions.hadm_id IN ( "
    "SELECT prescriptions.hadm_id FROM prescriptions WHERE prescriptions.drug = 'fenofibrate' AND "
    "strftime('%Y-%m',prescriptions.starttime) >= '2100-06' )"
)
RANKED = (
    "SELECT d_icd_procedures.long_title FROM d_icd_procedures WHERE d_icd_procedures.icd_code IN ( SELECT T1.icd_code "
    "FROM ( SELECT procedures_icd.icd_code, DENSE_RANK() OVER ( ORDER BY COUNT(*) DESC ) AS C1 FROM procedures_icd "
    "WHERE datetime(procedures_icd.charttime) >= datetime(current_time,'-1 year') GROUP BY procedures_icd.icd_code ) "
    "AS T1 WHERE T1.C1 <= 3 )"
)
LAST = (
    "SELECT labevents.valuenum FROM labevents WHERE labevents.hadm_id IN ( SELECT admissions.hadm_id FROM admissions "
    "WHERE admissions.subject_id = 10026255 AND admissions.dischtime IS NOT NULL ) AND labevents.itemid IN ( SELECT "
    "d_labitems.itemid FROM d_labitems WHERE d_labitems.label = 'chloride' ) ORDER BY labevents.charttime DESC LIMIT 1"
)
YES_NO = "SELECT COUNT(*)>0 FROM admissions WHERE admissions.age BETWEEN 30 AND 39 AND admissions.insurance = 'other'"


def joined(on):
    return (
        f"select count(distinct a.subject_id) from admissions as a join prescriptions p {on} "
        "where p.drug = \"fenofibrate\" and strftime('%Y-%m', p.starttime) >= '2100-06'"
    )


@pytest.mark.parametrize(
    ("gold", "old", "new", "kinds"),
    [
        (DRUGS, "prescriptions", "inputevents", {TABLE}),
        (LAST, "d_labitems", "d_items", {TABLE}),
        (DRUGS, "admissions.hadm_id IN ( SELECT prescriptions.hadm", "admissions.row_id IN ( SELECT x.row", {JOIN}),
        (DRUGS, "hadm_id IN", "hadm_id NOT IN", {JOIN}),
        (DRUGS, "COUNT( DISTINCT admissions.subject_id )", "COUNT( DISTINCT admissions.hadm_id )", {COLUMN}),
        (DRUGS, "prescriptions.drug =", "prescriptions.route =", {COLUMN}),
        (LAST, "labevents.valuenum", "labevents.valueuom", {COLUMN}),
        (RANKED, "long_title", "icd_code", {COLUMN}),
        (DRUGS, "= 'fenofibrate'", "LIKE 'fenofibrate'", {CONDITION}),
        (DRUGS, "prescriptions.drug = 'fenofibrate' AND ", "", {CONDITION}),
        (DRUGS, "= 'fenofibrate'", "= 'fenofibrate' AND prescriptions.route = 'po'", {CONDITION}),
        (RANKED, "T1.C1 <= 3", "T1.C1 < 3", {CONDITION}),
        (YES_NO, "39 AND", "39 OR", {CONDITION}),
        (YES_NO, "BETWEEN", "NOT BETWEEN", {CONDITION}),
        (DRUGS, "fenofibrate", "fenofibrat", {NEAR_VALUE}),
        (DRUGS, "fenofibrate", "Fenofibrate", {NEAR_VALUE}),
        (LAST, "10026255", "10026256", {NEAR_VALUE}),
        (DRUGS, "fenofibrate", "aspirin", {OTHER_VALUE}),
        (LAST, "10026255", "10004720", {OTHER_VALUE}),
        (RANKED, "<= 3", "<= 5", {OTHER_VALUE}),
        (YES_NO, "39", "49", {OTHER_VALUE}),
        (DRUGS, ">= '2100-06'", "= '2100-06'", {TIME}),
        (DRUGS, "2100-06", "2100-07", {TIME}),
        (DRUGS, "%Y-%m", "%Y", {TIME}),
        (DRUGS, " AND strftime('%Y-%m',prescriptions.starttime) >= '2100-06'", "", {TIME}),
        (RANKED, "-1 year", "-1 month", {TIME}),
        (RANKED, "current_time,'-1 year'", "current_time,'start of year'", {TIME}),
        (LAST, "IS NOT NULL", "IS NULL", {TIME}),
        (DRUGS, "COUNT(", "SUM(", {AGGREGATION}),
        (YES_NO, "COUNT(*)>0", "COUNT(*)", {AGGREGATION}),
        (RANKED, "GROUP BY procedures_icd.icd_code", "", {AGGREGATION}),
        (LAST, "DESC", "ASC", {ORDER}),
        (LAST, "LIMIT 1", "LIMIT 1 OFFSET 1", {ORDER}),
        (LAST, " ORDER BY labevents.charttime DESC LIMIT 1", "", {ORDER}),
        (LAST, "ORDER BY labevents.charttime", "ORDER BY labevents.valuenum", {ORDER}),
        (RANKED, "DESC", "ASC", {ORDER}),
        (RANKED, "DENSE_RANK", "ROW_NUMBER", {ORDER}),
        (DRUGS, "DISTINCT", "", {DISTINCT}),
        (RANKED, "SELECT d_icd", "SELECT DISTINCT d_icd", {DISTINCT}),
        (DRUGS, "COUNT( DISTINCT admissions.subject_id )", "COUNT(*)", {COLUMN, DISTINCT}),
        # Not errors by clause.
        (DRUGS, "SELECT prescriptions.hadm_id", "SELECT DISTINCT prescriptions.hadm_id", {OTHER}),
        (RANKED, "C1", "place", {OTHER}),
        (RANKED, "current_time", "'now'", {OTHER}),
        (RANKED, "3 )", "3 ) ORDER BY d_icd_procedures.long_title", {OTHER}),
        (YES_NO, "30", "30.0", {OTHER}),
        (YES_NO, "= 'other'", "IN ('other')", {OTHER}),
        (DRUGS, DRUGS, joined("ON a.hadm_id = p.hadm_id"), {OTHER}),
        (DRUGS, DRUGS, joined("USING (hadm_id)"), {OTHER}),
        (DRUGS, DRUGS, joined("ON a.subject_id = p.subject_id"), {JOIN}),
        (DRUGS, DRUGS, joined("USING (hadm_id) JOIN patients USING (subject_id)"), {TABLE, JOIN}),
        (DRUGS, DRUGS, f"{DRUGS} UNION {DRUGS}", {JOIN}),
        (DRUGS, DRUGS, f"WITH few AS ( {DRUGS} ) SELECT * FROM few", {COLUMN}),
        (DRUGS, " )", "", {UNREADABLE}),
        (DRUGS, "'fenofibrate'", "'fenofibrate", {UNREADABLE}),
        (DRUGS, DRUGS, f"{DRUGS}; {DRUGS}", {UNREADABLE}),
        (DRUGS, DRUGS, "", {UNREADABLE}),
    ],
)
def test_kinds_of_an_edit(gold, old, new, kinds):
    assert old in gold
    assert clause_kinds(gold, gold.replace(old, new)) == kinds


# From the demo run: gold, what the model wrote, and the kinds.
@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        (
            "SELECT SUM(dose_val_rx) FROM prescriptions WHERE drug = 'docusate sodium' AND "
            "strftime('%Y-%m-%d',starttime) >= '2100-10-27'",
            "SELECT SUM(dose_val_rx) FROM prescriptions WHERE drug = 'docusate sodium' AND "
            "strftime('%Y-%m-%d',starttime) = '2100-08-27'",
            {TIME},
        ),
        (
            "SELECT subject_id FROM icustays WHERE stay_id = 93466924",
            "SELECT subject_id FROM icustays WHERE stay_id = 939264210",
            {OTHER_VALUE},
        ),
        (
            "SELECT admission_location FROM admissions WHERE subject_id = 90403971 ORDER BY admittime ASC LIMIT 1",
            "SELECT discharge_location FROM admissions WHERE subject_id = 90403971 ORDER BY admittime ASC LIMIT 1",
            {COLUMN},
        ),
        (
            "SELECT drug FROM ( SELECT drug, DENSE_RANK() OVER ( ORDER BY COUNT(*) DESC ) AS r FROM prescriptions "
            "WHERE datetime(starttime,'start of year') = datetime(current_time,'start of year','-0 year') "
            "GROUP BY drug ) WHERE r <= 3",
            "SELECT drug FROM ( SELECT drug, DENSE_RANK() OVER ( ORDER BY COUNT(*) DESC ) AS r FROM prescriptions "
            "GROUP BY drug ) WHERE r < 3",
            {TIME, CONDITION},
        ),
        (
            "SELECT COUNT( DISTINCT subject_id ) FROM admissions WHERE marital_status = 'single'",
            "SELECT COUNT(*) FROM procedures_icd WHERE icd_code = ( SELECT icd_code FROM d_icd_procedures "
            "WHERE long_title = 'mammary artery bypass' )",
            {TABLE, JOIN, COLUMN, CONDITION, DISTINCT},
        ),
        (
            "SELECT DISTINCT org_name FROM microbiologyevents WHERE hadm_id IN ( SELECT hadm_id FROM admissions "
            "WHERE subject_id = 90364280 ) AND org_name IS NOT NULL AND strftime('%Y-%m',charttime) = '2100-10'",
            "SELECT org_name FROM microbiologyevents WHERE hadm_id IN ( SELECT hadm_id FROM admissions "
            "WHERE subject_id = 90364280 ) AND org_name IS NOT NULL AND strftime('%Y-%m',charttime) = '2100-10'",
            {DISTINCT},
        ),
    ],
)
def test_kinds_of_real_wrong_answers(gold, predicted, kinds):
    assert clause_kinds(gold, predicted) == kinds


def test_a_value_that_is_wrong_in_one_of_two_places():
    twice = f"SELECT * FROM ( {LAST} ) AS x, ( {LAST} ) AS y"
    assert clause_kinds(twice, twice.replace("chloride", "chlorid", 1)) == {NEAR_VALUE}


def test_a_clause_that_stands_twice_and_once_is_seen():
    twice = DRUGS.replace("prescriptions.drug = 'fenofibrate'", "x.drug = 'fenofibrate' AND y.drug = 'fenofibrate'")
    assert clause_kinds(twice, DRUGS) == {CONDITION}


words = st.sampled_from(
    [*"()*,;.=<>-'\"`[", "SELECT", "FROM", "WHERE", "JOIN", "IN", "COUNT", "DISTINCT", "ORDER BY", "LIMIT", "AND", "a"]
    + ["WITH", "UNION", "CASE WHEN", "t", "'x'", "2.50", "strftime", "AS", "OVER", "--", "/*", "NOT", "PRAGMA", "\x00"]
)


@given(st.text() | st.lists(words, max_size=40).map(" ".join), st.sampled_from([DRUGS, "", "no SQL ("]))
def test_any_text_has_kinds(text, gold):
    kinds = clause_kinds(gold, text)
    assert kinds and kinds <= {*KINDS}


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 FROM t " + "JOIN t " * 5_000,  # exponential in sqlglot
        "SELECT " + "date(" * 5_000,
        "SELECT " + "(" * 20_000,
        "SELECT " + "x." * 15_000 + "x",  # quadratic
        "SELECT a FROM t WHERE " + " AND ".join(["a=1"] * 4_000),
        "SELECT a FROM t WHERE " + "NOT " * 8_000 + "a",
        "SELECT '" + "x" * 32_000,
    ],
)
def test_long_texts_are_given_up(text):
    assert clause_kinds(DRUGS, text) == {UNREADABLE}


# Edits of real gold queries: a pattern, what it becomes, and the kind that tells.
EDITS = {
    "an aggregate": (r"\bAVG\(", "MAX(", AGGREGATION),
    "a count for yes or no": (r"COUNT\(\*\)>0", "COUNT(*)", AGGREGATION),
    "distinct rows": (r"^SELECT DISTINCT", "SELECT", DISTINCT),
    "a distinct count": (r"COUNT\( DISTINCT", "COUNT(", DISTINCT),
    "an order": (r" DESC LIMIT 1\b", " ASC LIMIT 1", ORDER),
    "a limit": (r" LIMIT 1$", "", ORDER),
    "a patient": (r"(?<=subject_id = )\d{8}\b", "10000000000000", OTHER_VALUE),
    "a label": (r"(?<=label = )'[^']{4,}'", "'-'", OTHER_VALUE),
    "a letter of a label": (r"(?<=label = ')[^']([^']{8,})'", r"_\1'", NEAR_VALUE),
    "a whole condition": (r"\w+\.linksto = '\w+'", "1 = 1", CONDITION),
    "a month": (r"'2100-\d\d'", "'2099-01'", TIME),
    "since": (r"\) >= datetime", ") = datetime", TIME),
    "the first column": (r"^SELECT (\w+)\.\w+ FROM", r"SELECT \1.nothing FROM", COLUMN),
    "a table": (r"(?<=FROM )labevents\b", "chartevents", TABLE),
    "a join": (r"hadm_id IN \( SELECT admissions\.hadm_id", "row_id IN ( SELECT admissions.row_id", JOIN),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_a_real_gold_query_gives_its_kind(shared_data, name):
    pattern, replacement, kind = EDITS[name]
    golds = json.loads((shared_data / "ehrsql2024/valid/label.json").read_text()).values()
    pairs = [(gold, edited) for gold in golds if (edited := re.sub(pattern, replacement, gold, count=1)) != gold]
    assert len(pairs) >= 10
    assert [pair for pair in pairs[:60] if kind not in clause_kinds(*pair)] == []


def test_real_gold_queries_can_be_read_and_equal_themselves(shared_data):
    golds = [*json.loads((shared_data / "ehrsql2024/valid/label.json").read_text()).values()]
    for gold in golds[::4]:
        if gold != ABSTAIN:
            assert clause_kinds(gold, gold) == {OTHER}


# With the executions of the sandbox


@pytest.fixture
def db(tmp_path):
    path = tmp_path / "ehr.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE patients (subject_id INTEGER, gender TEXT);"
            "CREATE TABLE admissions (subject_id INTEGER, age INTEGER);"
            "INSERT INTO patients VALUES (1, 'f'), (2, 'm'), (3, 'f');"
            "INSERT INTO admissions VALUES (1, 50), (2, 60);"
        )
    return path


WOMEN, TWO = "SELECT COUNT(*) FROM patients WHERE gender = 'f'", canonical_answer([(2,)])
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n, patients"


@pytest.mark.parametrize(
    ("response", "kinds"),
    [
        (WOMEN, set()),
        ("null", {ABSTAINED}),
        ("I cannot say.", {NO_QUERY}),
        (WOMEN.replace("'f'", "'m'"), {OTHER_VALUE}),
        (WOMEN.replace("patients", "people"), {FAILED + "no such table", TABLE}),
        (WOMEN.replace("gender", "sex"), {FAILED + "no such column", COLUMN}),
        (WOMEN.replace("COUNT(*)", "MEDIAN(subject_id)"), {FAILED + "no such function", AGGREGATION, COLUMN}),
        (f"{WOMEN} AND", {FAILED + "syntax error"}),
        (f"{WOMEN} AND gender = 'f", {FAILED + "syntax error"}),
        (WOMEN.replace("*", "gender, gender"), {FAILED + "misuse of a function", COLUMN}),
        (f"{WOMEN} AND COUNT(*) > 1", {FAILED + "misuse of a function", AGGREGATION}),
        ("SELECT COUNT(subject_id) FROM patients, admissions", {FAILED + "ambiguous column", TABLE, COLUMN, CONDITION}),
        (f"{WOMEN}; {WOMEN}", {FAILED + "another error"}),
        ("SELECT COUNT(*) FROM sqlite_master", {FAILED + "refused", TABLE, CONDITION}),
        (ENDLESS, {FAILED + "timeout", JOIN, CONDITION}),
    ],
)
def test_kinds_of_executed_answers(db, response, kinds):
    found = error_kinds(WOMEN, grade(response, TWO, db, timeout_s=0.2))
    assert {*found} == kinds
    assert list(found) == [kind for kind in KINDS if kind in found]


def test_queries_on_unanswerable_questions(db):
    assert error_kinds("null", grade(WOMEN, ABSTAIN, db)) == (ANSWERED,)
    assert error_kinds("", grade("SELECT shoes FROM patients", ABSTAIN, db)) == (ANSWERED, FAILED + "no such column")
    assert error_kinds("null", grade("null", ABSTAIN, db)) == ()


def row(id, gold_sql, ground_truth, db):
    return {
        "data_source": "ehrsql",
        "prompt": [{"role": "user", "content": id}],
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": {
            **{"id": id, "question": id, "template": "", "seen_template": "seen", "db_path": str(db)},
            **{"answerable": ground_truth != ABSTAIN, "gold_sql": gold_sql},
        },
    }


def test_an_evaluation_counts_kinds_and_says_what_it_cannot_sort(db, capsys):
    answers = [
        (row("right", WOMEN, TWO, db), WOMEN),
        (row("abstained", WOMEN, TWO, db), "null"),
        (row("value", WOMEN, TWO, db), WOMEN.replace("'f'", "'m'")),
        (row("value too", WOMEN, TWO, db), WOMEN.replace("'f'", "'x' LIMIT 0")),
        (row("gold hidden", "", TWO, db), "SELECT 3 FROM patients"),
        (row("unanswerable", "", ABSTAIN, db), WOMEN),
        (row("gold failed", "SELECT a FROM b", GOLD_FAILED, db), WOMEN),
    ]
    samples = grade_responses([row for row, _ in answers], [Response(text, 1, "stop") for _, text in answers])
    kinds = {sample.id: sample.error_kinds for sample in samples if sample.error_kinds}
    assert kinds == {
        "abstained": [ABSTAINED],
        "value": [OTHER_VALUE],
        "value too": [OTHER_VALUE, ORDER],
        "unanswerable": [ANSWERED],
    }
    summary = summarize(samples)
    assert summary["error_kinds"] == {
        ABSTAINED: {"wrong": 1, "questions": 5},
        ANSWERED: {"wrong": 1, "questions": 5},
        OTHER_VALUE: {"wrong": 2, "questions": 5},
        ORDER: {"wrong": 1, "questions": 5},
    }
    assert summary["wrong_without_gold_sql"] == 1
    assert "  wrong in: value: another, order and limit" in log_lines(samples[3])
    Console(width=200).print(summary_table(summary | {"canaries": {}}, ""))
    printed = capsys.readouterr().out
    assert re.search(r"value: another\s+│\s+2 │\s+40.0 % of 5", printed)
    assert "1 wrong answers have no kind: their gold SQL is not known" in printed
