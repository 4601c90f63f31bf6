"""Stages that are not repeated once finished, in an output folder that one run at a time uses.

A stage is a program that writes one file or folder. ``OUTPUT_DIR/stages/NAME`` then holds a key, the seconds that the
stage took, and the files that it wrote. The key is made of the program's arguments and of the stages before it. A
stage whose key is there already is skipped, unless one of its files is gone.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError

MARKER = "latest_checkpointed_iteration.txt"  # verl writes this file beside its checkpoints
STAMPS = "stages"  # the folder, in that of a run, that says which stages are finished
# Settings of a training run that may change when verl resumes it: how long to train, and what to write meanwhile.
LENGTH = (
    *("trainer.total_", "trainer.save_freq", "trainer.test_freq", "trainer.val_"),
    *("trainer.logger", "trainer.project_name", "trainer.experiment_name"),
)
LENGTH_OF_RECIPE = (".steps", ".epochs", ".save_freq", ".test_freq")

# Runs a program: its stage, its arguments, and what to call again and again meanwhile. Raises where it fails.
Execute = Callable[[str, Sequence[str], Callable[[], None]], None]


class Stages:
    """The stages of a run in ``folder``, in their order. ``execute`` runs one; ``skip`` is told of one that has run.

    Raises:
        InputError: the folder holds a run on other data or with other settings, or a stage fails.
    """

    dry_run = False

    def __init__(self, folder: Path, execute: Execute, skip: Callable[[str], None]):
        self.folder = folder
        self._stamps = folder / STAMPS
        self._execute = execute
        self._skip = skip
        self._upstream = ""  # the key of what came before

    def after_files(self, files: Iterable[Path]) -> None:
        """What follows depends on the sizes and times of ``files``."""
        self._upstream = self._key("\n".join(map(_size_and_time, files)))

    def after_contents(self, root: Path, files: Iterable[str]) -> None:
        """What follows depends on what ``files`` below ``root`` hold."""
        digests = [hashlib.sha256((root / file).read_bytes()).hexdigest() for file in files]
        self._upstream = self._key("\n".join(f"{digest}  {file}" for digest, file in zip(digests, files, strict=True)))

    def same_data(self, *settings: str) -> None:
        """Refuse data for a folder that holds another run's, before anything of that run is written over."""
        origin, key = self._stamps / "data.origin", self._key(*settings)
        if origin.is_file() and origin.read_text().strip() != key:
            raise InputError(
                f"{self.folder} holds a run on other data, or with another seed or other settings of the data; "
                "choose another OUTPUT_DIR"
            )
        _write(origin, key)

    def stage(self, name: str, output: Path, program: Sequence[str]) -> None:
        """Run ``program``, which writes the file or folder ``output``, unless it has run before."""
        self._stage(name, output, program, lambda: None, 0)

    def training(self, name: str, checkpoints: Path, program: Sequence[str]) -> None:
        """The same for a training run, which verl resumes from ``checkpoints``.

        A run is only resumed with the same data, start model and settings; the length of training may change. The
        seconds are those of all starts since the run began. Later stages depend on this very run: a run that starts
        again has other weights, even if it has the same data.
        """
        origin, begun, clock = (self._stamps / f"{name}.{what}" for what in ("origin", "begun", "seconds"))
        marker, key, earlier = checkpoints / MARKER, self._key(*filter(_lasts, program)), 0
        if marker.exists():
            if not origin.is_file() or origin.read_text().strip() != key:
                raise InputError(
                    f"{checkpoints} holds a run on other data, from another model or with other settings; move it "
                    "away, or choose another OUTPUT_DIR"
                )
            earlier = _number(clock)
        else:
            _write(begun, str(time.time_ns()))
        _write(origin, key)
        self._stage(name, marker, program, Clock(clock, earlier).keep, earlier)
        if begun.is_file():  # folders of older versions lack this file
            self._upstream = self._key(begun.read_text().strip())

    @contextmanager
    def branch(self) -> Iterator[None]:
        """Stages on which those that follow do not depend."""
        before = self._upstream
        yield
        self._upstream = before

    def seconds(self, name: str) -> int:
        """What the finished stage ``name`` took."""
        return int((self._stamps / name).read_text().split(maxsplit=2)[1])

    def _stage(
        self, name: str, output: Path, program: Sequence[str], meanwhile: Callable[[], None], earlier: int
    ) -> None:
        stamp, key, start = self._stamps / name, self._key(*program), time.monotonic()
        if _finished(stamp, key):
            self._skip(name)
        else:
            stamp.unlink(missing_ok=True)
            self._execute(name, program, meanwhile)
            _write(stamp, "\n".join([f"{key} {_since(start) + earlier}", *_files(output)]))
        self._upstream = key

    def _key(self, *parts: str) -> str:
        text = "".join(f"{part}\n" for part in (self._upstream, *parts))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    with atomic_output(path) as partial:
        partial.write_text(f"{text}\n")


class Clock:
    """Keeps in ``file`` the seconds since now and those before."""

    def __init__(self, file: Path, earlier: int):
        self._file, self._earlier, self._start = file, earlier, time.monotonic()
        self._kept = -1

    def keep(self) -> None:
        """Called as often as one likes; writes once a second."""
        seconds = _since(self._start)
        if seconds > self._kept:
            self._kept = seconds
            with suppress(InputError):  # a full disk must not end a training that goes on
                _write(self._file, str(self._earlier + seconds))


class DryRun(Stages):
    """Has ``show`` print the programs of all stages, and neither reads nor writes the folder."""

    dry_run = True

    def __init__(self, show: Callable[[str, Sequence[str]], None]):
        self._show = show

    def after_files(self, files: Iterable[Path]) -> None:
        pass

    def after_contents(self, root: Path, files: Iterable[str]) -> None:
        pass

    def same_data(self, *settings: str) -> None:
        pass

    def stage(self, name: str, output: Path, program: Sequence[str]) -> None:
        self._show(name, program)

    def training(self, name: str, checkpoints: Path, program: Sequence[str]) -> None:
        self._show(name, program)


def _since(start: float) -> int:
    return int(time.monotonic() - start)


def _size_and_time(file: Path) -> str:
    try:
        status = file.stat()
    except OSError as error:  # the stage that reads the file tells the user
        return f"{file} {error.strerror}"
    return f"{file} {status.st_size} {int(status.st_mtime)}"


def _files(output: Path) -> list[str]:
    if output.is_dir():
        return [os.path.join(folder, name) for folder, _, names in os.walk(output) for name in names]
    return [str(output)] if output.exists() else []


def _finished(stamp: Path, key: str) -> bool:
    """Whether the stage ran with this key, and what it wrote is still there. A damaged stamp is none."""
    if not stamp.is_file():
        return False
    first, *files = stamp.read_text(errors="replace").splitlines() or [""]
    return first.split()[:1] == [key] and all(map(os.path.exists, files))


def _number(file: Path) -> int:
    """The number in a file, 0 where there is none: killed runs of older versions may have left the file empty."""
    text = file.read_text(errors="replace").strip() if file.is_file() else ""
    return int(text) if text.isdecimal() else 0


def _lasts(argument: str) -> bool:
    """Whether an argument of a training program must stay when verl resumes the run."""
    if "=" not in argument and not argument.startswith("~"):
        return True  # no override
    key = OverridesParser.create().parse_override(argument).key_or_group
    return not key.startswith(LENGTH) and not (key.startswith("recipe.") and key.endswith(LENGTH_OF_RECIPE))
