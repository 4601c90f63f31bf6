"""The EHRSQL-2024 scorer (version 1.1.1), rule by rule and as literally as tests need: what ours is compared with."""

import re
import sqlite3
from pathlib import Path

FAILED = "error"
VITAL_RANGES = {
    "temperature": ("35.5", "38.1"),
    "sao2": ("95.0", "100.0"),
    "heart_rate": ("60.0", "100.0"),
    "respiration": ("12.0", "18.0"),
    "systolic_bp": ("90.0", "120.0"),
    "diastolic_bp": ("60.0", "90.0"),
    "mean_bp": ("60.0", "110.0"),
}


def process_item(item):
    try:
        return str(round(float(item), 3))
    except Exception:
        return str(item)


def process_answer(rows) -> str:
    return str(sorted([[process_item(cell) for cell in row] for row in rows])[:100])


def clean_up(query: str) -> str:
    query = re.sub("[ ]+", " ", query.replace("\n", " ")).strip()
    for broken, joined in (("> =", ">="), ("< =", "<="), ("! =", "!=")):
        query = query.replace(broken, joined)

    def convert(match):
        unit = match[4].lower() + ("" if match[3] == "1" else "s")
        return f"datetime({match[2]}, '{'-' if match[1] == 'DATE_SUB' else '+'}{match[3]} {unit}')"

    query = re.sub(r"(DATE_SUB|DATE_ADD)\((\w+\(\)|'[^']+')[, ]+ INTERVAL (\d+) (MONTH|YEAR|DAY)\)", convert, query)
    for name, value in (
        ("current_time", "'2100-12-31 23:59:00'"),
        ("current_date", "'2100-12-31'"),
        ("'now'", "'2100-12-31 23:59:00'"),
        ("NOW()", "'2100-12-31 23:59:00'"),
        ("CURDATE()", "'2100-12-31'"),
        ("CURTIME()", "'23:59:00'"),
    ):
        query = query.replace(name, value)
    lowers = re.findall("[ \n]+([a-zA-Z0-9_]+_lower)", query)
    uppers = re.findall("[ \n]+([a-zA-Z0-9_]+_upper)", query)
    if lowers and uppers:
        lower, upper = (re.findall(f"([a-zA-Z0-9_]+)_{end}", found[0])[0]
                        for end, found in (("lower", lowers), ("upper", uppers)))  # fmt: skip
        if lower == upper and lower in VITAL_RANGES:
            query = query.replace(lowers[0], VITAL_RANGES[lower][0]).replace(uppers[0], VITAL_RANGES[lower][1])
    return query.replace("%y", "%Y").replace("%j", "%J")


class OfficialScorer:
    """``verdict(prediction, gold)`` on one database, with a new connection to it as the scorer's settings have it."""

    def __init__(self, db_path: Path):
        self.connection = sqlite3.connect(f"file:{db_path}?mode=ro&immutable=1", uri=True)
        self.connection.text_factory = lambda raw: raw.decode(errors="ignore")
        self.answers: dict[str, str] = {}

    def verdict(self, prediction: str, gold: str) -> bool:
        """Whether the answers are equal; a failure of the gold query is another one than the prediction's."""
        gold_answer = self._answer(gold) if gold not in self.answers else self.answers[gold]
        self.answers[gold] = gold_answer
        prediction_answer = self._answer(prediction)
        return prediction_answer != FAILED and prediction_answer == gold_answer

    def _answer(self, query: str) -> str:
        query = clean_up(query)
        if query == "null":
            return "null"
        try:
            return process_answer(self.connection.execute(query).fetchall())
        except Exception:
            return FAILED
