"""What a run shows: a line a stage, live in a terminal. The programs' own words are in the log files."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from data_prep.common.printable import printable
from recipes.pipeline.progress import duration

# A line of recipes.trainer.monitor. Ray puts the process's name before it, in colour.
ALARM = re.compile(r"(?:\x1b\[\d+m)*(?:\([\w.]+ pid=\d+\))?(?:\x1b\[\d+m)* *(ALARM .*)")
ALARMS = 10  # of a stage; the log has all
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
        start, shown, tail, alarms = time.monotonic(), Shown(self.rich, name), Tail(log), []

        def show(text: str, share: float) -> None:
            shown.update(text, share)
            self._repeat(name, tail.read(), alarms)

        with shown:
            yield show
            show(shown.text, 1)
        details = f", {shown.text}" if shown.text else ""
        self.rich.print(f"  {name}: {duration(time.monotonic() - start)}{details}")

    def _repeat(self, name: str, lines: list[str], alarms: list[str]) -> None:
        """Print those of a log's new ``lines`` that matter. ``alarms``: of the stage so far."""
        for line in lines:
            if self._verbose:
                self.rich.out(printable(line), highlight=False)
            elif alarm := ALARM.match(line):
                alarms.append(alarm[1])
                if len(alarms) <= ALARMS:
                    self.rich.out(f"  {name}: {printable(alarm[1])[:200]}", style="yellow", highlight=False)
                elif len(alarms) == ALARMS + 1:
                    self.rich.out(f"  {name}: more ALARMs in the log", style="yellow", highlight=False)


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
    """The lines that are added to a log file from now on."""

    def __init__(self, log: Path):
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0

    def read(self) -> list[str]:
        """Those since the last call. A line that is not complete waits."""
        if not self._log.exists():
            return []
        with self._log.open("rb") as file:
            file.seek(self._offset)
            said = file.read()
        complete = said[: said.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.decode(errors="replace").split("\n")[:-1]
