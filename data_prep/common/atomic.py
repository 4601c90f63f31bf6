"""Outputs appear whole under their final name, or not at all."""

import errno
import os
import re
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from data_prep.common.errors import InputError

DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
}


@contextmanager
def atomic_output(path: str | os.PathLike, marker: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    What killed processes of this host left there is removed first. Hosts (or containers) of one name must not write the
    same ``path``: they would not know of each other's processes.

    The caller creates a file at the yielded path or, with ``marker``, a folder that holds a file of that name. An older
    file is replaced. So is an older folder as a whole, if it holds the marker: any other may be somebody's data.

    Raises:
        InputError: at once, where ``path`` is in the way or cannot be written; later, where the disk is full.
    """
    final = Path(os.path.realpath(path))  # through links, which stay
    prefix = f".{final.name}.partial-{socket.gethostname()}-"
    partial = final.with_name(f"{prefix}{os.getpid()}")
    try:
        _refuse_foreign(final, marker)
        check_folder(final.parent)
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(final.parent, prefix)
        yield partial
        if final.is_dir():
            shutil.rmtree(final)
        os.replace(partial, final)
    except InputError:
        raise
    except Exception as error:
        if reason := _disk_problem(error):
            raise InputError(f"cannot write {final}: {reason}; free space or choose another folder") from error
        raise
    finally:
        _remove(partial)


def check_folder(folder: Path) -> None:
    """Check that ``folder`` can be written to or, where it does not exist, made; makes nothing.

    Raises:
        InputError: it cannot.
    """
    place = Path(os.path.realpath(folder))
    while not os.path.exists(place):
        place = place.parent
    if not os.path.isdir(place):
        raise InputError(f"{place} is not a folder; choose another")
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        raise InputError(f"cannot write to {place}: {error.strerror}; choose another folder") from error


def _refuse_foreign(final: Path, marker: str | None) -> None:
    if final.is_dir():
        if marker is None:
            raise InputError(f"{final} is a folder; name a file, or move the folder away")
        if any(final.iterdir()) and not (final / marker).is_file():
            raise InputError(f"{final} holds other files (no {marker}) and is not replaced; choose another folder")
    elif marker and final.exists():
        raise InputError(f"{final} is not a folder; choose another")


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove what killed processes were writing: DuckDB's and SQLite's files and outputs within outputs included.

    Best effort: a file that cannot be removed, or that another process removes at the same time, does no harm.
    """
    name = re.compile(rf"\.?{re.escape(prefix)}(\d+)(\.spill|-journal|\.partial-.*)?", re.ASCII)
    for path in folder.iterdir():
        if (match := name.fullmatch(path.name)) and not _other_process(int(match[1])):
            with suppress(OSError):
                _remove(path)


def _other_process(pid: int) -> bool:
    return pid != os.getpid() and psutil.pid_exists(pid)


def _remove(path: Path) -> None:
    if os.path.isdir(path):  # unlike Path's own methods, these take a name that is too long
        shutil.rmtree(path)
    elif os.path.exists(path):
        path.unlink()


def _disk_problem(error: Exception) -> str | None:
    """What is wrong with the disk, None if the error is about something else."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return error.strerror
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the module's own errors have none
        return str(error) if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR) else None
    full = os.strerror(errno.ENOSPC)
    return full if full in str(error) else None  # DuckDB and safetensors wrap the system's error in their own
