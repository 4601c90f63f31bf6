"""Fills the question templates of ``templates.yaml`` with values from a database."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_prep.common.errors import InputError


@dataclass(frozen=True)
class Template:
    """Paraphrases of a question and the one form of SQL that answers it; no ``sql`` where nothing does."""

    name: str
    questions: list[str]
    values: str
    sql: str = ""
    column: str = ""
    unseen: bool = False
    yes_no: bool = False
    weight: int = 1


@dataclass(frozen=True)
class When:
    """A time expression, or none: ``sql`` is a condition, or for a ``visit`` the choice of a hospital stay."""

    text: str = ""
    sql: str = ""
    visit: bool = False


@dataclass(frozen=True)
class Draw:
    """One question with its gold SQL ("" if unanswerable) and what filled the slots, as in EHRSQL's val_dict."""

    question: str
    sql: str
    val_dict: dict[str, dict[str, Any]]


@cache
def template_file() -> dict:
    """The parsed ``templates.yaml``."""
    return yaml.safe_load(Path(__file__).with_name("templates.yaml").read_text(encoding="utf-8"))


def answerable_templates() -> list[Template]:
    return [Template(**entry) for entry in template_file()["templates"]]


def unanswerable_templates() -> list[Template]:
    return [Template(**entry) for entry in template_file()["unanswerable"]]


class Sampler:
    """Draws questions whose values occur in the SQLite database at ``db``.

    Raises:
        InputError: ``db`` is no EHRSQL database, or holds no row for a query under "values".
    """

    def __init__(self, db: Path, rng: np.random.Generator) -> None:
        self.rng = rng
        self.rows: dict[str, list[dict]] = {}
        try:
            with closing(sqlite3.connect(f"{db.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
                connection.row_factory = sqlite3.Row
                for name, query in template_file()["values"].items():
                    self.rows[name] = [dict(row) for row in connection.execute(query)]
        except sqlite3.DatabaseError as error:
            raise InputError(f"{db} is no EHRSQL database ({error}); build one with data_prep.build_ehr_db") from error
        if empty := [name for name, rows in self.rows.items() if not rows]:
            raise InputError(f"{db} has no values for {', '.join(empty)}; build it from more patients")

    def draw(self, template: Template, wanted: bool | None = None) -> Draw:
        """Fill one paraphrase and the SQL of ``template``.

        ``wanted`` False exchanges the patient for another one, which makes "no" likely; the caller checks.
        """
        row = dict(self._row(template))
        if wanted is False:
            row["patient_id"] = self._row(template)["patient_id"]
        moment = row.pop("moment", None)
        question = self._one_of(template.questions)
        values = {slot: _literal(value) for slot, value in row.items() if f"{{{slot}}}" in question}
        choices = template_file()["choices"]
        options = {slot: self._one_of(list(choices[slot])) for slot in choices if f"{{{slot}}}" in question}
        when = self._when(template, str(moment)) if "{when}" in question else When()
        condition = "" if when.visit else when.sql
        sql_slots = {
            **{slot: value.replace("'", "''") for slot, value in values.items()},
            **{f"{slot}_sql": choices[slot][text] for slot, text in options.items()},
            "visit_sql": when.sql if when.visit else "",
            "time_condition": condition,
            "time_sql": condition and f" AND {condition}",
        }
        question = question.replace(" {when}", when.text and f" {when.text}")
        return Draw(
            question=question.format(**values, **options),
            sql=template.sql.format(**sql_slots),
            val_dict={
                "val_placeholder": values,
                "op_placeholder": {slot: str(text) for slot, text in options.items()},
                "time_placeholder": {"when": {"nlq": when.text, "sql": when.sql}} if when.text else {},
            },
        )

    def _row(self, template: Template) -> dict:
        return self._one_of(self.rows[template.values])

    def _one_of(self, items: list) -> Any:
        return items[self.rng.integers(len(items))]

    def _when(self, template: Template, moment: str) -> When:
        """A time expression that fits the slots of the template's SQL, with its own slots filled in."""
        times, visits = template_file()["times"], template_file()["visits"]
        needs_time = "{time_condition}" in template.sql
        kinds = []
        if needs_time or "{time_sql}" in template.sql or not template.sql:
            kinds += times
        if "{visit_sql}" in template.sql:
            kinds += visits * 2
        if not needs_time:
            kinds += [{"text": "", "sql": ""}] * (len(kinds) // 3)
        kind = self._one_of(kinds)
        slots = {"column": template.column, "month": moment[:7], "day": moment[:10], "n": self.rng.integers(2, 10)}
        return When(kind["text"].format(**slots), kind["sql"].format(**slots), kind in visits)


def _literal(value: Any) -> str:
    """``value`` as question and SQL spell it: 138.0 as 138."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)
