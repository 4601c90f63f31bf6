"""Read a JSON file that a user gave."""

import json
from pathlib import Path
from typing import Any

from data_prep.common.errors import InputError


def read_json(path: Path) -> Any:
    """The content of the JSON file ``path``, in UTF-8 or, as some Windows programs write it, UTF-16 or UTF-32.

    A byte order mark may stand at the beginning.

    Raises:
        InputError: the file is missing, unreadable or damaged, or an object in the file has a key twice.
    """
    try:
        content = path.read_bytes()
        if not content.strip():
            raise InputError(f"{path} is empty; fetch or write the file again")
        return json.loads(content.decode(json.detect_encoding(content)), object_pairs_hook=_unique_keys)
    except FileNotFoundError:
        raise InputError(f"no file {path}; check the path") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: bad JSON in {where}: {error.msg}; fetch or write the file again") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a UTF-8 text file; unpack the file, or fetch or write it again") from error
    except (OSError, ValueError, RecursionError) as error:  # a key twice, endless brackets
        raise InputError(f"cannot read {path}: {error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} occurs twice; keep one of them")
    return content
