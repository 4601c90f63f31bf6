"""What a run shows: a line a stage, live in a terminal. The programs' own words are in the log files."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from recipes.pipeline.progress import duration

QUARTERS = 4  # where there is no terminal, a training stage prints so many lines on its way


class RunConsole:
    """``verbose`` adds what the programs print."""

    def __init__(self, verbose: bool = False):
        self.rich = Console(highlight=False, markup=False, soft_wrap=True)
        self._verbose = verbose

    def header(self, title: str, rows: Mapping[str, str]) -> None:
        self.rich.print(title, style="bold")
        for name, value in rows.items():
            self.rich.print(f"  {name:9}{value}")

    def skipped(self, name: str) -> None:
        self.rich.print(f"  {name}: finished before")

    @contextmanager
    def stage(self, name: str, log: Path) -> Iterator[Callable[[str, float], None]]:
        """Show that a stage runs, and at its end how long it took.

        Yields what to call, again and again, with a line that says how far the stage is and the share that is done.
        """
        start, shown = time.monotonic(), Shown(self.rich, name)
        tail = Tail(log) if self._verbose else None

        def show(text: str, share: float) -> None:
            shown.update(text, share)
            if tail and (said := tail.read()):
                self.rich.out(said, end="", highlight=False)

        with shown:
            yield show
            show(shown.text, 1)
        details = f", {shown.text}" if shown.text else ""
        self.rich.print(f"  {name}: {duration(time.monotonic() - start)}{details}")


class Shown:
    """The line of the stage that runs: live in a terminal, else printed at each quarter of the way."""

    def __init__(self, console: Console, name: str):
        self.text = ""
        self._console, self._name, self._quarter = console, name, 0
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._live = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._live.add_task(name)

    def __enter__(self) -> "Shown":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, text: str, share: float) -> None:
        self.text = text
        self._live.update(self._task, description=f"{self._name}: {text}" if text else self._name)
        quarter = int(share * QUARTERS)
        if not self._console.is_terminal and self._quarter < quarter < QUARTERS:
            self._quarter = quarter
            self._console.print(f"  {self._name}: {text}")


class Tail:
    """What is added to a log file from now on."""

    def __init__(self, log: Path):
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0

    def read(self) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(self._offset)
            said = file.read()
        self._offset += len(said)
        return said.decode(errors="replace")
