"""The progress of a build: bytes of the files read so far, their rate, the time left, and the table being filled."""

import time

import psutil
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class BuildProgress(Progress):
    """DuckDB tells of no bytes, so whenever the bar is drawn the system is asked what this process has read."""

    def __init__(self, console: Console, total_bytes: int):
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._process = psutil.Process()
        self._start = self._process.io_counters().read_chars
        self._table_start = time.perf_counter()
        super().__init__(TextColumn("{task.description}"), *columns, console=console, transient=True)
        self._bar = self.add_task("reading", total=total_bytes)

    def filling(self, table: str, rows: int) -> None:
        self.update(self._bar, description=f"{table} {rows:,} rows")

    def done(self, table: str, rows: int) -> None:
        """Print a line with the number of rows and, of those written since the line before, the rate."""
        now = time.perf_counter()
        rate = rows / max(now - self._table_start, 1e-3)
        self._table_start = now
        self.console.print(f"{table:20}{rows:>12,} rows {rate:>12,.0f} rows/s")

    def get_renderables(self):
        for task in self.tasks:
            self.update(task.id, completed=min(self._process.io_counters().read_chars - self._start, task.total))
        return super().get_renderables()
