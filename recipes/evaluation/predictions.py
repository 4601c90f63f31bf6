"""Answers that another program wrote to a file."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.common.errors import InputError
from data_prep.common.json_file import read_json
from recipes.evaluation.generation import Response

NO_PREDICTION = "no_prediction"
UNKNOWN = "unknown"  # how the answer of another program ended
LINES = (".jsonl", ".ndjson")


def predicted_responses(path: Path, ids: Sequence[str], known_ids: Iterable[str]) -> list[Response]:
    """The responses in ``path`` to the questions ``ids``. ``known_ids`` are those of the whole data set.

    The file is one of

    * ``{id: text}``, such as the ``prediction.json`` of EHRSQL-2024 (``"null"`` abstains);
    * lines of JSON (``.jsonl``), each with ``id`` and ``response``, or ``sql``;
    * a ``results.json`` of ``evaluate``. Its token confidences are not read.

    A question without a prediction gets an empty response with ``finish_reason`` ``NO_PREDICTION``; their number is
    written on stderr.

    Raises:
        InputError: the file is missing or of another form, or the data set lacks one of its ids.
    """
    responses, known = _read(path), set(known_ids)
    if foreign := [id for id in responses if id not in known]:
        raise InputError(
            f"{path}: the data set lacks {len(foreign):,} of {len(responses):,} ids, such as {foreign[0]!r}; "
            "evaluate on the data set that the predictions are of"
        )
    if not any(id in responses for id in ids):
        raise InputError(f"{path} holds no prediction for any of the {len(ids):,} questions; check the file")
    if missing := sum(id not in responses for id in ids):
        counted = f"{missing:,} of {len(ids):,} questions have no prediction in {path}"
        print(f"warning: {counted}, and count as answered wrongly", file=sys.stderr)
    return [responses.get(id, Response("", 0, NO_PREDICTION)) for id in ids]


def tokens_counted(sample: Any) -> bool:
    """Whether a sample's ``response_tokens`` are known: nobody has counted those of a file."""
    return sample.finish_reason not in (NO_PREDICTION, UNKNOWN)


def _read(path: Path) -> dict[str, Response]:
    if path.suffix in LINES:
        lines = enumerate(_text(path).split("\n"), 1)  # a text may hold other line breaks
        records = [_record(path, number, line) for number, line in lines if line.strip()]
    else:
        content = read_json(path)
        if not isinstance(content, dict):
            raise InputError(f"{path} is no object of id and text; write one, or lines of JSON to a .jsonl file")
        samples = content.get("samples")
        records = samples if isinstance(samples, list) else [{"id": id, "response": content[id]} for id in content]
    responses: dict[str, Response] = {}
    for record in records:
        id, response = _response(path, record)
        if id in responses:
            raise InputError(f"{path}: the id {id!r} occurs twice; keep one of the predictions")
        responses[id] = response
    return responses


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"no file {path}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _record(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}, line {number} is no JSON ({error}); write one object a line") from error


def _response(path: Path, record: Any) -> tuple[str, Response]:
    """The id of a record and its response."""
    if not isinstance(record, dict) or not isinstance(record.get("id"), str):
        raise InputError(f"{path}: a prediction has no id that is a text: {str(record)[:80]}")
    text = record.get("response", record.get("sql"))
    if not isinstance(text, str):
        raise InputError(f'{path}: the prediction of {record["id"]!r} is no text; write "null" to abstain')
    tokens, further = record.get("response_tokens"), record.get("further", [])
    if not isinstance(further, list) or not all(isinstance(answer, dict) for answer in further):
        raise InputError(f"{path}: the further answers of {record['id']!r} are no list of objects; remove them")
    return record["id"], Response(
        text=text.encode(errors="replace").decode(),  # JSON can hold half a character, files cannot
        tokens=tokens if isinstance(tokens, int) else 0,
        finish_reason=str(record.get("finish_reason", UNKNOWN)),
        further=tuple(_response(path, answer | {"id": record["id"]})[1] for answer in further),
    )
