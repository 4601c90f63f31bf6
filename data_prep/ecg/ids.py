"""Names for the records and questions of ECG-Expert-QA, which depend on what they hold alone."""

import hashlib
import json

from data_prep.ecg.source import Record


def record_id(record: Record) -> str:
    """A name for the record, 16 hexadecimal digits."""
    content = [record.schema.id, record.context, [(turn.question, turn.answer) for turn in record.turns]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def question_id(record_id: str, number: int) -> str:
    """The name of the question in turn ``number`` of a record."""
    return f"{record_id}-{number}"


def question_ids(record: Record, id: str) -> list[str]:
    """The names of the questions of the record ``id``, one for each turn that is asked."""
    return [question_id(id, number) for number in record.asked]
