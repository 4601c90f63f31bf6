"""A simulated teacher's mistakes: named ways in which an annotator misreads a question or the schema.

Each changes SQL of EHRSQL's style (the demo's and EHRSQL-2024's) at the places that it is about, and leaves all other
text as it is. They make the queries of a teacher who errs, and an evaluation counts the wrong answers that they give.
Rewards and prompts know nothing of them.
"""

import random
import re
from dataclasses import dataclass

QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*\"""")

# Patterns below see a query whose quoted texts are numbered ('0', '1', ...), so no value is taken for SQL.
COLUMN = r"(?:\w+\.)?\w+"
RELATIVE_TIME = rf"datetime\({COLUMN}(?:,'\d+')?\) (?:=|>=) datetime\(current_time,[^)]*\)"
LAST_CONDITION = r"(?= \)| GROUP BY| ORDER BY|$)"


@dataclass(frozen=True)
class Misreading:
    """``meaning`` says in a sentence what the annotator takes for what; ``pattern`` is replaced by ``replacement``."""

    name: str
    meaning: str
    pattern: re.Pattern
    replacement: str

    def apply(self, sql: str) -> str:
        """``sql`` as the annotator writes it: the same text where the misreading does not apply, or a quote is open."""
        if not {"'", '"'}.isdisjoint(QUOTED.sub("", sql)):
            return sql
        quoted: list[str] = []

        def number(match: re.Match) -> str:
            quoted.append(match[0])
            return f"'{len(quoted) - 1}'"

        changed = self.pattern.sub(self.replacement, QUOTED.sub(number, sql))
        return re.sub(r"'(\d+)'", lambda match: quoted[int(match[1])], changed)


MISREADINGS = tuple(
    Misreading(name, meaning, re.compile(pattern), replacement)
    for name, meaning, pattern, replacement in (
        (
            "last is first",
            "Takes the first event or hospital visit where the question asks for the last: sorts times upwards always.",
            rf"(ORDER BY {COLUMN}) DESC(?= LIMIT 1\b)",
            r"\1 ASC",
        ),
        (
            "rows for patients",
            "Counts the rows of a table where the question asks for the number of patients.",
            r"COUNT\( ?DISTINCT (?:\w+\.)?subject_id ?\)",
            "COUNT(*)",
        ),
        (
            "duplicates in lists",
            "Lists an entry once for each record where the question asks which different ones there are.",
            r"^SELECT DISTINCT ",
            "SELECT ",
        ),
        (
            "count for yes or no",
            "Answers a yes-or-no question with the number of records.",
            r"COUNT\(\*\) ?> ?0",
            "COUNT(*)",
        ),
        (
            "relative time ignored",
            'Ignores a time that is relative to now, such as "this year", "last month" and "since 3 months ago".',
            rf" AND {RELATIVE_TIME}|(?<= WHERE ){RELATIVE_TIME} AND | WHERE {RELATIVE_TIME}{LAST_CONDITION}",
            "",
        ),
        (
            "since and until are in",
            'Reads "since" and "until" a day, month or year as "in" it.',
            rf"(strftime\('\d+',{COLUMN}\)) (?:>=|<=) (?='\d+')",
            r"\1 = ",
        ),
        (
            "rank below k",
            "Leaves out the last rank of a list of the k most frequent: takes the ranks below k, not up to k.",
            r"( WHERE (?:\w+\.)?(?:r|C1)) <= (?=\d)",
            r"\1 < ",
        ),
    )
)


def misread(sql: str, probability: float, rng: random.Random) -> tuple[str, list[str]]:
    """The query as the teacher writes it, and the names of the misreadings in it.

    Each misreading is made with ``probability`` wherever it changes the query. ``sql`` may be ``"null"``, which stays.
    """
    names = []
    for misreading in MISREADINGS:
        changed = misreading.apply(sql)
        if changed != sql and rng.random() < probability:
            sql = changed
            names.append(misreading.name)
    return sql, names
