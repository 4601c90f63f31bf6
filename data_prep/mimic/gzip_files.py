"""Gzip files for DuckDB, which decompresses such files without a look at their check sums.

Here ISA-L decompresses a file and verifies the check sum and the length of each member. Zero bytes may follow the last
member, as ``gzip`` itself allows; anything else may not. DuckDB gets the text as a gzip file of one member that is
stored, not compressed: DuckDB reads gzip files as a stream, but of other files it wants to know the size at once.
"""

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from fsspec import AbstractFileSystem
from isal import igzip, isal_zlib

PROTOCOL = "verified"
DAMAGE = (OSError, EOFError, isal_zlib.error)  # gzip.BadGzipFile is an OSError
PIECE_BYTES = 16 << 20  # decompressed at once
HEADER = b"\x1f\x8b\x08" + bytes(7)
BLOCK_BYTES = (32 << 10) - 5  # of text: a block of DEFLATE begins with 5 bytes, and DuckDB asks for 32 KB
END = b"\1\0\0\xff\xff" + bytes(8)  # an empty last block, and a check sum that DuckDB does not look at


def open_gzip(path: Path) -> IO[bytes]:
    """Open ``path`` for reading. Where the file is damaged, opening or reading raises one of ``DAMAGE``."""
    return igzip.open(path, "rb")


def find_damage(path: Path) -> Exception | None:
    """What is wrong with a gzip file, None if it is whole. Reads all of it."""
    try:
        with open_gzip(path) as file:
            while file.read(PIECE_BYTES):
                pass
    except DAMAGE as error:
        return error
    return None


class VerifiedFiles(AbstractFileSystem):
    """Lets DuckDB read ``url(path)`` in place of a gzip file ``path``.

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
    """A gzip file with the text of ``path``. While DuckDB works on one piece, a thread decompresses the next."""

    def __init__(self, path: Path, damaged: Callable[[Path, Exception], object]):
        self._file = open_gzip(path)
        self._path = path
        self._damaged = damaged
        self._parts = self._gzip_file()
        self._rest = b""
        self._position = 0

    def read(self, size: int) -> bytes:
        """The next 1 to ``size`` bytes; none at the end."""
        part = self._rest or next(self._parts, b"")
        part, self._rest = part[:size], part[size:]
        self._position += len(part)
        return part

    def seek(self, position: int) -> None:
        if position != self._position:  # DuckDB seeks once: behind the header, where it is already
            raise io.UnsupportedOperation(f"{self._path} is read from its beginning to its end only")

    def close(self) -> None:
        self._parts.close()
        self._file.close()

    def _gzip_file(self) -> Iterator[bytes]:
        yield HEADER
        for text in self._pieces():
            for start in range(0, len(text), BLOCK_BYTES):
                block = text[start : start + BLOCK_BYTES]
                length = len(block)
                yield b"".join((b"\0", length.to_bytes(2, "little"), (length ^ 0xFFFF).to_bytes(2, "little"), block))
        yield END

    def _pieces(self) -> Iterator[bytes]:
        with ThreadPoolExecutor(1) as thread:
            text = self._decompress()
            while text:
                following = thread.submit(self._decompress)
                yield text
                text = following.result()

    def _decompress(self) -> bytes:
        try:
            return self._file.read(PIECE_BYTES)
        except DAMAGE as error:
            self._damaged(self._path, error)
            return b""


def _local(url: str) -> Path:
    return Path(url.removeprefix(f"{PROTOCOL}://"))
