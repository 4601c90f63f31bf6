"""Read a JSON file that a user gave."""

import json
from pathlib import Path
from typing import Any

from data_prep.common.errors import InputError


def read_json(path: Path) -> Any:
    """The content of the JSON file ``path``.

    Raises:
        InputError: the file is missing, unreadable or damaged, or an object in the file has a key twice.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique_keys)
    except FileNotFoundError:
        raise InputError(f"no file {path}; check the path") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: bad JSON in {where}: {error.msg}; fetch or write the file again") from error
    except (OSError, ValueError, RecursionError) as error:  # no UTF-8, a key twice, endless brackets
        raise InputError(f"cannot read {path}: {error}") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} occurs twice; keep one of them")
    return content
