"""The progress bar of a build: a table at a time, with the bytes of its file read so far, their rate and time left."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class BuildProgress(Progress):
    """DuckDB reads while nothing else runs, so each refresh asks the system how much this process has read."""

    def __init__(self, console: Console):
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        super().__init__(TextColumn("{task.description:20}"), *columns, console=console, transient=True)
        self._process = psutil.Process()
        self._start = 0

    @contextmanager
    def table(self, name: str, size: int) -> Iterator[None]:
        """Show a bar for the reading of ``size`` bytes."""
        self._start = self._process.io_counters().read_chars
        bar = self.add_task(name, total=size)
        yield
        self.remove_task(bar)

    def get_renderables(self):
        for task in self.tasks:
            read = self._process.io_counters().read_chars - self._start
            self.update(task.id, completed=min(read, task.total))
        return super().get_renderables()
