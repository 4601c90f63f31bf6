"""Answers of a server on disk as they come, so that a run that was killed goes on from there."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.common.errors import InputError
from recipes.evaluation.chat_reply import Usage
from recipes.evaluation.generation import Response
from recipes.evaluation.token_confidence import TokenConfidence


@dataclass(frozen=True)
class Answer:
    """All responses to one prompt, what the server counted for them, and the seconds that it took."""

    responses: tuple[Response, ...]
    usage: Usage
    seconds: float


class AnswerLog:
    """A file with a line of JSON for each answer. Only its owner may read it: answers can hold patients' data."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict[str, Answer]:
        """The answers by key. A last line that a killed run has not finished is cut off.

        Raises:
            InputError: the file cannot be read, or another line is damaged.
        """
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
            complete = content[: content.rfind(b"\n") + 1]
            if len(complete) < len(content):
                os.truncate(self.path, len(complete))
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}; remove it to ask everything again") from error
        answers = {}
        for number, line in enumerate(complete.splitlines(), 1):
            try:
                record = json.loads(line)
                answers[record["key"]] = Answer(
                    tuple(map(_response, record["responses"])), Usage(**record["usage"]), record["seconds"]
                )
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.path}, line {number} is damaged; remove that line to go on") from error
        return answers

    def append(self, key: str, answer: Answer) -> None:
        """Add an answer. Once this returns, the answer outlives the process.

        Raises:
            InputError: the file cannot be written.
        """
        line = json.dumps({"key": key, **asdict(answer)}) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(self.path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), "a") as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(line)
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}; free space, then start again") from error

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _response(record: dict[str, Any]) -> Response:
    confidence = record["confidence"] and TokenConfidence(**record["confidence"])
    return Response(**record | {"confidence": confidence, "further": tuple(map(_response, record["further"]))})
