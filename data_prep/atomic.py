"""Outputs appear whole under their final name, or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import InputError

DISK_ERRORS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
}


@contextmanager
def atomic_output(path: str | os.PathLike, marker: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    The caller creates a file at the yielded path or, with ``marker``, a folder that holds a file of that name. An older
    file is replaced. So is an older folder as a whole, if it holds the marker: any other may be somebody's data.

    Raises:
        InputError: at once, where ``path`` is in the way; later, where the disk is full or cannot be written to.
    """
    final = Path(os.path.realpath(path))  # through links, which stay
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}")
    try:
        _refuse_foreign(final, marker)
        _make_parent(final)
        yield partial
        if final.is_dir():
            shutil.rmtree(final)
        os.replace(partial, final)
    except Exception as error:
        if reason := _disk_problem(error):
            raise InputError(f"cannot write {final}: {reason}; free space or choose another folder") from error
        raise
    finally:
        if os.path.isdir(partial):
            shutil.rmtree(partial)
        elif os.path.exists(partial):
            partial.unlink()


def _refuse_foreign(final: Path, marker: str | None) -> None:
    if final.is_dir():
        if marker is None:
            raise InputError(f"{final} is a folder; name a file, or move the folder away")
        if any(final.iterdir()) and not (final / marker).is_file():
            raise InputError(f"{final} holds other files (no {marker}) and is not replaced; choose another folder")
    elif marker and final.exists():
        raise InputError(f"{final} is not a folder; choose another")


def _make_parent(final: Path) -> None:
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # in a file system such as /proc that makes no folders
        raise InputError(f"cannot make {final.parent}; choose another folder") from error


def _disk_problem(error: Exception) -> str | None:
    """What is wrong with the disk, None if the error is about something else."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return error.strerror
    full = os.strerror(errno.ENOSPC)
    return full if full in str(error) else None  # DuckDB and safetensors wrap the system's error in their own
