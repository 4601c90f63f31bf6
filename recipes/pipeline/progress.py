"""How far a training run is, from the metrics that verl writes meanwhile."""

import json
import time
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean

# Pattern of a metric -> how the console shows it.
SHOWN = {
    "train/loss": "loss {:.3f}",
    "critic/score/mean": "reward {:.2f}",
    "val-core/*/acc/mean@1": "validation {:.1%}",
    "val/loss": "validation loss {:.3f}",
}


class TrainingProgress:
    """Reads ``folder``, where verl's file logger writes ``<start time>.jsonl``, as the files grow.

    ``total`` is the number of steps, None where nobody knows. Files that are there already are of earlier starts.
    """

    def __init__(self, folder: Path, total: int | None):
        self._folder = folder
        self.total = total
        self.step = 0
        self._earlier = set(folder.glob("*.jsonl"))
        self._offset = 0
        self._values: dict[str, float] = {}
        self._first: tuple[int, float] | None = None  # the first step that was seen, and when
        self._last = 0.0

    def read(self) -> None:
        """Take in what has been written since the last call. A line that is not complete waits."""
        files = sorted(set(self._folder.glob("*.jsonl")) - self._earlier)
        if not files:
            return
        with files[-1].open("rb") as file:
            file.seek(self._offset)
            written = file.read()
        complete = written[: written.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError):  # a bad line must not end a training
                self._take(json.loads(line))

    def _take(self, record: dict) -> None:
        for pattern in SHOWN:
            found = [
                value for name, value in record["data"].items() if value is not None and fnmatchcase(name, pattern)
            ]
            if found:
                self._values[pattern] = fmean(found)
        if record["step"] > self.step:
            self.step, self._last = record["step"], time.monotonic()
            self._first = self._first or (self.step, self._last)

    def text(self) -> str:
        """One line, e.g. ``step 12 of 30, 1 min 37 s left, reward 0.61, validation 47.2%, 5.4 s a step``."""
        if not self._values:
            return "starting"
        parts, pace = [f"step {self.step:,}" + (f" of {self.total:,}" if self.total else "")], []
        if self._first and self.step > self._first[0]:
            seconds = (self._last - self._first[1]) / (self.step - self._first[0])
            if self.total:
                parts.append(f"{duration(seconds * max(self.total - self.step, 0))} left")
            pace = [f"{seconds:.1f} s a step" if seconds >= 1 else f"{1 / max(seconds, 1e-3):.1f} steps a second"]
        return ", ".join([*parts, *self._shown(), *pace])

    def share(self) -> float:
        """Of the way, 0 to 1."""
        return min(self.step / self.total, 1) if self.total else 0

    def summary(self) -> str:
        """The last values, for a run that has ended."""
        return ", ".join([*([f"{self.step:,} steps"] if self.step else []), *self._shown()])

    def _shown(self) -> list[str]:
        return [shown.format(self._values[pattern]) for pattern, shown in SHOWN.items() if pattern in self._values]


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s`` or ``2 h 5 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
