"""The progress of a build: bytes of the files read so far, their rate and the time left, in all and of each file."""

import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class BuildProgress(Progress):
    """DuckDB tells of no bytes, so whenever the bars are drawn the system is asked what this process has read.

    ``sizes`` are the files to read. Each has a bar of its own while it is read from its beginning to its end, as DuckDB
    reads gzip files; the bar of all files counts the others too.
    """

    def __init__(self, console: Console, sizes: dict[Path, int]):
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._process = psutil.Process()
        self._start = self._process.io_counters().read_chars
        self._table_start = time.perf_counter()
        self._files: dict[str, TaskID] = {}
        super().__init__(TextColumn("{task.description}"), *columns, console=console, transient=True)
        for path, size in sizes.items():
            bar = self.add_task(path.name, total=size, start=False, visible=False)
            self._files[str(path.resolve())] = bar
        self._all = self.add_task("all files", total=sum(sizes.values()))

    def filling(self, table: str, rows: int) -> None:
        self.update(self._all, description=f"all files, {table}: {rows:,} rows")

    def done(self, table: str, rows: int) -> None:
        """Print a line with the number of rows and, of those written since the line before, the rate."""
        now = time.perf_counter()
        rate = rows / max(now - self._table_start, 1e-3)
        self._table_start = now
        self.console.print(f"{table:20}{rows:>12,} rows {rate:>12,.0f} rows/s")

    def get_renderables(self):
        positions = {file.path: file.position for file in self._process.open_files()}
        for path, bar in self._files.items():
            if position := positions.get(path):
                self.start_task(bar)
                self.update(bar, completed=position)
            self.update(bar, visible=bool(position))
        for bar in self.tasks[len(self._files) :]:  # some small files are read twice
            read = self._process.io_counters().read_chars - self._start
            self.update(bar.id, completed=min(read, bar.total))
        return super().get_renderables()
