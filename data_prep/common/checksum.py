"""SHA-256 of files, for manifests and downloads."""

import hashlib
from pathlib import Path


def sha256_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
