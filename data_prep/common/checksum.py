"""Checksums of files, for manifests and downloads."""

import hashlib
from pathlib import Path


def sha256_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_id(path: Path) -> str:
    """The name that git gives a file's content: the hexadecimal SHA-1 of its length and the content."""
    with path.open("rb") as file:
        header = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
        return hashlib.file_digest(file, lambda: header).hexdigest()
