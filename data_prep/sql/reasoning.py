"""Reasoning for SFT to imitate: the teacher's own or, where there is none, one sentence made from the query.

The sentence says only what stands in the query: its tables, the columns that it compares with values, its times, and
what it picks, counts or gives. A teacher's mistake therefore stands in the reasoning as in the query. The patterns are
about SQL of EHRSQL's style; of other SQL they say less.
"""

import re

from data_prep.common.errors import InputError
from data_prep.sql.misreadings import COLUMN, QUOTED
from data_prep.sql.source import Question
from reward_fns.sql.answers import ABSTAIN
from reward_fns.sql.text import extract_sql

NO_ANSWER = "The tables do not hold what is asked for."
COMPUTE = "compute the answer"  # a result that is none of RESULTS

# These patterns see a query without its quoted texts, so no value is taken for SQL. They catch a column's own name.
NAME = r"(?:\w+\.)?(\w+)"
TABLE = re.compile(r"\b(?:FROM|JOIN) (\w+)", re.IGNORECASE)
OWN_NAME = re.compile(r"\bAS (\w+)|\b(\w+) AS \(", re.IGNORECASE)  # what the query itself defines
LOOKED_UP = re.compile(r"\b(\w+) ?(?:[<>!]?=|<>|<|>|\bLIKE|\bIN \() ?(?:''|-?\d)", re.IGNORECASE)
PICKED = re.compile(rf"\bORDER BY {NAME} (ASC|DESC) LIMIT 1\b(?! OFFSET)", re.IGNORECASE)
RANKED = re.compile(r"\bDENSE_RANK\(\) OVER \( ?ORDER BY COUNT\(\*\) DESC ?\)", re.IGNORECASE)
# How a query begins, and what it gives then.
RESULTS = tuple(
    (re.compile(f"SELECT {pattern}", re.IGNORECASE), step)
    for pattern, step in (
        (r"COUNT\(\*\) ?> ?0", "tell whether there is any row"),
        (r"COUNT\(\*\)", "count rows"),
        (rf"COUNT\( ?DISTINCT {NAME} ?\)", r"count different \1"),
        (rf"MAX\( ?{NAME} ?\)", r"take the maximum of \1"),
        (rf"MIN\( ?{NAME} ?\)", r"take the minimum of \1"),
        (rf"AVG\( ?{NAME} ?\)", r"take the mean of \1"),
        (rf"SUM\( ?{NAME} ?\)", r"take the sum of \1"),
        (rf"DISTINCT {NAME} FROM", r"list different \1"),
        (rf"{NAME} FROM", r"give \1"),
    )
)

# Times, with their quoted texts.
PERIOD = re.compile(
    rf"datetime\({COLUMN}, ?'start of (\w+)'\) = datetime\(current_time, ?'start of \w+', ?'-(\d+) \w+'\)"
)
AGO = re.compile(rf"datetime\({COLUMN}\) >= datetime\(current_time, ?'-(\d+) (\w+)'\)")
DATE = re.compile(rf"strftime\('[^']*', ?{COLUMN}\) ?(=|>=|<=) ?'([\d-]+)'")
COMPARED = {"=": "in", ">=": "since", "<=": "until"}


def reasoned(question: Question) -> str:
    """What SFT teaches a model that thinks: reasoning in ``<think>``, then the target in a fence, or ``null``.

    Raises:
        InputError: the target is more than a query, so the grader would read another query out of the text.
    """
    target = question.target
    answer = ABSTAIN if target == ABSTAIN else f"```sql\n{target}\n```"
    text = f"<think>{question.reasoning or reasoning(target)}</think>\n{answer}"
    read = extract_sql(text)
    if (ABSTAIN if read.abstained else read.sql) != target:
        raise InputError(
            f"the label of {question.id} is more than a query, and cannot stand in a fence behind reasoning; write the "
            "query alone, without tags or fences of its own"
        )
    return text


def reasoning(label: str) -> str:
    """One sentence about a query, or about ``ABSTAIN``.

    >>> reasoning("SELECT COUNT(*) FROM labevents WHERE valuenum > 9 AND strftime('%Y',charttime) = '2100'")
    'Read labevents, look up valuenum, keep times in 2100, count rows.'
    """
    if label == ABSTAIN:
        return NO_ANSWER
    masked = " ".join(QUOTED.sub("''", label).split())
    own = {name for names in OWN_NAME.findall(masked) for name in names}
    read, looked_up = (
        [name for name in dict.fromkeys(pattern.findall(masked)) if name not in own] for pattern in (TABLE, LOOKED_UP)
    )
    parts = {"read": read, "look up": looked_up, "keep times": times(label)}
    picks = (("first" if order.upper() == "ASC" else "last", column) for column, order in PICKED.findall(masked))
    steps = [
        *(f"{verb} {' and '.join(objects)}" for verb, objects in parts.items() if objects),
        *(f"take the {which} by {column}" for which, column in dict.fromkeys(picks)),
        *(["rank by number of rows"] if RANKED.search(masked) else []),
        result(masked),
    ]
    sentence = ", ".join(steps)
    return f"{sentence[0].upper()}{sentence[1:]}."


def times(sql: str) -> list[str]:
    """The times that a query asks for: ``this year``, ``since 2100-05`` and the like."""
    periods = [{"0": f"this {unit}", "1": f"last {unit}"}.get(n, f"{n} {unit}s ago") for unit, n in PERIOD.findall(sql)]
    ago = [f"since {n} {unit}{'' if n == '1' else 's'} ago" for n, unit in AGO.findall(sql)]
    dates = [f"{COMPARED[comparison]} {date}" for comparison, date in DATE.findall(sql)]
    return list(dict.fromkeys([*periods, *ago, *dates]))


def result(masked: str) -> str:
    """What a query without its quoted texts gives."""
    matches = ((pattern.match(masked), step) for pattern, step in RESULTS)
    return next((match.expand(step) for match, step in matches if match), COMPUTE)
