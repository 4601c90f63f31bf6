"""Extraction of an answer from raw model text, and the official clean-up."""

import official_scorer
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reward_fns.sql.text import Extraction, clean_up, extract_sql

Q = "SELECT count(*) FROM patients"


def query(sql: str, format_ok: bool) -> Extraction:
    return Extraction(sql=sql, abstained=False, format_ok=format_ok)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (Q, query(Q, True)),
        (f"  {Q};\n", query(f"{Q};", True)),
        (f"{Q}<|im_end|>", query(Q, True)),
        (f"<s>{Q}</s><|endoftext|><|endoftext|>", query(Q, True)),
        ("with t as (select 1) select * from t", query("with t as (select 1) select * from t", True)),
        ("VALUES (1)", query("VALUES (1)", True)),
        ('WITH "my cte" AS (SELECT 1) SELECT 1', query('WITH "my cte" AS (SELECT 1) SELECT 1', True)),
        ("WITH a$(n) AS (SELECT 1) SELECT 1", query("WITH a$(n) AS (SELECT 1) SELECT 1", True)),
        (f"\ufeff{Q}", query(Q, True)),
        (f"-- count them\n{Q}", query(f"-- count them\n{Q}", True)),
        (f"```sql\n{Q}\n```", query(Q, True)),
        (f"```SQL {Q}```", query(Q, True)),
        (f"``` sqlite\r\n{Q}\r\n```", query(Q, True)),
        (f"```\n{Q}\n```", query(Q, True)),
        (f"```{Q}```", query(Q, True)),
        (f"<think>Let me see: SELECT 0</think>\n{Q}", query(Q, True)),
        (f"the opening tag was in the prompt</think>{Q}", query(Q, True)),
        (f"<think></think><answer>\n```sql\n{Q}\n```\n</answer>", query(Q, True)),
        (f"<think>Let me see.</think>\n```sql\n{Q}\n```", query(Q, True)),
        (f"<answer>{Q}</answer>", query(Q, True)),
        # readable, but not in an accepted form
        (f"Sure.\n```sql\n{Q}\n```", query(Q, False)),
        (f"```sql\n{Q}\n```\nIt counts patients.", query(Q, False)),
        (f"```sql\nSELECT 0\n```\n```sql\n{Q}\n```", query(Q, False)),
        (f"```sql\n{Q}\n```\n```\nrow | 1\n```", query(Q, False)),
        (f"```sql\n{Q}", query(Q, False)),
        (f"<answer>SELECT 0</answer> or <answer>{Q}</answer>", query(Q, False)),
        (f"<answer>{Q}", query(Q, False)),
        (f"{Q}</answer>", query(Q, False)),
        (f"hm <think>a</think>{Q}", query(Q, False)),
        (f"<think>a</think><think>b</think>{Q}", query(Q, False)),
        (f"Here is the query:\n\n{Q}", query(Q, False)),
        (f"With care.\nSQL: {Q}", query(Q, False)),
        (f"The query is: {Q}", query(Q, False)),
        (f"**SQL:** {Q}", query(Q, False)),
        (f"{Q}\n```", query(Q, False)),
        (f"SQL: {Q}\n```", query(Q, False)),
        (f"Here is the query:\n{Q}\n```", query(Q, False)),
        (f"```sqlite {Q}```", query(Q, True)),
        (f"<answer>SELECT 0</answer>\n<answer>{Q}", query(Q, False)),
        (f"<answer>{Q}</answer><answer>", query(Q, False)),
        (f"<answer>{Q}</answer>\nI put it into <answer> tags.", query(Q, False)),
        (f"I think\nSELECT is needed: {Q}", query(Q, False)),
        (f"SQL: {Q} -- else: null", query(f"{Q} -- else: null", False)),
        (f"SQL: {Q}\nWithout such a column: null", query(f"{Q}\nWithout such a column: null", False)),
        ('WITH "a""b" AS (SELECT 1) SELECT 1', query('WITH "a""b" AS (SELECT 1) SELECT 1', True)),
        (f"{Q}; SELECT 2", query(f"{Q}; SELECT 2", False)),
        ("```sql\nDROP TABLE patients\n```", query("DROP TABLE patients", False)),
    ],
)
def test_extraction(text, expected):
    assert extract_sql(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        f"<ANSWER>{Q}</ANSWER>",
        f"<Think>why</Think><Answer>{Q}</Answer>",
        f"<THINK>why</think >{Q}",
        f"the opening tag was in the prompt</THINK>\n<Answer>\n```sql\n{Q}\n```\n</answer>",
    ],
)
def test_tags_count_in_any_case(text):
    assert extract_sql(text) == query(Q, True)


@pytest.mark.parametrize("text", [f"<Think>{Q}", f"<ANSWER>SELECT 0</ANSWER><THINK>{Q}"])
def test_reasoning_that_does_not_end_leaves_no_answer_in_any_case(text):
    assert extract_sql(text).sql is None


@pytest.mark.parametrize("start", [";", "; ", ";;\n", "; -- first\n", " ;\t; "])
def test_semicolons_before_a_query_are_kept_as_sqlite_skips_them(start):
    assert extract_sql(start + Q) == query((start + Q).strip(), False)


@pytest.mark.parametrize(
    "text",
    [
        f"```sql\n{Q}\n```\n```sql\nCREATE INDEX i ON patients (gender)\n```",
        f"```sql\n{Q}\n```\nIt gives:\n```sql\n42\n```",
        f"```sql\n{Q}\n```\n```sql\n```",
        f"```\n{Q}\n```\n```\ncount\n42\n```",
        f"```\n{Q}\n```\n```sql\nCREATE INDEX i ON patients (gender)\n```",
        f"```sql\nSELECT 0\n```\n```sql\n{Q}\n```\n```sql\nPRAGMA table_info(patients)\n```",
    ],
)
def test_a_fence_that_holds_no_query_does_not_hide_one_that_does(text):
    assert extract_sql(text) == query(Q, False)


@pytest.mark.parametrize(
    "behind",
    [
        "\nSQLResult: 42",
        "\nSQLResult: 42\nAnswer: There are 42 women.",
        "\n\nSQLResult:\n42",
        "\n\nThis counts the women.",
        "\n\nNote that it's the patient's gender.",
        "\n \n\nHere, women are counted.",
        "\n\n**Explanation:** it counts.",
        "\n### Explanation\nIt counts.",
        "\n# It counts.",
        "\nExplanation: it counts",
        "; This counts the women.",
        ";\nThis counts the women; no others.",
        "; -- done\n\nThis counts.",
        "\n```\nThis counts the women.",
    ],
)
@pytest.mark.parametrize("before", ["", "SQL: ", "Here is the query:\n\n"])
def test_prose_behind_a_query_is_cut(before, behind):
    assert extract_sql(before + Q + behind) == query(Q, False)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT\n\ngender g FROM patients",
        "SELECT count(*)\n\nFROM patients\n\nWHERE gender = 'f'",
        "SELECT *\n\nFROM patients",
        "SELECT 5 *\n\nrow_id g FROM patients",
        "SELECT count(*) FROM patients\n\np WHERE p.gender = 'f'",
        "SELECT gender,\n\nrow_id first\n\nFROM patients",
        "SELECT 'x;\n\nThis counts the women.' FROM patients",
        "SELECT 'x\nSQLResult: 42' FROM patients",
        "SELECT 1 /*\n\nThis counts the women.\n*/ FROM patients",
        "SELECT count(*) FROM patients; -- This counts the women.",
        "SELECT (SELECT 1\n\nlimit l) FROM patients",
        'SELECT "SQLResult: 42" FROM patients',
        "SELECT 1;;",
        "SELECT 1; ;",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE patients",
        "SELECT 1;\n\nWITH t AS (SELECT 1) SELECT 2",
        "SELECT 1; -- why\nSELECT 2",
    ],
)
def test_what_may_be_sql_is_not_cut(sql):
    assert extract_sql(sql).sql == sql


SPACED = """
SELECT COUNT( DISTINCT a.subject_id ) AS n, T1.C1 first FROM admissions a JOIN ( SELECT subject_id, COUNT(*) AS C1
FROM labevents WHERE valuenum > 1.5 AND label = 'x y' GROUP BY subject_id ) AS T1 ON a.subject_id = T1.subject_id
WHERE strftime('%Y', a.admittime) <= '2100' AND NOT a.dischtime IS NULL ORDER BY T1.C1 DESC LIMIT 1
"""


@given(st.lists(st.booleans(), min_size=len(SPACED.split()), max_size=len(SPACED.split())))
def test_blank_lines_in_a_query_cut_nothing(blank):
    pieces = (word + ("\n\n" if line else " ") for word, line in zip(SPACED.split(), blank, strict=True))
    sql = "".join(pieces).strip()
    assert extract_sql(sql).sql == sql


@pytest.mark.parametrize(
    "text",
    [
        f'"{Q}"',
        f"'{Q}'",
        f"`{Q}`",
        f'"{Q}".',
        f"\u201c{Q}\u201d",
        f'SQLQuery: "{Q}"',
        f"The query is: `{Q}`, which counts.",
        f'```sql\n"{Q}"\n```',
        f'{{"sql": "{Q}"}}',
    ],
)
def test_quotes_around_a_query_are_removed(text):
    assert extract_sql(text) == query(Q, False)


def test_quotes_inside_a_quoted_query_are_kept():
    sql = 'SELECT "gender" FROM patients WHERE gender = "f"'
    assert extract_sql(f'"{sql}"').sql == sql


@pytest.mark.parametrize(
    "token",
    ["<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<eos>", "</s>", "<|endoftext|>", "<|end_of_text|>",
     "<|EOT|>", "<|END_OF_TURN_TOKEN|>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "[|endofturn|]",
     "<end_of_utterance>", "<|return|>", "<|end|>", "<pad>"]
)  # fmt: skip
@pytest.mark.parametrize(("answer", "extraction"), [(Q, query(Q, True)), ("null", Extraction(None, True, True))])
def test_end_of_turn_tokens_are_no_part_of_the_answer(answer, extraction, token):
    assert extract_sql(answer + token) == extract_sql(f"{answer}\n{token}{token}\n") == extraction


@pytest.mark.parametrize(
    "behind",
    [
        "<end_of_turn>\n<start_of_turn>user\nAnd the men?<end_of_turn>\n<start_of_turn>model\nSELECT 0",
        "<|im_end|>\n<|im_start|>user\nAnd the men?<|im_end|>",
        "</s>[INST] And the men? [/INST] SELECT 0</s>",
    ],
)
def test_a_turn_that_the_model_invents_does_not_count(behind):
    assert extract_sql(Q + behind).sql == Q


@pytest.mark.parametrize("start", ["<start_of_turn>model\n", "<|im_start|>assistant\n", "<s>", "[/INST]", "</s>"])
def test_the_tokens_of_a_turn_that_starts_are_removed(start):
    assert extract_sql(start + Q) == query(Q, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "I don't know.",
        "With the tables above, the answer is null for this question.",
        f"<think>{Q}",
        f"<think>a</think><think>{Q}",
        f"```python\n{Q}\n```",
        f"We could write\n{Q}\nbut which is it?",
        "```sql\n\n```",
        "DELETE FROM patients",
    ],
)
def test_no_answer(text):
    assert extract_sql(text) == Extraction(sql=None, abstained=False, format_ok=False)


@pytest.mark.parametrize(
    "text", ["null", "NULL", " Null.\n", "null;", "'null'", '"null"', "`null`", "```sql\nnull\n```", "```\nNULL;\n```",
             "```null```", "<answer>null</answer>", "<think>no such table</think>null<|im_end|>"]
)  # fmt: skip
def test_null_abstains(text):
    assert extract_sql(text) == Extraction(sql=None, abstained=True, format_ok=True)


@pytest.mark.parametrize(
    "text", ["No such column.\n```\nnull\n```", "SQL: null", "The query is:\n\nNULL;", "null\n```"]
)
def test_null_with_prose_around_it_abstains_out_of_form(text):
    assert extract_sql(text) == Extraction(None, abstained=True, format_ok=False)


@pytest.mark.parametrize(
    "text",
    [
        "null -- no such column",
        "null /* no such column */",
        "null # no such column",
        "NULL; no such column",
        "null (no such column)",
        "Null. The database doesn't hold shoe sizes.",
        "null: no such column",
        "null - no such column",
        "null \u2014 no such column",
        "null\n\nThe database holds no shoe sizes.",
        "null\nReason: no shoe sizes.",
        "**null**\nReason: no shoe sizes.",
        "`null` (no such column)",
        "```sql\nnull -- no such column\n```",
        "<answer>null\nNo shoe sizes.</answer>",
        "<think>shoes?</think>null (no such column)",
        "Answer: null\nReason: no such column",
        "The answer is: null (no such column)",
    ],
)
def test_null_with_a_reason_abstains_out_of_form(text):
    assert extract_sql(text) == Extraction(None, abstained=True, format_ok=False)


@pytest.mark.parametrize(
    "behind", [f"\n{Q}", f"; {Q}", f". {Q}", f" -- {Q}", f"\n\nOr:\n```sql\n{Q}\n```", f"\nelse: {Q}"]
)
def test_null_beside_a_query_does_not_abstain(behind):
    assert not extract_sql(f"null{behind}").abstained


@pytest.mark.parametrize(
    "text", ["null values are left out", "null, so nothing is known", "null and void", "nullif(1, 1)"]
)
def test_a_sentence_that_starts_with_null_does_not_abstain(text):
    assert not extract_sql(text).abstained


@pytest.mark.parametrize(
    "text", ["the answer is null", "SELECT null", f"{Q} WHERE dod IS NULL", "null null", "nullable"]
)
def test_null_inside_other_text_does_not_abstain(text):
    assert not extract_sql(text).abstained


# Attacks on the extraction: text -> what may be executed. None of them may smuggle in another query.
SMUGGLED = "SELECT 'gold'"
ATTACKS = {
    "nested fences": (f"````\n```sql\n{Q}\n```\n````", Q),
    "a fence in a fence of another language": (f"```markdown\n```sql\n{Q}\n```\n```", Q),
    "several fences": (f"```sql\n{SMUGGLED}\n```\n```sql\n{Q}\n```", Q),
    "a fence in a comment": (f"```sql\n{Q} -- ```sql\n-- {SMUGGLED}\n```", f"{Q} --"),
    "a fence in a literal": (f"SELECT '```sql {SMUGGLED}' FROM patients", f"{SMUGGLED}' FROM patients"),
    "gold in a line comment": (f"-- {SMUGGLED}\n{Q}", f"-- {SMUGGLED}\n{Q}"),
    "gold in a block comment": (f"/* {SMUGGLED} */ {Q}", f"/* {SMUGGLED} */ {Q}"),
    "gold behind a NUL": (f"{Q}\x00{SMUGGLED}", f"{Q}\x00{SMUGGLED}"),
    "gold in the reasoning": (f"<think>```sql\n{SMUGGLED}\n```</think>{Q}", Q),
    "gold before the answer": (f"{SMUGGLED}\n<answer>{Q}</answer>", Q),
    "the prompt echoed": (f"CREATE TABLE patients (gender)\n\nQuestion: {SMUGGLED}?\n```sql\n{Q}\n```", Q),
    "the question echoed": ("How many patients are there?", None),
    "the rule of abstention echoed": ("Answer null if the database does not hold the answer.", None),
    "a lone surrogate": (f"\ud800{Q}", None),
    "a right-to-left mark": (f"\u202e{Q}", None),
    "null behind a right-to-left mark": ("\u202enull", None),
    "null with a zero-width space": ("nu\u200bll", None),
    "null and a query": (f"null\n{Q}", None),
    "null behind a colon, in prose": ("So: null values are left out.", None),
    "null in prose": ("The value is null, so nothing can be said.", None),
    "a megabyte of prose": ("no " * 350_000, None),
}


@pytest.mark.parametrize(("text", "sql"), ATTACKS.values(), ids=ATTACKS)
def test_an_attack_on_the_extraction(text, sql):
    extraction = extract_sql(text)
    assert extraction.sql == sql
    assert not extraction.abstained


PIECES = st.sampled_from(
    ["```", "```sql\n", "<think>", "</Think>", "<ANSWER>", "</answer>", "null", "SELECT 1", "--", "/*", "*/", "'", ";",
     "\n\n", "SQLResult:", "This counts", "<end_of_turn>", '"', "\n", "\x00", "\ud800", "\u202e", "<|im_end|>",
     "WITH a AS (", ":", " "]
)  # fmt: skip
ANY_TEXT = st.lists(PIECES | st.text(st.characters(), max_size=5), max_size=30).map("".join)


@given(ANY_TEXT)
@example("\x00")
@example("\ud800")
def test_any_text_gives_a_consistent_extraction(text):
    extraction = extract_sql(text)
    assert not (extraction.abstained and extraction.sql)
    assert not extraction.format_ok or extraction.abstained or extraction.sql
    clean_up(text)


@pytest.mark.parametrize(
    "text",
    ["```" + " " * 10**6 + "x", "Well\n" + " " * 500_000 + ":" * 500_000, "x:WITH /*" + ":WITH /* */ /*" * 70_000],
    ids=["a fence and spaces", "spaces and colons", "heads of queries in comments"],
)
def test_runs_of_different_kinds_are_read_in_linear_time(text):
    """Quadratic time would be hours, in which verl's event loop waits for the interpreter."""
    assert (extract_sql(text).sql or "") in text


@pytest.mark.parametrize(
    "unit", ["```", "```sql\n", "<think>", "<answer>", "/*", "--\n", "'", "null ", "WITH a", "WITH\n", "SELECT\n", " ",
             "\n", "(", "DATE_SUB(", "a_lower", "WITH a(", "</think>", "SQL:\n", ":WITH/*", "WITH/*\n",
             "x:VALUES/*", "WITH a AS/*\n", ":WITH--", "WITH a\n(", ":WITH \"a", "</s>", "<end_of_turn>", " </s>", ";",
             ":;", "\n\n", "\n\nab cd", "\n\n(ab cd", "\n\f", "\nlimit:", "null\n", "null:", '"', "a ", "\n \n;"]
)  # fmt: skip
def test_a_megabyte_is_read_in_linear_time(unit):
    text = unit * (1_000_000 // len(unit))  # quadratic time would be hours
    for answer in (text, f"SELECT 1 {text}x y", f"null\n{text}", f"null: {text}", f'"SELECT {text}'):
        assert (extract_sql(answer).sql or "") in answer
    assert clean_up(f"SELECT {text}").startswith("SELECT")


@pytest.mark.parametrize(
    ("sql", "cleaned"),
    [
        ("SELECT  1\n  FROM t ", "SELECT 1 FROM t"),
        ("a > = 1 AND b < = 2 AND c ! = 3", "a >= 1 AND b <= 2 AND c != 3"),
        ("DATE_SUB(NOW(), INTERVAL 1 MONTH)", "datetime('2100-12-31 23:59:00', '-1 month')"),
        ("DATE_ADD('2100-01-01', INTERVAL 12 DAY)", "datetime('2100-01-01', '+12 days')"),
        ("DATE_SUB(CURDATE(), INTERVAL 2 YEAR)", "datetime('2100-12-31', '-2 years')"),
        ("datetime(current_time,'-1 day')", "datetime('2100-12-31 23:59:00','-1 day')"),
        ("date('now') < current_date", "date('2100-12-31 23:59:00') < '2100-12-31'"),
        ("CURTIME()", "'23:59:00'"),
        ("v BETWEEN heart_rate_lower AND heart_rate_upper", "v BETWEEN 60.0 AND 100.0"),
        ("v BETWEEN sao2_lower AND temperature_upper", "v BETWEEN sao2_lower AND temperature_upper"),
        ("v > heart_rate_lower", "v > heart_rate_lower"),
        ("v BETWEEN pulse_lower AND pulse_upper", "v BETWEEN pulse_lower AND pulse_upper"),
        ("strftime('%y-%j', x)", "strftime('%Y-%J', x)"),
        ("SELECT 'a  b'", "SELECT 'a b'"),
        # comments, where the scorer would lose the rest of the query
        ("SELECT a -- the id\nFROM t", "SELECT a FROM t"),
        ("SELECT/* all\nof it */a FROM t", "SELECT a FROM t"),
        ("SELECT a FROM t -- end", "SELECT a FROM t"),
        ("SELECT a FROM t /* never closed", "SELECT a FROM t"),
        ("SELECT '--no', \"/*\", `--`, [--] FROM t --yes", "SELECT '--no', \"/*\", `--`, [--] FROM t"),
        ("SELECT 'it''s --no' --yes", "SELECT 'it''s --no'"),
    ],
)
def test_clean_up(sql, cleaned):
    assert clean_up(sql) == cleaned


SQL_PIECES = st.sampled_from(
    ["SELECT", " ", "  ", "\n", ">", "<", "!", "=", "DATE_SUB", "DATE_ADD", "(", ")", ", ", "INTERVAL", 
     " INTERVAL 1 DAY)", "NOW()", "CURDATE()", "CURTIME()", "'now'", "current_time", "current_date", "heart_rate",
     "_lower", "_upper", " sao2_lower", " sao2_upper", " AND", "%y", "%j", "'x'", "DATE_SUB(NOW(), INTERVAL 3 MONTH)",
     "mean_bp_lower", "1", ";"]
)  # fmt: skip


@given(st.lists(SQL_PIECES, max_size=25).map("".join))
def test_clean_up_equals_the_official_one_without_comments(sql):
    assert clean_up(sql) == official_scorer.clean_up(sql)
