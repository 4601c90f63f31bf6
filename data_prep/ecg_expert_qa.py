"""ECG-Expert-QA into parquet files for verl: prompts, and what the grader needs of each answer extracted once.

``sft_train.parquet`` and ``sft_valid.parquet`` hold one dialogue a row (``messages``) for verl's SFT trainer;
``grpo_train.parquet``, ``grpo_valid.parquet`` and ``grpo_test.parquet`` hold one question a row in the shape that its
RL trainer reads, the earlier turns of a dialogue as chat history. With a teacher's answers to some train questions
``sft_train.parquet`` holds these, unverified, and ``grpo_train.parquet`` the other questions. ``manifest.json`` is
renamed into place last: where it stands, the other files are complete.
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from data_prep.common.atomic import check_folder
from data_prep.common.checksum import sha256_file
from data_prep.common.errors import InputError, run_main
from data_prep.common.parallel import parallel_map
from data_prep.common.parquet import write_parquet
from data_prep.common.prompt_tokens import TokenCounter, WordCounter
from data_prep.demo.provenance import is_demo_folder
from data_prep.ecg.ids import question_ids, record_id
from data_prep.ecg.prompts import PROMPT_FILES, ChatBuilder
from data_prep.ecg.report import SPLITS, category_counts, print_report
from data_prep.ecg.rows import ask, grpo_row, sft_row
from data_prep.ecg.source import SCHEMAS, Record, read_file
from data_prep.ecg.split import assign_groups, group_records
from data_prep.ecg.teacher import check_ids, grade_answer, read_answers, teacher_counts, with_answers
from data_prep.ecg.turns import fold

PARQUET_NAMES = ("sft_train", "sft_valid", "grpo_train", "grpo_valid", "grpo_test")


@dataclass(frozen=True)
class Options:
    """What the command line sets; see ``--help``."""

    data_dir: Path
    out_dir: Path
    sft_share: float = 1.0
    teacher_answers: Path | None = None
    valid_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0
    tokenizer: str | None = None
    max_prompt_length: int | None = None
    think: bool = False


def prepare(options: Options, console: Console) -> None:
    """Write all outputs to ``options.out_dir`` and print what they hold.

    Raises:
        InputError: an option or an input is bad; nothing is written then.
    """
    check_options(options)
    counter = TokenCounter(options.tokenizer) if options.tokenizer else WordCounter()
    answers = read_answers(options.teacher_answers) if options.teacher_answers else {}
    records, dropped = read_files(options.data_dir, console)
    records, duplicates = drop_duplicates(records)
    groups = group_records(records)
    splits = split_records(records, groups, options)
    ids = [record_id(record) for record in records]
    taught = draw_taught(records, groups, splits, options)
    if options.teacher_answers:
        taught = keep_answered(taught, records, ids, splits, answers, options)

    chat = ChatBuilder(options.think)
    group_names = name_groups(groups, ids)
    rows: dict[str, list[dict[str, Any]]] = {}
    questions, graded, teacher_graded = [], [], []
    for position in range(len(records)):
        record, id, split = records[position], ids[position], splits[position]
        answer_shown = split != "train" or position in taught
        by_teacher = position in taught and bool(answers)
        if split != "test" and answer_shown:
            written = with_answers(record, id, answers) if by_teacher else record
            rows.setdefault(f"sft_{split}", []).append(sft_row(written, chat))
        asked = ask(record, id, split, group_names[groups[position]], chat)
        questions += asked
        if by_teacher:
            teacher_graded += [(question, answers[question.id]) for question in asked]
        elif split != "train" or options.sft_share == 1 or not answer_shown:
            graded += [(question, answer_shown) for question in asked]
    made = parallel_map(grpo_row, "Extracting facts", console, *zip(*graded, strict=True))
    for (question, _), row in zip(graded, made, strict=True):
        rows.setdefault(f"grpo_{question.split}", []).append(row)

    inputs = [*PROMPT_FILES, *filter(None, [options.teacher_answers])]
    inputs += (options.data_dir / schema.file for schema in SCHEMAS if schema.id in dropped)
    manifest = {
        "options": {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()},
        "inputs": {str(path): sha256_file(path) for path in inputs},
        "synthetic": is_demo_folder(options.data_dir),
        "counts": category_counts(questions, dropped, duplicates, counter, options.max_prompt_length),
        "groups": {
            "number": len(group_names),
            "largest": max(Counter(question.group for question in questions).values()),
        },
    }
    if options.teacher_answers:
        title = "Grading the teacher's answers"
        grades = parallel_map(grade_answer, title, console, *zip(*teacher_graded, strict=True))
        manifest["teacher"] = teacher_counts(grades)
    write_parquet(options.out_dir, PARQUET_NAMES, rows, manifest)
    print_report(console, manifest, counter.unit)


def check_options(options: Options) -> None:
    """Raise an ``InputError`` for the first bad option, before anything is read."""
    if not 0 < options.sft_share <= 1:
        raise InputError(f"--sft_share {options.sft_share:g}: give a share above 0 and at most 1")
    valid, test = options.valid_share, options.test_share
    if not (valid >= 0 and test >= 0 and valid + test < 1):
        raise InputError(f"--valid_share {valid:g} --test_share {test:g}: give shares from 0 that leave some for train")
    if options.max_prompt_length is not None and options.max_prompt_length < 1:
        raise InputError(f"--max_prompt_length {options.max_prompt_length}: give at least 1 token")
    if options.max_prompt_length and not options.tokenizer:
        raise InputError("--max_prompt_length counts tokens; give the --tokenizer as well")
    if options.out_dir.resolve() == options.data_dir.resolve():
        raise InputError(f"--out_dir {options.out_dir} is the --data_dir; choose another")
    check_folder(options.out_dir)


def read_files(data_dir: Path, console: Console) -> tuple[list[Record], dict[str, Counter[str]]]:
    """The records of all files in ``data_dir``, and by category of the files that are there what was dropped and why.

    Raises:
        InputError: the folder has none of the files, one that is unknown, or a bad one.
    """
    if not data_dir.is_dir():
        raise InputError(f"no folder {data_dir}; give a checkout of ECG-Expert-QA")
    known = {schema.file for schema in SCHEMAS}
    if unknown := sorted(path.name for path in data_dir.glob("*.json") if path.name not in known):
        raise InputError(f"{data_dir}: {unknown[0]!r} is no file of ECG-Expert-QA; move it away")
    records, dropped = [], {}
    for schema in SCHEMAS:
        path = data_dir / schema.file
        if not path.exists():
            console.print(f"{schema.id}: no file {path}, skipped")
            continue
        file_records, dropped[schema.id] = read_file(path, schema)
        records += file_records
    if not dropped:
        raise InputError(f"{data_dir} holds none of the files of ECG-Expert-QA; is it the right folder?")
    if not records:
        raise InputError(f"{data_dir} holds no question with an answer; fetch the files again")
    return records, dropped


def drop_duplicates(records: list[Record]) -> tuple[list[Record], Counter[str]]:
    """The records without those that repeat an earlier one, and how many questions went, by category.

    Records are equal if context, questions and answers are, but for case and space. Punctuation counts: -30 is not 30.
    """
    kept: dict[tuple, Record] = {}
    duplicates = Counter()
    for record in records:
        context = tuple((label, fold(value)) for label, value in record.context)
        turns = tuple((fold(turn.question), fold(turn.answer)) for turn in record.turns)
        if kept.setdefault((context, turns), record) is not record:
            duplicates[record.schema.id] += len(record.asked)
    return list(kept.values()), duplicates


def split_records(records: list[Record], groups: list[int], options: Options) -> list[str]:
    """``"train"``, ``"valid"`` or ``"test"`` for each record.

    Raises:
        InputError: the groups are too few or too large for a split to get any.
    """
    valid, test = options.valid_share, options.test_share
    shares = dict(zip(SPLITS, (1 - valid - test, valid, test), strict=True))
    splits = assign_groups(records, groups, shares, options.seed)
    for name, share in shares.items():
        if share and name not in splits:
            raise InputError(
                f"a share of {share:g} of {len(set(groups))} groups leaves {name} empty; change the shares"
            )
    return splits


def draw_taught(records: list[Record], groups: list[int], splits: list[str], options: Options) -> set[int]:
    """The positions of the train records that come with their written answers: whole groups, by category.

    Raises:
        InputError: the share puts all train records on one side.
    """
    train = [position for position, split in enumerate(splits) if split == "train"]
    shares = {"taught": options.sft_share, "withheld": 1 - options.sft_share}
    sides = assign_groups([records[p] for p in train], [groups[p] for p in train], shares, options.seed)
    if options.sft_share < 1 and len(set(sides)) < 2:
        raise InputError(
            f"--sft_share {options.sft_share:g} puts all {len(train)} train records on one side; choose another "
            "share, or 1 for written answers everywhere"
        )
    return {position for position, side in zip(train, sides, strict=True) if side == "taught"}


def keep_answered(
    taught: set[int],
    records: list[Record],
    ids: list[str],
    splits: list[str],
    answers: dict[str, str],
    options: Options,
) -> set[int]:
    """Those of the positions ``taught`` whose questions the teacher answers, all of a record's.

    Raises:
        InputError: an id in ``answers`` is of no question, there are none of them, or no other train record is left.
    """
    asked = [question_ids(record, id) for record, id in zip(records, ids, strict=True)]
    check_ids(options.teacher_answers, answers, {id for record_ids in asked for id in record_ids})
    answered = {position for position in taught if all(id in answers for id in asked[position])}
    path, train = options.teacher_answers, splits.count("train")
    if not answered:
        raise InputError(
            f"{path} answers none of the {len(taught)} train records drawn for SFT in full; write answers to questions "
            "of grpo_train.parquet, made with the same --seed and shares"
        )
    if len(answered) == train:
        raise InputError(
            f"{path} answers all {train} train records, which leaves none for GRPO; give an --sft_share below 1, or "
            "fewer answers"
        )
    return answered


def name_groups(groups: list[int], ids: list[str]) -> dict[int, str]:
    """The smallest of its records' ids for each group: a name that depends on what the records hold alone."""
    names: dict[int, str] = {}
    for group, id in zip(groups, ids, strict=True):
        names[group] = min(id, names.get(group, id))
    return names


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.ecg_expert_qa",
        description="ECG-Expert-QA's JSON files into parquet files for verl.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--data_dir", type=Path, required=True, help="checkout of ECG-Expert-QA, all or some of its JSON files")
    option("--out_dir", type=Path, required=True, help="folder for the parquet files and manifest.json")
    option(
        "--sft_share",
        type=float,
        default=1.0,
        help="share of the train questions that comes with written answers (sft_train.parquet); below 1 the others, "
        "whose written answer the grader alone sees, make grpo_train.parquet; at 1 both files hold all questions",
    )
    option(
        "--teacher_answers",
        type=Path,
        help="JSON object, question id to a teacher's unverified answer: those in that share make sft_train.parquet, "
        "all other train questions make grpo_train.parquet",
    )
    option("--valid_share", type=float, default=0.1, help="share of the questions for validation")
    option("--test_share", type=float, default=0.1, help="share of the questions for the test")
    option("--seed", type=int, default=0, help="of the split and of the SFT share's draw")
    option("--tokenizer", help="Hugging Face tokenizer with a chat template, to count tokens instead of words")
    option("--max_prompt_length", type=int, help="limit in tokens; prompts over it are counted, not dropped")
    option(
        "--think",
        action="store_true",
        help="ask for <think>...</think><answer>...</answer>; written answers are then in <answer>...</answer>",
    )
    prepare(Options(**vars(parser.parse_args(argv))), Console(markup=False, soft_wrap=True))


if __name__ == "__main__":
    run_main(main)
