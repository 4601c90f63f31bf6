"""Read and check ECG-Expert-QA: the schema of its eleven files, and one type for the records of all of them."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.common.errors import InputError
from data_prep.common.json_file import read_json
from data_prep.ecg.turns import Turn, conversation_turns, dialogue_turns, entity_turns, fold, text, text_turns

SUBJECT = "subject_id"
ECG_FIELDS = {
    "report_0": "Report",
    "report_1": "Report",
    "report_3": "Report",
    "bandwidth": "Bandwidth",
    "filtering": "Filtering",
    "rr_interval": "RR interval (ms)",
    "p_onset": "P onset (ms)",
    "p_end": "P end (ms)",
    "qrs_onset": "QRS onset (ms)",
    "qrs_end": "QRS end (ms)",
    "t_end": "T end (ms)",
    "p_axis": "P axis (degrees)",
    "qrs_axis": "QRS axis (degrees)",
    "t_axis": "T axis (degrees)",
}


@dataclass(frozen=True)
class FileSchema:
    """What one file holds. Every record has exactly the keys that are named here.

    ``question`` and ``answer`` are keys; ``instruction`` is asked where no key holds the question. ``context`` maps
    the keys that go into the prompt to their labels there, ``group`` is the key whose value keeps records on one side
    of the split, ``unused`` names keys that are left out. ``kind`` is the grader's.
    """

    id: str
    file: str
    answer: str
    question: str = ""
    instruction: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    group: str = ""
    unused: tuple[str, ...] = ()
    kind: str = "answer"
    read_turns: Callable[[str, Any], list[Turn]] = text_turns
    last_turn_only: bool = False  # earlier turns are history, not questions

    @property
    def keys(self) -> set[str]:
        """The keys of a record."""
        return {self.answer, self.question, self.group, *self.context, *self.unused} - {""}


SCHEMAS = (
    FileSchema("EBK", "ECG Knowledge (Basic Q&A).json", question="Q", answer="A"),
    FileSchema("CK", "Cardiology Knowledge (Basic Knowledge Q&A).json", question="Q", answer="A"),
    FileSchema(
        "CD",
        "Complex diagnosis (analysis of difficult diseases).json",
        question="Q",
        answer="A",
        context={"Disease": "Disease"},
        group="Disease",
    ),
    FileSchema(
        "PP",
        "Patient prognosis (prognostic analysis).json",
        question="Q",
        answer="A",
        context={"medical_advice": "Medical advice"},
        group="medical_advice",  # one case
    ),
    FileSchema("PRTK", "Patient's right to know.json", question="Question", answer="Answer"),
    FileSchema(
        "CMD",
        "Cross modal diagnosis (ECG Text corresponding diagnosis).json",
        question="A",  # the file has the two the wrong way round
        answer="Q",
        context=ECG_FIELDS,
        group=SUBJECT,
        unused=("study_id", "cart_id", "ecg_time"),
    ),
    FileSchema(
        "MROD",
        "Medical inquiry, multiple rounds of dialogue between doctors and patients.json",
        answer="QA",
        context={"result": "Patient"},
        group=SUBJECT,
        read_turns=dialogue_turns,
    ),
    FileSchema(
        "LTD",
        "Long text diagnosis.json",
        answer="QA",
        context={"result": "Patient"},
        group=SUBJECT,
        read_turns=dialogue_turns,
    ),
    FileSchema(
        "MC",
        "Memory correction.json",
        answer="Conversation",
        instruction="Let us talk about this patient.",
        context={"result": "Patient"},
        group=SUBJECT,
        kind="findings",
        read_turns=conversation_turns,
        last_turn_only=True,
    ),
    FileSchema(
        "MEE",
        "Medical entity extraction.json",
        answer="keywords",
        instruction="List the medical entities in this text, separated by commas.",
        context={"result": "Text"},
        group=SUBJECT,
        kind="entities",
        read_turns=entity_turns,
    ),
    FileSchema(
        "GRA",
        "Generate risk assessment.json",
        answer="RA",
        instruction="Write a risk assessment for this patient.",
        context={"result": "Patient"},
        group=SUBJECT,
        kind="findings",
    ),
)


@dataclass(frozen=True)
class Record:
    """A dialogue of at least one turn; ``context`` holds (label, value) pairs, ``group`` is "" where there is none."""

    schema: FileSchema
    context: tuple[tuple[str, str], ...]
    turns: tuple[Turn, ...]
    group: str

    @property
    def asked(self) -> range:
        """The numbers of the turns that are questions to a model; the others are history alone."""
        return range(len(self.turns) - 1 if self.schema.last_turn_only else 0, len(self.turns))


def read_file(path: Path, schema: FileSchema) -> tuple[list[Record], Counter[str]]:
    """The records of one file in their order, and how many questions were dropped, by reason.

    Raises:
        InputError: the file is unreadable, empty or of another shape than ``schema``.
    """
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path}: expected a list of records; is it a file of ECG-Expert-QA?")
    records, dropped = [], Counter()
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: record {number} is not an object; fetch the file again")
        try:
            record = _record(schema, entry, dropped)
        except ValueError as error:
            keys = ", ".join(map(repr, entry))
            raise InputError(f"{path}: record {number} with the keys {keys}: {error}") from error
        if record.turns:
            records.append(record)
    return records, dropped


def _record(schema: FileSchema, entry: dict[str, Any], dropped: Counter[str]) -> Record:
    if missing := schema.keys - set(entry):
        raise ValueError(f"needs {', '.join(sorted(missing))}")
    if unknown := set(entry) - schema.keys:
        raise ValueError(f"does not know {', '.join(map(repr, sorted(unknown)))}")
    context = [(label, _scalar(entry[key], key)) for key, label in schema.context.items()]
    group = _scalar(entry[schema.group], schema.group) if schema.group else ""
    if schema.group and not group:
        raise ValueError(f"{schema.group} is empty")
    question = text(entry[schema.question], schema.question) if schema.question else schema.instruction
    turns = schema.read_turns(question, entry[schema.answer])
    if not turns:
        dropped["no turns"] += 1
    for turn in turns:
        if not turn.question or not turn.answer:
            dropped["empty answer" if turn.question else "empty question"] += 1
    return Record(
        schema,
        tuple((label, value) for label, value in context if value),
        tuple(turn for turn in turns if turn.question and turn.answer),
        f"{schema.group} {fold(group)}" if group else "",
    )


def _scalar(value: Any, key: str) -> str:
    """Text or a number as text, a whole number without a fraction; "" for null and NaN."""
    if value is None or value != value:
        return ""
    if type(value) is float and value.is_integer():
        value = int(value)
    return str(value) if type(value) in (int, float) else text(value, key)
