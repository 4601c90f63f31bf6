"""Outputs appear whole under their final name, or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import InputError

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR}


@contextmanager
def atomic_output(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    The caller creates a file or a folder at the yielded path. A folder replaces an older one as a whole.
    A full or read-only disk ends as an ``InputError``; other exceptions pass.
    """
    final = Path(path)
    partial = final.with_name(f".{final.name}.partial-{os.getpid()}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        if final.is_dir() and partial.is_dir():
            shutil.rmtree(final)
        os.replace(partial, final)
    except Exception as error:
        if reason := _disk_problem(error):
            raise InputError(f"cannot write {final}: {reason}; free space or choose another folder") from error
        raise
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        elif partial.exists():
            partial.unlink()


def _disk_problem(error: Exception) -> str | None:
    """What is wrong with the disk, None if the error is about something else."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return error.strerror
    full = os.strerror(errno.ENOSPC)
    return full if full in str(error) else None  # DuckDB and safetensors wrap the system's error in their own
