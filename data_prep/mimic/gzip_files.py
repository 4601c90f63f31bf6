"""Gzip files for DuckDB, which decompresses such files without a look at their check sums.

Here ISA-L decompresses a file and verifies the check sum and the length of each member. Zero bytes may follow the last
member, as ``gzip`` itself allows; anything else may not. DuckDB gets the text as a Zstandard file, in which it is
stored, not compressed. DuckDB reads compressed files as a stream, but of other files it wants to know the exact size at
once. It reads Zstandard by 128 KB and gzip by 32 KB, and each read has to wait for Python's lock.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from fsspec import AbstractFileSystem
from isal import igzip, isal_zlib

PROTOCOL = "verified"
DAMAGE = (OSError, EOFError, isal_zlib.error)  # gzip.BadGzipFile is an OSError
HEADER = b"\x28\xb5\x2f\xfd\x00\x38"  # of a frame of Zstandard: blocks of up to 128 KB, no length, no check sum
BLOCK_BYTES = 128 << 10  # of text: DuckDB asks for as much, and for the 3 bytes that a block begins with
LAST_BLOCK = b"\1\0\0"  # has no text


def open_gzip(path: Path) -> IO[bytes]:
    """Open ``path`` for reading. Where the file is damaged, opening or reading raises one of ``DAMAGE``."""
    return igzip.open(path, "rb")


def find_damage(path: Path) -> Exception | None:
    """What is wrong with a gzip file, None if it is whole. Reads all of it."""
    try:
        with open_gzip(path) as file:
            while file.read(BLOCK_BYTES):
                pass
    except DAMAGE as error:
        return error
    return None


class VerifiedFiles(AbstractFileSystem):
    """Lets DuckDB read the Zstandard file ``url(path)`` in place of a gzip file ``path``.

    ``damaged`` is called with the path of a damaged file and what is wrong with it. DuckDB's threads get no exception:
    for them a damaged file ends early.
    """

    protocol = PROTOCOL
    cachable = False

    def __init__(self, damaged: Callable[[Path, Exception], object]):
        super().__init__()
        self._damaged = damaged

    @staticmethod
    def url(path: Path) -> str:
        return f"{PROTOCOL}://{os.path.abspath(path)}"

    def open(self, path: str, *_, **__) -> "_Stored":
        return _Stored(_local(path), self._damaged)

    def glob(self, path: str, *_, **__) -> list[str]:
        return [path]

    def isfile(self, path: str) -> bool:
        return _local(path).is_file()

    def size(self, path: str) -> int:
        return _local(path).stat().st_size

    def modified(self, path: str) -> float:
        return _local(path).stat().st_mtime


class _Stored:
    """A Zstandard file with the text of the gzip file ``path``."""

    def __init__(self, path: Path, damaged: Callable[[Path, Exception], object]):
        self._file = open_gzip(path)
        self._path = path
        self._damaged = damaged
        self._parts = self._frame()
        self._rest = b""

    def read(self, size: int) -> bytes:
        """The next 1 to ``size`` bytes; none at the end."""
        part = self._rest or next(self._parts, b"")
        part, self._rest = part[:size], part[size:]
        return part

    def close(self) -> None:
        self._file.close()

    def _frame(self) -> Iterator[bytes]:
        yield HEADER
        while text := self._decompress():
            yield (len(text) << 3).to_bytes(3, "little") + text
        yield LAST_BLOCK

    def _decompress(self) -> bytes:
        try:
            return self._file.read(BLOCK_BYTES)
        except DAMAGE as error:
            self._damaged(self._path, error)
            return b""


def _local(url: str) -> Path:
    return Path(url.removeprefix(f"{PROTOCOL}://"))
