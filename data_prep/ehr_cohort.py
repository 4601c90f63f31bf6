"""Whose records the database holds, and when: the cohort and the time shift of EHRSQL-2024.

Both draw random numbers; the order of the draws decides which database comes out.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pandas as pd

from data_prep.errors import InputError

TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class BuildOptions:
    """Which patients, and when they are put.

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


class TimeShift:
    """Moves each subject's times by one offset, so that the first admission falls into a drawn target year.

    The offset is a number of 365-day years. Without ``options.timeshift`` nothing is drawn or moved.
    """

    def __init__(self, admissions: pd.DataFrame, options: BuildOptions, rng: np.random.Generator):
        self._active = options.timeshift
        if not self._active:
            return
        self._current_time = pd.Timestamp(options.current_time)
        self._first_day = pd.Timestamp(options.start_year, 1, 1)
        weights = np.arange(1, options.time_span + 2)
        years = options.start_year + np.arange(options.time_span + 1)
        earliest = admissions.groupby("subject_id", sort=False)["admittime"].min()
        target = [rng.choice(years, p=weights / weights.sum()) for _ in earliest]  # by first appearance
        days = ((target - earliest.dt.year) * 365).dropna().astype("int64")
        self._offset = pd.Series((days * 86_400).to_numpy().astype("timedelta64[s]"), index=days.index)

    def move(self, frame: pd.DataFrame, start: str, end: str | None = None) -> pd.DataFrame:
        """Move ``start`` and ``end``; what lies after the current time becomes NaT.

        A row without a start is dropped, with time shift or not: the database requires one.
        """
        if self._active:
            offset = frame["subject_id"].map(self._offset)
            moved = {column: frame[column] + offset for column in (start, end) if column}
            frame = frame.assign(**{c: time.where(time <= self._current_time) for c, time in moved.items()})
        return frame[frame[start].notna()]

    def move_events(self, frame: pd.DataFrame, start: str, end: str | None = None) -> pd.DataFrame:
        """As ``move``, and drop what then lies before the start year."""
        frame = self.move(frame, start, end)
        return frame[frame[start] >= self._first_day] if self._active else frame


def draw_cohort(admissions: pd.DataFrame, options: BuildOptions, rng: np.random.Generator) -> set[int]:
    """Draw the subjects: current patients (some admission is not over), then others; all if too few."""

    def draw(candidates: np.ndarray, number: int) -> np.ndarray:
        try:
            return rng.choice(candidates, number, replace=False)
        except ValueError:  # more than there are
            return candidates

    subject, over = admissions["subject_id"], admissions["dischtime"].notna()
    number = int(options.num_patient * options.cur_patient_ratio)
    current = draw(subject[~over].unique(), number)
    others = draw(subject[over & ~subject.isin(current)].unique(), options.num_patient - number)
    return {*current.tolist(), *others.tolist()}
