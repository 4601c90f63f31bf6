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

    ``sizes`` are the files to read, each as often as it is read. Each has a bar of its own while it is read from its
    beginning to its end, as DuckDB reads gzip files; the bar of all files counts the others too.
    """

    def __init__(self, console: Console, sizes: list[tuple[Path, int]]):
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._process = psutil.Process()
        self._start = self._process.io_counters().read_chars
        self._table_start = time.perf_counter()
        self._paths: dict[TaskID, str] = {}
        self._all: TaskID | None = None  # the bars are drawn for the first time while the first is added
        super().__init__(TextColumn("{task.description}"), *columns, console=console, transient=True)
        for path, size in dict(sizes).items():
            self._paths[self.add_task(path.name, total=size, visible=False)] = str(path.resolve())
        self._all = self.add_task("all files", total=sum(size for _, size in sizes))

    def filling(self, table: str, rows: int) -> None:
        self.update(self._all, description=f"all files, {table}: {rows:,} rows")

    def done(self, table: str, rows: int) -> None:
        """Print a line with the number of rows and, of those written since the line before, the rate."""
        now = time.perf_counter()
        rate = rows / max(now - self._table_start, 1e-3)
        self._table_start = now
        self.console.print(f"{table:20}{rows:>12,} rows {rate:>12,.0f} rows/s")

    def get_renderables(self):
        if self._all is not None:
            self._look()
        return super().get_renderables()

    def _look(self) -> None:
        try:
            positions = {file.path: file.position for file in self._process.open_files()}
        except psutil.Error:  # it looks at files that are none of ours too, such as a log in another user's folder
            positions = {}
        for task in self.tasks[:-1]:
            position = positions.get(self._paths[task.id], 0)
            if position < task.completed:
                self.reset(task.id)  # it is read once more
            self.update(task.id, completed=position, visible=position > 0)
        read = self._process.io_counters().read_chars - self._start
        self.update(self._all, completed=min(read, self.tasks[-1].total))
