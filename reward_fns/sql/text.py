"""From raw model text to one SQL query: extraction, and the official scorer's clean-up of a query.

Both are pure functions on ``str`` that never raise, in time linear in the length of the text.
"""

import re
from dataclasses import dataclass

CURRENT_DATE = "2100-12-31"
CURRENT_TIME = "23:59:00"
NOW = f"{CURRENT_DATE} {CURRENT_TIME}"
VITAL_RANGES = {
    "temperature": (35.5, 38.1),
    "sao2": (95.0, 100.0),
    "heart_rate": (60.0, 100.0),
    "respiration": (12.0, 18.0),
    "systolic_bp": (90.0, 120.0),
    "diastolic_bp": (60.0, 90.0),
    "mean_bp": (60.0, 110.0),
}

_SPECIAL_TOKEN = re.compile(r"<\|\w{1,40}\|>|</?s>|<(?:bos|eos|pad|unk)>")
_NULL = re.compile(r"""[\s'"`*]*null[\s'"`*.;]*""", re.IGNORECASE)
_COMMENTS = r"(?:\s|--[^\n]*+(?:\n|\Z)|/\*(?s:.*?)\*/)*+"
_NAME = r"(?:[\w$]+|\"(?:[^\"]|\"\"){1,200}+\"|'(?:[^']|''){1,200}+'|`(?:[^`]|``){1,200}+`|\[[^\]]{1,200}\])"
# What a query starts with. "With" and "select" also start English sentences, so WITH must introduce a table. Between
# its words (~) stand spaces and comments, few and short: this is looked for everywhere, in time linear in the text.
_QUERY = (
    r"(?:SELECT\b|VALUES~{0,9}+\(|WITH~{1,9}+(?:RECURSIVE~{1,9}+)?%~{0,9}+(?:\([^()]{0,1000}\)~{0,9}+)?"
    r"AS~{0,9}+(?:(?:NOT~{1,9}+)?MATERIALIZED~{0,9}+)?\()"
)
_QUERY = _QUERY.replace("~", r"(?:\s{1,200}+|--[^\n]{0,200}\n|/\*(?s:.{0,200}?)\*/)").replace("%", _NAME)
_STARTS_WITH_QUERY = re.compile(_COMMENTS + _QUERY, re.IGNORECASE)
_QUERY_IN_PROSE = re.compile(r"(?:^[ \t]*+|:[ \t*]*+)(?=" + _QUERY + ")", re.I | re.M)
_FENCE_TAG = re.compile(r"[ \t]*+(?:(sql|sqlite|sqlite3)(?:[ \t]*+\r?\n|[ \t])|\r?\n)", re.IGNORECASE)
_OTHER_LANGUAGE = re.compile(r"[ \t]*[\w+-]+[ \t]*\r?\n")

# SQLite's string literals, quoted identifiers ('' inside quotes reads as two adjacent literals) and comments.
_QUOTED_OR_COMMENT = re.compile(
    r"""'[^']*(?:'|\Z)|"[^"]*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z)"""
    r"""|(?P<comment>--[^\n]*|/\*(?s:(?=.).*?)(?:\*/|\Z))"""
)
_MYSQL_DATE = re.compile(r"DATE_(SUB|ADD)\((\w+\(\)|'[^']+')[, ]+ INTERVAL (\d+) (DAY|MONTH|YEAR)\)")
_LOWER = re.compile(r" (([a-zA-Z0-9_]+)_lower)")
_UPPER = re.compile(r" (([a-zA-Z0-9_]+)_upper)")


@dataclass(frozen=True)
class Extraction:
    """What a model's text says: a query, an abstention, or (``sql`` None and not ``abstained``) neither.

    ``format_ok``: the text is exactly one answer in an accepted form, with nothing around it.
    """

    sql: str | None
    abstained: bool
    format_ok: bool


_NOTHING = Extraction(sql=None, abstained=False, format_ok=False)


def extract_sql(text: str) -> Extraction:
    """Read the answer out of raw model text.

    1. Special tokens such as ``<|im_end|>`` are removed.
    2. Only what follows the last ``</think>`` counts (the opening tag may stand in the prompt). A ``<think>`` that is
       never closed leaves no answer.
    3. Of ``<answer>`` tags the last counts; within it, or without one in the whole text:
    4. the last fence marked sql, else the last unmarked fence (an unclosed one, cut off by the length limit, counts);
    5. without a fence, text that starts with a query is the query to its end. Prose before it, or before ``null``, is
       cut when it ends in a colon, on the same line (``SQL:``, ``The query is:``) or before. A lone closing fence is
       dropped.

    ``null`` alone (any case, quoted, in a fence or tag, with a full stop or semicolon) is an abstention. The accepted
    forms for ``format_ok`` are a bare query or ``null``, one fence, or one answer tag around either, each
    optionally after one think block. Fences and tags count wherever they stand, in a literal too.

    >>> extract_sql("The query is:\\n```sql\\nSELECT 1\\n```").sql
    'SELECT 1'
    >>> extract_sql("null").abstained
    True
    """
    text = _SPECIAL_TOKEN.sub("", text)
    thinking, _, rest = text.rpartition("</think>")
    if "<think>" in rest:
        return _NOTHING
    before_thinking = thinking.partition("<think>")[0] if "<think>" in thinking else ""
    one_block = not before_thinking.strip() and thinking.count("<think>") <= 1 and "</think>" not in thinking
    body, tag_alone = _answer_tag(rest)
    body, fence_dropped = _drop_closing_fence(body)
    body, fence_alone = _fence(body)
    if body is None:
        return _NOTHING
    clean = one_block and tag_alone and fence_alone is not False and not fence_dropped
    body = body.strip().removeprefix("\ufeff")  # SQLite reads a byte order mark as space
    if _NULL.fullmatch(body):
        return Extraction(sql=None, abstained=True, format_ok=clean)
    if fence_alone is None and not _STARTS_WITH_QUERY.match(body):
        prose, _, end = body.rpartition(":")
        body, clean = _after_prose(body), False
        if body is None and prose and _NULL.fullmatch(end):
            return Extraction(sql=None, abstained=True, format_ok=False)
    if not body:
        return _NOTHING
    return Extraction(sql=body, abstained=False, format_ok=clean and _is_one_query(body))


def _answer_tag(text: str) -> tuple[str, bool]:
    """Return the content of the last answer tag (or all of the text) and whether nothing stands around it."""
    before_end, end, after = text.rpartition("</answer>")
    _, start, body = after.rpartition("<answer>")
    if end and start and (_STARTS_WITH_QUERY.match(body) or _NULL.fullmatch(body) or body.lstrip().startswith("```")):
        return body, False  # never closed, and no mere mention of the tag
    before, start, body = (before_end if end else text).rpartition("<answer>")
    if not start:
        return (before_end, False) if end else (text, True)
    return body, bool(end) and not before.strip() and not after.strip()


def _drop_closing_fence(text: str) -> tuple[str, bool]:
    before, fence, after = text.rpartition("```")
    lone = fence and before.strip() and not after.strip() and "```" not in before
    return (before, True) if lone else (text, False)


def _fence(text: str) -> tuple[str | None, bool | None]:
    """Return the content of the fence that counts and whether it stands alone.

    Without any fence: the text itself and None. With fences in other languages only: None and False.
    """
    parts = text.split("```")
    if len(parts) == 1:
        return text, None
    alone = len(parts) == 3 and not parts[0].strip() and not parts[2].strip()
    plain = None
    for inside in reversed(parts[1::2]):
        tag = _FENCE_TAG.match(inside)
        if tag and tag[1]:
            return inside[tag.end() :], alone
        if plain is None and (
            _STARTS_WITH_QUERY.match(inside) or _NULL.fullmatch(inside) or not _OTHER_LANGUAGE.match(inside)
        ):
            plain = inside
    if plain is None or not plain.strip():
        for nested in reversed(parts[2::2]):  # in a fence of four backticks, or of another language
            tag = _FENCE_TAG.match(nested)
            if tag and tag[1] and _STARTS_WITH_QUERY.match(nested, tag.end()):
                return nested[tag.end() :], False
    return plain, alone


def _after_prose(text: str) -> str | None:
    for start in _QUERY_IN_PROSE.finditer(text):
        before = text[max(0, start.start() - 100) : start.start()]
        if start[0].strip() or before.rstrip().endswith(":"):
            return text[start.end() :]
    return None


def _is_one_query(sql: str) -> bool:
    if not _STARTS_WITH_QUERY.match(sql):
        return False
    return ";" not in sql or ";" not in _QUOTED_OR_COMMENT.sub(" ", sql).rstrip().removesuffix(";")


def strip_comments(sql: str) -> str:
    """Replace each comment by a space, as SQLite reads it; literals and quoted identifiers are kept."""
    if "--" not in sql and "/*" not in sql:
        return sql
    return _QUOTED_OR_COMMENT.sub(lambda match: " " if match["comment"] else match[0], sql)


def clean_up(sql: str, official: bool = False) -> str:
    """Apply the official scorer's clean-up (EHRSQL-2024 version 1.1.1) to a query before it is executed.

    The scorer turns line breaks into spaces first, so that a ``-- comment`` swallows the rest of the query. Here
    comments are removed before that: the one difference, and none for a query without comments. (So ``> /**/ =`` is
    joined to ``>=``, and a NUL in a comment is removed with it.) ``official`` keeps them, for the scorer's literal
    behaviour. What the scorer does inside string literals (runs of spaces collapse, ``current_time`` is replaced) is
    kept in both.
    """
    if not official:
        sql = strip_comments(sql)
    sql = re.sub(" +", " ", sql.replace("\n", " ")).strip()
    sql = sql.replace("> =", ">=").replace("< =", "<=").replace("! =", "!=")
    if "INTERVAL" in sql:
        sql = _MYSQL_DATE.sub(_sqlite_datetime, sql)
    sql = sql.replace("current_time", f"'{NOW}'").replace("current_date", f"'{CURRENT_DATE}'")
    sql = sql.replace("'now'", f"'{NOW}'").replace("NOW()", f"'{NOW}'")
    sql = sql.replace("CURDATE()", f"'{CURRENT_DATE}'").replace("CURTIME()", f"'{CURRENT_TIME}'")
    if "_lower" in sql and "_upper" in sql:
        sql = _insert_vital_range(sql)
    return sql.replace("%y", "%Y").replace("%j", "%J")


def _insert_vital_range(sql: str) -> str:
    lower, upper = _LOWER.search(sql), _UPPER.search(sql)
    if lower and upper and lower[2] == upper[2] and lower[2] in VITAL_RANGES:
        low, high = VITAL_RANGES[lower[2]]
        return sql.replace(lower[1], str(low)).replace(upper[1], str(high))
    return sql


def _sqlite_datetime(match: re.Match) -> str:
    direction, date, number, unit = match.groups()
    plural = "" if number == "1" else "s"
    return f"datetime({date}, '{'-' if direction == 'SUB' else '+'}{number} {unit.lower()}{plural}')"
