"""Whose records the database holds, and when: the cohort and the time shift of EHRSQL-2024.

Both draw random numbers; the order of the draws decides which database comes out.
"""

import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import duckdb
import numpy as np

from data_prep.common.errors import InputError

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class BuildOptions:
    """Which patients to draw, and how to shift their dates.

    Without ``timeshift`` all times stay as they are; ``current_time``, ``start_year`` and ``time_span`` are
    not used, and the current patients are those whose discharge time is empty in the source.
    """

    num_patient: int = 100
    deid: bool = False
    timeshift: bool = False
    current_time: str | None = None  # YYYY-MM-DD HH:MM:SS
    start_year: int | None = None
    time_span: int | None = None  # years after start_year in which a first admission may lie
    cur_patient_ratio: float = 0.0
    sample_icu_patient_only: bool = False
    seed: int = 0  # of all draws; EHRSQL-2024's is 0
    jitter_days: int = 0  # with timeshift, each subject is also shifted by up to this many random days, either way

    def __post_init__(self):
        if self.num_patient < 1:
            raise InputError(f"num_patient is {self.num_patient}; give 1 or more")
        if not 0 <= self.cur_patient_ratio <= 1:
            raise InputError(f"cur_patient_ratio is {self.cur_patient_ratio}; give a number from 0 to 1")
        if not self.timeshift:
            return
        needed = ("current_time", "start_year", "time_span")
        missing = [f"--{name}" for name in needed if getattr(self, name) is None]
        if missing:
            raise InputError(f"--timeshift needs {', '.join(missing)} too")
        if self.time_span < 0:
            raise InputError(f"time_span is {self.time_span}; give 0 or more years")
        if not 1200 <= self.start_year <= self.start_year + self.time_span <= 9800:
            raise InputError(f"start_year is {self.start_year}; all of start_year..+time_span must be in 1200..9800")
        try:
            datetime.strptime(self.current_time, TIME_FORMAT)
        except ValueError as error:
            raise InputError(f"current_time is {self.current_time!r}; write it as '2100-12-31 23:59:00'") from error


def make_cohort(db: duckdb.DuckDBPyConnection, options: BuildOptions, rng: np.random.Generator) -> None:
    """Draw offsets and patients, and make what the rules look up, from the tables ``person``, ``visit`` and ``stay``.

    * macros ``moved(moment, days)``, NULL if later than the current time; ``in_time(moment)``, false before the start
      year; ``if_over(place, dischtime)``, NULL without a dischtime. Without time shift they change nothing
    * ``patient``: all patients, with ``dob`` and ``days``, the offset (NULL for those without admissions)
    * ``admission``: all admissions, with ``age``, ``days`` and ``drawable``: whether their patient could be drawn
    * ``chosen``: the subjects that were drawn
    * ``cohort``: their admissions, with the times of the source

    """
    _make_time_macros(db, options)
    drawable = "subject_id IN (SELECT subject_id FROM stay)" if options.sample_icu_patient_only else "true"
    _draw_offsets(db, drawable, options, rng)
    _make_birthdays(db)
    db.execute(f"""
        CREATE TABLE patient AS
        SELECT person.*, dob, days
        FROM person JOIN birthday ON year = anchor_year - anchor_age LEFT JOIN shift USING (subject_id);
        CREATE TABLE admission AS
        SELECT visit.*, days, year(admittime) - anchor_year + anchor_age AS age, {drawable} AS drawable
        FROM visit JOIN patient USING (subject_id);
        CREATE TABLE chosen (subject_id BIGINT)""")
    number = int(options.num_patient * options.cur_patient_ratio)
    _draw_patients(db, "moved(dischtime, days) IS NULL", number, rng)
    _draw_patients(db, "moved(dischtime, days) IS NOT NULL", options.num_patient - number, rng)
    db.execute("""
        CREATE TABLE cohort AS
        SELECT subject_id, hadm_id, admittime, dischtime, days
        FROM admission
        WHERE drawable AND moved(admittime, days) IS NOT NULL AND subject_id IN (SELECT subject_id FROM chosen);
        DROP TABLE target; DROP TABLE shift; DROP TABLE birthday""")


def birth_date(year: int) -> datetime:
    """A made-up birthday. The seed is set anew, so all leap years share one day, all other years another."""
    first = datetime(year, 1, 1)
    days_in_year = (date(year, 12, 31) - first.date()).days + 1
    return first + timedelta(days=random.Random(0).randint(0, days_in_year))


def _make_time_macros(db: duckdb.DuckDBPyConnection, options: BuildOptions) -> None:
    if options.timeshift:
        now = datetime.strptime(options.current_time, TIME_FORMAT)
        db.execute(f"""
            CREATE MACRO moved(moment, days) AS
                CASE WHEN moment + to_days(days) <= TIMESTAMP '{now}' THEN moment + to_days(days) END;
            CREATE MACRO in_time(moment) AS moment >= TIMESTAMP '{options.start_year}-01-01';
            CREATE MACRO if_over(place, dischtime) AS CASE WHEN dischtime IS NOT NULL THEN place END""")
    else:
        db.execute("""
            CREATE MACRO moved(moment, days) AS moment;
            CREATE MACRO in_time(moment) AS true;
            CREATE MACRO if_over(place, dischtime) AS place""")


def _draw_offsets(
    db: duckdb.DuckDBPyConnection, drawable: str, options: BuildOptions, rng: np.random.Generator
) -> None:
    """``shift``: each subject's ``days``, whole 365-day years that bring the first admission to the target year.

    Without time shift nothing is drawn and there are no offsets.
    """
    first = db.execute(f"""
        SELECT subject_id, year(min(admittime)) AS year
        FROM visit WHERE {drawable} GROUP BY subject_id ORDER BY min(file_row)""").fetchnumpy()
    target = first["year"]
    if options.timeshift:
        weights = np.arange(1, options.time_span + 2)
        years = options.start_year + np.arange(options.time_span + 1)
        target = rng.choice(years, size=len(target), p=weights / weights.sum())  # by first appearance
    jitter = np.zeros(len(target), dtype=np.int64)
    if options.jitter_days:
        jitter = rng.integers(-options.jitter_days, options.jitter_days, len(target), endpoint=True)
    make_table(db, "target", subject_id=first["subject_id"], first_year=first["year"], year=target, jitter=jitter)
    db.execute("""
        CREATE TABLE shift AS
        SELECT subject_id, CAST(365 * (year - first_year) + jitter AS INT) AS days FROM target""")


def _make_birthdays(db: duckdb.DuckDBPyConnection) -> None:
    years = db.execute("SELECT DISTINCT anchor_year - anchor_age AS year FROM person").fetchnumpy()["year"]
    dob = np.array([birth_date(int(year)) for year in years], dtype="datetime64[us]")
    make_table(db, "birthday", year=years, dob=dob)


def _draw_patients(db: duckdb.DuckDBPyConnection, condition: str, number: int, rng: np.random.Generator) -> None:
    """Add ``number`` more subjects with an admission that meets ``condition``; all of them if there are fewer."""
    subjects = db.execute(f"""
        SELECT subject_id FROM admission
        WHERE drawable AND moved(admittime, days) IS NOT NULL AND {condition}
            AND subject_id NOT IN (SELECT subject_id FROM chosen)
        GROUP BY subject_id ORDER BY min(file_row)""").fetchnumpy()["subject_id"]
    with suppress(ValueError):  # more than there are: the generator stays where NumPy leaves it
        subjects = rng.choice(subjects, number, replace=False)
    db.execute("INSERT INTO chosen SELECT unnest($1)", [subjects.tolist()])


def make_table(db: duckdb.DuckDBPyConnection, name: str, **columns: np.ndarray) -> None:
    """A table from columns of equal length."""
    db.execute(f"CREATE TABLE {name} AS FROM columns")  # which DuckDB finds by its name


def check_people(db: duckdb.DuckDBPyConnection) -> None:
    """Raise ``InputError`` where ``person`` and ``visit`` are incomplete or contradict each other."""

    def first(query: str) -> int | None:
        row = db.execute(f"{query} ORDER BY min(file_row) LIMIT 1").fetchone()
        return row and row[0]

    for file, table, key, needed in (
        ("patients", "person", "subject_id", ("subject_id", "anchor_age", "anchor_year")),
        ("admissions", "visit", "hadm_id", ("subject_id", "hadm_id")),
    ):
        if db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,):
            raise InputError(f"hosp/{file} has no rows; give a MIMIC-IV tree with {file}")
        for column in needed:
            if row := first(f"SELECT file_row FROM {table} WHERE {column} IS NULL GROUP BY file_row"):
                raise InputError(f"hosp/{file} has no {column} in row {row:,}; complete or remove it")
        twice = first(f"SELECT {key} FROM {table} GROUP BY {key} HAVING count(*) > 1")
        if twice is not None:
            raise InputError(f"hosp/{file} has {key} {twice} twice; keep one")
    wrong = "SELECT subject_id FROM person WHERE anchor_year - anchor_age NOT BETWEEN 1 AND 9998 GROUP BY subject_id"
    if (subject := first(wrong)) is not None:
        raise InputError(f"hosp/patients: anchor_year - anchor_age of subject_id {subject} is no year; repair it")
    unknown = "SELECT subject_id FROM visit ANTI JOIN person USING (subject_id) GROUP BY subject_id"
    if (subject := first(unknown)) is not None:
        raise InputError(f"hosp/admissions has subject_id {subject}, which hosp/patients lacks; add it")
