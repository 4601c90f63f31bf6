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

# Special tokens of chat templates. What stands behind one that ends a turn is no part of the answer.
_END_OF_TURN = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|eot|end_?of_?text|end_of_turn_token|return)\|>|\[\|endofturn\|\]"
    r"|<[|｜]end▁of▁sentence[|｜]>|</s>|<(?:eos|end_of_turn|end_of_utterance|eoa)>",
    re.IGNORECASE,
)
_SPECIAL_TOKEN = re.compile(
    r"(?:<start_of_turn>|<\|im_start\|>|<\|start_header_id\|>)(?:assistant|model)\b|\[\|\w{1,40}\|\]|\[/?INST\]"
    r"|<[|｜][\w▁]{1,40}[|｜]>|</?s>|<(?:bos|eos|pad|unk|sep|start_of_turn|end_of_turn)>"
)
_TAG = re.compile(r"<(/?)[ \t]{0,3}(think|answer)[ \t]{0,3}>", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019"}
_NULL = re.compile(r"""[\s'"`*]*null[\s'"`*.;]*""", re.IGNORECASE)
_NULL_WITH_REASON = re.compile(
    r"""[\s'"`*]*null['"`*]*(?:[ \t]*(?:--|/\*|[#.;:(\[]|[-\u2013\u2014][ \t])|[ \t]*\r?\n)""", re.IGNORECASE
)
_LABEL = re.compile(r"[ \t*#]*(?:\w{1,40}[ \t]++){0,5}\w{1,40}[ \t*]*:[ \t*]*")
# SQLite skips semicolons before a statement too.
_COMMENTS = r"(?:[\s;]|--[^\n]*+(?:\n|\Z)|/\*(?s:.*?)\*/)*+"
_NAME = r"(?:[\w$]+|\"(?:[^\"]|\"\"){1,200}+\"|'(?:[^']|''){1,200}+'|`(?:[^`]|``){1,200}+`|\[[^\]]{1,200}\])"
# What a query starts with. "With" and "select" also start English sentences, so WITH must introduce a table. Between
# its words (~) stand spaces and comments, few and short: this is looked for everywhere, in time linear in the text.
_QUERY = (
    r"(?:SELECT\b|VALUES~{0,9}+\(|WITH~{1,9}+(?:RECURSIVE~{1,9}+)?%~{0,9}+(?:\([^()]{0,1000}\)~{0,9}+)?"
    r"AS~{0,9}+(?:(?:NOT~{1,9}+)?MATERIALIZED~{0,9}+)?\()"
)
_QUERY = _QUERY.replace("~", r"(?:\s{1,200}+|--[^\n]{0,200}\n|/\*(?s:.{0,200}?)\*/)").replace("%", _NAME)
_STARTS_WITH_QUERY = re.compile(_COMMENTS + _QUERY, re.IGNORECASE)
_QUERY_IN_PROSE = re.compile(r"(?:^[ \t;]*+|:[ \t*;]*+)(?=[\"'`\u201c\u2018]?" + _QUERY + ")", re.I | re.M)
_ANY_QUERY = re.compile(r"(?:^|[^\w\s])[ \t]*+(?=" + _QUERY + ")", re.I | re.M)
_FENCE_TAG = re.compile(r"[ \t]*+(?:(sql|sqlite|sqlite3)(?:[ \t]*+\r?\n|[ \t])|\r?\n)", re.IGNORECASE)
_OTHER_LANGUAGE = re.compile(r"[ \t]*[\w+-]+[ \t]*\r?\n")

# SQLite's string literals, quoted identifiers ('' inside quotes reads as two adjacent literals) and comments.
_QUOTED_OR_COMMENT = re.compile(
    r"""'[^']*(?:'|\Z)|"[^"]*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z)"""
    r"""|(?P<comment>--[^\n]*|/\*(?s:(?=.).*?)(?:\*/|\Z))"""
)
_KEYWORDS = (
    r"(?:ALL|AND|AS|ASC|BETWEEN|BY|CASE|CAST|COLLATE|CROSS|DESC|DISTINCT|ELSE|END|ESCAPE|EXCEPT|EXISTS|FILTER|FROM|FULL"
    r"|GLOB|GROUP|HAVING|IN|INNER|INTERSECT|IS|ISNULL|JOIN|LEFT|LIKE|LIMIT|MATCH|NATURAL|NOT|NOTNULL|NULL|NULLS|OFFSET"
    r"|ON|OR|ORDER|OUTER|OVER|PARTITION|REGEXP|RIGHT|SELECT|THEN|UNION|USING|VALUES|WHEN|WHERE|WINDOW|WITH)\b"
)
_STATEMENT = re.compile(
    r"(?:ALTER|ANALYZE|ATTACH|BEGIN|COMMIT|CREATE|DELETE|DETACH|DROP|END|EXPLAIN|INSERT|PRAGMA|REINDEX|RELEASE|REPLACE"
    r"|ROLLBACK|SAVEPOINT|UPDATE|VACUUM)\b",
    re.IGNORECASE,
)
# Where prose may begin behind a query: a semicolon, a blank line, a line with a heading or a label ("SQLResult:").
_HEADING = rf"[ \t]*+(?:\#|\*\*|(?!{_KEYWORDS})[A-Za-z]\w{{0,40}}+(?:[ \t]\w{{1,40}}+){{0,2}}:(?!:))"
_STARTS_WITH_HEADING = re.compile(_HEADING, re.IGNORECASE)
_MAYBE_PROSE = re.compile(rf"(?P<semicolon>;[\s;]*+)|(?P<blank_line>\n[ \t\r]*+\n\s*+)|\n(?={_HEADING})", re.IGNORECASE)
# Three operands in a row are no SQL: at most an alias stands behind one. Two open a sentence, one must end the query.
_SENTENCE = re.compile(rf"(?!{_KEYWORDS})[A-Za-z][\w'\u2019]*+,?[ \t]++(?!{_KEYWORDS})[A-Za-z]", re.IGNORECASE)
_ENDS_WITH_OPERAND = re.compile(rf"(?:\)|(?<!\w)(?:ASC|DESC|NULL|(?!{_KEYWORDS})[\w$]{{1,200}}))\s*\Z", re.IGNORECASE)
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

    1. What follows a token that ends a turn (``<|im_end|>``, ``<end_of_turn>``, ``</s>``) is cut, as the stop strings
       of lm-evaluation-harness cut it. Other special tokens are removed.
    2. Only what follows the last ``</think>`` counts (the opening tag may stand in the prompt). A ``<think>`` that is
       never closed leaves no answer. Tags count in any case: ``<Think>``, ``<ANSWER>``.
    3. Of ``<answer>`` tags the last counts; within it, or without one in the whole text:
    4. the last fence marked sql, else the last unmarked fence (an unclosed one, cut off by the length limit, counts).
       Fences that hold a query or ``null`` come first: a later ``CREATE INDEX`` or an output does not count. OmniSQL
       and Defog's sql-eval take the last fence, Vanna the last SELECT.
    5. Without a fence, text that starts with a query is the query. Prose before it, or before ``null``, is cut when it
       ends in a colon, on the same line (``SQL:``, ``The query is:``) or before. Quotes around the query are removed,
       as LangChain does. A closing fence is dropped, with what follows it.
    6. Prose behind the query is cut, where it cannot be SQL: behind a semicolon, behind a blank line, or from a line
       with a label on (``SQLResult:``). LangChain stops at ``SQLResult:``, BIRD's baseline at a semicolon, a blank line
       or a ``#``, Defog's sql-eval at a semicolon. A second statement is kept, and the sandbox refuses both.

    ``null`` alone (any case, quoted, in a fence or tag, with a full stop or semicolon) is an abstention. So is ``null``
    with a reason behind a comment sign, punctuation or a line break, where the reason holds no query: at most of these
    BIRD's stop strings leave ``null``. (EHRSQL-2024's scorer takes ``null`` alone; it is not given raw text.)

    The accepted forms for ``format_ok`` are a bare query or ``null``, one fence, or one answer tag around either, each
    optionally after one think block. Fences and tags count wherever they stand, in a literal too.

    >>> extract_sql("The query is:\\n```sql\\nSELECT 1\\n```").sql
    'SELECT 1'
    >>> extract_sql("null").abstained
    True
    """
    text = _TAG.sub(lambda tag: f"<{tag[1]}{tag[2].lower()}>", _own_turn(text))
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
    if _is_null_with_reason(body):
        return Extraction(sql=None, abstained=True, format_ok=False)
    sql = _unquoted(body)
    if fence_alone is None and not _STARTS_WITH_QUERY.match(sql):
        sql = _behind_prose(body)
        if sql is None:
            return Extraction(sql=None, abstained=_is_null_behind_prose(body), format_ok=False)
    if not sql:
        return _NOTHING
    sql = _without_prose_behind(sql)
    return Extraction(sql=sql, abstained=False, format_ok=clean and sql == body and _is_one_query(sql))


def _own_turn(text: str) -> str:
    """The first turn that holds any text, without special tokens."""
    turns = (_SPECIAL_TOKEN.sub("", turn) for turn in _END_OF_TURN.split(text))
    return next((turn for turn in turns if turn.strip()), "")


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
    before, fence, after = text.partition("```")
    if not fence or not before.strip() or "```" in after:
        return text, False
    on_its_own_line = before.rstrip(" \t").endswith("\n")
    behind_query = on_its_own_line and bool(_STARTS_WITH_QUERY.match(before) or _behind_prose(before))
    closes = not after.strip() or (behind_query and not _opens_query(after))
    return (before, True) if closes else (text, False)


def _fence(text: str) -> tuple[str | None, bool | None]:
    """Return the content of the fence that counts and whether it stands alone.

    Without any fence: the text itself and None. With fences in other languages only: None and False.
    """
    parts = text.split("```")
    if len(parts) == 1:
        return text, None
    alone = len(parts) == 3 and not parts[0].strip() and not parts[2].strip()
    marked, plain = [], []
    for inside in reversed(parts[1::2]):
        tag = _FENCE_TAG.match(inside)
        if tag and tag[1]:
            marked.append(inside[tag.end() :])
        elif _is_answer(inside) or not _OTHER_LANGUAGE.match(inside):
            plain.append(inside)
    answers = [inside for inside in (*marked, *plain) if _is_answer(inside)]
    if not answers and not any(inside.strip("` \t\r\n") for inside in (*marked, *plain)):
        for nested in reversed(parts[2::2]):  # in a fence of four backticks, or of another language
            if (tag := _FENCE_TAG.match(nested)) and tag[1] and _STARTS_WITH_QUERY.match(nested, tag.end()):
                return nested[tag.end() :], False
    return next(iter((*answers, *marked, *plain)), None), alone


def _is_answer(inside: str) -> bool:
    """Whether the content of a fence is a query or ``null``."""
    return bool(_STARTS_WITH_QUERY.match(inside) or _NULL.fullmatch(inside) or _is_null_with_reason(inside))


def _opens_query(behind_fence: str) -> bool:
    tag = _FENCE_TAG.match(behind_fence)
    return bool((tag and tag[1]) or _STARTS_WITH_QUERY.match(behind_fence))


def _is_null_with_reason(text: str) -> bool:
    return bool(_NULL_WITH_REASON.match(text)) and not _ANY_QUERY.search(text)


def _is_null_behind_prose(text: str) -> bool:
    prose, _, end = text.rpartition(":")
    label = _LABEL.match(text)
    return bool((prose and _NULL.fullmatch(end)) or (label and _is_null_with_reason(text[label.end() :])))


def _unquoted(text: str) -> str:
    """The query without quotes around it: no statement starts with one."""
    closing = _QUOTES.get(text[:1])
    if not closing or not _STARTS_WITH_QUERY.match(text, 1):
        return text
    before, quote, _ = text[1:].rpartition(closing)
    return before if quote else text[1:]


def _without_prose_behind(sql: str) -> str:
    """``sql`` up to where prose begins. A text that SQLite could execute as it stands comes back as it is."""
    start = _STARTS_WITH_QUERY.match(sql)
    if not start:
        return sql
    masked = _QUOTED_OR_COMMENT.sub(lambda match: (" " if match["comment"] else "q") * len(match[0]), sql)
    depth = counted = 0  # of parentheses
    for place in _MAYBE_PROSE.finditer(masked, start.end()):
        before, end = place.span()
        if place["semicolon"]:
            behind = masked[end:].lstrip()
            if not behind or _STARTS_WITH_QUERY.match(behind) or _STATEMENT.match(behind):
                return sql
        if place["blank_line"] and not _STARTS_WITH_HEADING.match(sql, end):
            depth += masked.count("(", counted, before) - masked.count(")", counted, before)
            counted = before
            ends = _ENDS_WITH_OPERAND.search(masked[max(0, before - 250) : before])
            if depth or not ends or not _SENTENCE.match(sql, end):
                continue
        return sql[:before].rstrip()
    return sql


def _behind_prose(text: str) -> str | None:
    for start in _QUERY_IN_PROSE.finditer(text):
        before = text[max(0, start.start() - 100) : start.start()]
        if ":" in start[0] or before.rstrip().endswith(":"):
            return _unquoted(text[start.end() :])
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
