"""The progress bar of a build: a table at a time, with the bytes of its file read so far, their rate and time left."""

import psutil
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class BuildProgress(Progress):
    """DuckDB tells of no bytes; but one file is read at a time, so what this process has read is that file's.

    Asked for whenever the bar is drawn.
    """

    def __init__(self, console: Console):
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._process = psutil.Process()
        self._start = 0
        super().__init__(TextColumn("{task.description:20}"), *columns, console=console, transient=True)
        self._bar = self.add_task("", total=None)

    def begin(self, table: str, size: int) -> None:
        """Show the reading of ``table``, ``size`` bytes, from its start."""
        self._start = self._process.io_counters().read_chars
        self.reset(self._bar, description=table, total=size)

    def get_renderables(self):
        for task in self.tasks:
            read = self._process.io_counters().read_chars - self._start
            self.update(task.id, completed=min(read, task.total or 0))
        return super().get_renderables()
