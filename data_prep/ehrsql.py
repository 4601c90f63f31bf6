"""EHRSQL-2024 questions into parquet files for verl: prompts, and gold answers computed once.

``train.parquet``, ``valid.parquet`` and ``test.parquet`` hold one question a row in the shape that verl's RL
trainer reads; ``sft_train.parquet`` and ``sft_valid.parquet`` hold ``messages`` (prompt and gold SQL, or
``null``) for its SFT trainer. With a teacher's labels for some train questions, ``sft_train.parquet`` holds the
teacher's queries, unverified, and ``train.parquet`` the other questions with their answers alone. With ``--think``
SFT's answers begin with reasoning (``data_prep.sql.reasoning``). ``manifest.json`` is renamed into place last: where it
stands, the other files are complete.
"""

import argparse
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from data_prep.common.atomic import check_folder
from data_prep.common.checksum import sha256_file
from data_prep.common.errors import InputError, run_main
from data_prep.common.parquet import write_parquet
from data_prep.common.prompt_tokens import TokenCounter, WordCounter
from data_prep.demo.provenance import holds_demo_patients, is_demo_folder
from data_prep.sql.gold import execute_all, gold_seconds, training_timeout
from data_prep.sql.prompts import PromptBuilder, is_template_path, prompt_names, template_files
from data_prep.sql.reasoning import reasoned
from data_prep.sql.report import print_report, split_counts, teacher_counts
from data_prep.sql.schema import open_database
from data_prep.sql.source import (
    SPLITS,
    Question,
    draw_share,
    read_split,
    seen_in_train,
    split_files,
    sql_skeleton,
)
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED
from reward_fns.sql.sandbox import MAX_TIMEOUT_S, Execution

FEW_SHOT_EXAMPLES = 6
PARQUET_NAMES = ("train", "valid", "test", "sft_train", "sft_valid")


@dataclass(frozen=True)
class Options:
    """What the command line sets; see ``--help``."""

    data_dir: Path
    db: Path
    out_dir: Path
    reward_db: Path | None = None
    prompt: str = "compact_schema"
    tokenizer: str | None = None
    max_prompt_length: int | None = None
    gold_sql_share: float = 1.0
    teacher_labels: Path | None = None
    executing_only: bool = False
    think: bool = False
    seed: int = 0
    timeout_s: float = 60.0


def prepare(options: Options, console: Console) -> None:
    """Write all outputs to ``options.out_dir`` and print what they hold.

    Raises:
        InputError: an option or an input is bad; nothing is written then.
    """
    if not 0 < options.gold_sql_share <= 1:
        raise InputError(f"--gold_sql_share {options.gold_sql_share:g}: give a share above 0 and at most 1")
    if options.teacher_labels and options.gold_sql_share != 1:
        raise InputError("--teacher_labels and --gold_sql_share both say what SFT is taught; give one of them")
    if options.executing_only and not options.teacher_labels:
        raise InputError("--executing_only is about the queries of --teacher_labels; give that file as well")
    if not 0 < options.timeout_s <= MAX_TIMEOUT_S:
        raise InputError(f"--timeout_s {options.timeout_s:g}: give seconds above 0 and at most {MAX_TIMEOUT_S}")
    if options.max_prompt_length is not None and options.max_prompt_length < 1:
        raise InputError(f"--max_prompt_length {options.max_prompt_length}: give at least 1 token")
    if options.max_prompt_length and not options.tokenizer:
        raise InputError("--max_prompt_length counts tokens; give the --tokenizer as well")
    check_folder(options.out_dir)
    prompt_files = template_files(options.prompt)
    counter = TokenCounter(options.tokenizer) if options.tokenizer else WordCounter()
    open_database(options.db).close()
    builder = PromptBuilder(options.prompt, options.db, options.think)
    if options.reward_db:
        open_database(options.reward_db).close()
    questions = read_splits(options.data_dir, console, options.teacher_labels)
    train = questions.get("train", [])
    if options.teacher_labels and not train:
        raise InputError(f"--teacher_labels is about train questions, but {options.data_dir} has no train split")
    if builder.takes_examples and not train:
        raise InputError(f"{options.prompt} takes its examples from train, but {options.data_dir} has no train split")

    gold = {question.gold for split in questions.values() for question in split}
    answers, failures, seconds = execute_gold(gold, options.db, options.timeout_s)
    if options.reward_db:
        same_answers, _, seconds = execute_gold(gold, options.reward_db, options.timeout_s)
        check_same_answers(answers, same_answers, options)
    teacher_answers, teacher_failures = execute_teacher(train, options)
    taught = draw_taught(train, answers, teacher_answers, options)
    rewarded = draw_rewarded(train, answers, taught, options)
    examples = draw_examples([q for q in train if q.id in taught], builder.think, options.seed)

    rows: dict[str, list[dict[str, Any]]] = {}
    counts = {}
    for split, split_questions in questions.items():
        prompts = [make_prompt(builder, question, examples) for question in split_questions]
        seen = seen_in_train(split_questions, train)
        counts[split] = split_counts(split_questions, seen, answers, prompts, counter, options.max_prompt_length)
        for question, prompt, status in zip(split_questions, prompts, seen, strict=True):
            answer = answers.get(question.gold)
            if split != "train" or question.id in rewarded:
                gold_shown = split != "train" or question.id in taught
                db = options.reward_db or options.db
                timeout_s = training_timeout(seconds.get(question.gold, 0))
                row = rl_row(question, split, prompt, answer, status, db, gold_shown, timeout_s)
                rows.setdefault(split, []).append(row)
            imitated = question.id in taught if split == "train" else split == "valid" and answer != GOLD_FAILED
            if imitated:
                target = {"role": "assistant", "content": sft_answer(question, builder.think)}
                rows.setdefault(f"sft_{split}", []).append({"messages": [*prompt, target]})

    inputs = [options.db, *filter(None, [options.reward_db, options.teacher_labels]), *prompt_files]
    inputs += [path for split in questions for path in split_files(options.data_dir / split)]
    manifest = {
        "options": {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()},
        "inputs": {str(path): sha256_file(path) for path in inputs},
        "counts": counts,
        "synthetic": is_demo_folder(options.data_dir) and holds_demo_patients(options.db),
        "slowest_gold_seconds": round(max(seconds.values()), 3) if seconds else None,
        "failed_gold": {
            split: {q.id: failures[q.gold] for q in split_questions if q.gold in failures}
            for split, split_questions in questions.items()
        },
    }
    if options.teacher_labels:
        manifest["teacher"] = teacher_counts(train, answers, teacher_answers, teacher_failures)
    write_parquet(options.out_dir, PARQUET_NAMES, rows, manifest)
    print_report(console, manifest, counter.unit)


def read_splits(data_dir: Path, console: Console, teacher_file: Path | None = None) -> dict[str, list[Question]]:
    """The splits that ``data_dir`` holds, train with the teacher's labels; those left out are named on the console."""
    if not data_dir.is_dir():
        raise InputError(f"no folder {data_dir}; give the folder that holds train/, valid/ or test/")
    questions = {}
    for split in SPLITS:
        folder = data_dir / split
        if not folder.is_dir():
            console.print(f"{split}: no folder {folder}, skipped")
        elif split == "test" and (folder / "data.json").exists() and not (folder / "label.json").exists():
            console.print(f"{split}: {folder} has no label.json (hidden labels), skipped")
        else:
            questions[split] = read_split(folder, teacher_file if split == "train" else None)
    if not questions:
        raise InputError(f"{data_dir} holds none of the splits {', '.join(SPLITS)}; is it the right folder?")
    return questions


def execute_gold(
    labels: Iterable[str], db: Path, timeout_s: float = 60.0
) -> tuple[dict[str, str], dict[str, str], dict[str, float]]:
    """Execute each distinct gold query once. ``labels`` may hold ``ABSTAIN``, and "" where there is no gold.

    Returns the ground truth of each label (``ABSTAIN``, ``GOLD_FAILED`` or a canonical answer); for those that
    failed, the error; and for the others the seconds that they took (``gold_seconds``).

    Raises:
        InputError: every query failed.
    """
    queries = set(labels) - {"", ABSTAIN}
    executions = execute_all(db, queries, timeout_s)
    answers, failures = ground_truths(executions)
    if queries and len(failures) == len(queries):
        raise InputError(f"every gold query fails on {db} ({failures[min(queries)]}); is it the right database?")
    return answers, failures, gold_seconds(db, executions, timeout_s)


def execute_teacher(train: list[Question], options: Options) -> tuple[dict[str, str], dict[str, str]]:
    """The ground truth of each of the teacher's labels and, for those that failed, the error.

    Raises:
        InputError: there is a teacher, and none of its queries executes.
    """
    queries = {question.teacher for question in train} - {"", ABSTAIN}
    answers, failures = ground_truths(execute_all(options.db, queries, options.timeout_s))
    if options.teacher_labels and len(failures) == len(queries):
        reason = (
            f" ({failures[min(queries)]}); is it the right database?" if queries else ': all of its labels are "null"'
        )
        raise InputError(f"no query of {options.teacher_labels} executes on {options.db}{reason}")
    return answers, failures


def ground_truths(executions: dict[str, Execution]) -> tuple[dict[str, str], dict[str, str]]:
    """The ground truth of each query and of ``ABSTAIN`` and, for those that failed, the error."""
    answers, failures = {ABSTAIN: ABSTAIN}, {}
    for sql, result in executions.items():
        answers[sql] = result.answer if result.status == "ok" else GOLD_FAILED
        if result.status != "ok":
            failures[sql] = f"{result.status}: {result.error}"
    return answers, failures


def check_same_answers(answers: dict[str, str], others: dict[str, str], options: Options) -> None:
    """Raise an ``InputError`` if a gold query has another answer on ``reward_db`` (``others``) than on ``db``."""
    if differing := sorted(sql for sql, answer in answers.items() if others[sql] != answer):
        raise InputError(
            f"{len(differing)} of {len(answers)} gold queries have another answer on {options.reward_db} than on "
            f"{options.db}, such as {differing[0]}; build it again from that database, or leave --reward_db out"
        )


def draw_taught(
    train: list[Question], answers: dict[str, str], teacher_answers: dict[str, str], options: Options
) -> set[str]:
    """The ids of the train questions that SFT is taught.

    With a teacher, those that it labels (with ``executing_only``, whose label executes). Without, a share of those
    whose gold executes, drawn evenly over templates (annotated, or else the SQL skeleton).
    """
    if options.teacher_labels:
        labelled = [q for q in train if q.teacher]
        return {q.id for q in labelled if not options.executing_only or teacher_answers[q.teacher] != GOLD_FAILED}
    usable = {q.id: q.template or sql_skeleton(q.gold) for q in train if answers[q.gold] != GOLD_FAILED}
    if options.gold_sql_share == 1 or not train:
        return set(usable)
    taught = draw_share(usable, options.gold_sql_share, options.seed)
    if not 0 < len(taught) < len(usable):
        raise InputError(
            f"--gold_sql_share {options.gold_sql_share:g} of {len(usable)} train questions puts all of them "
            "on one side; choose another share, or 1 for gold SQL everywhere"
        )
    return taught


def draw_rewarded(train: list[Question], answers: dict[str, str], taught: set[str], options: Options) -> set[str]:
    """The ids of the train questions that GRPO is rewarded on: those with an answer that no teacher labels.

    Without a teacher and with all gold given, that includes the ``taught``.
    """
    usable = {q.id for q in train if not q.teacher and answers[q.gold] != GOLD_FAILED}
    if options.teacher_labels and not usable:
        raise InputError(
            f"every gold query of the train questions that {options.teacher_labels} leaves out fails on {options.db}, "
            "which leaves none for GRPO; remove some questions from that file, or correct the gold"
        )
    return usable if options.gold_sql_share == 1 else usable - taught


def sft_answer(question: Question, think: bool) -> str:
    """What SFT teaches the model to say to ``question``; raises an ``InputError`` as ``reasoned`` does."""
    return reasoned(question) if think else question.target


def draw_examples(taught: list[Question], think: bool, seed: int) -> list[dict[str, str]]:
    """Few-shot examples, one more than a prompt shows: one abstention, the rest of different templates."""
    shuffled = random.Random(seed).sample(taught, len(taught))
    abstentions = [question for question in shuffled if question.target == ABSTAIN]
    queries = [question for question in reversed(shuffled) if question.target != ABSTAIN]
    one_each = {question.template or sql_skeleton(question.target): question for question in queries}
    chosen = abstentions[:1] + list(one_each.values())[: FEW_SHOT_EXAMPLES + 1 - len(abstentions[:1])]
    return [{"question": q.text, "answer": sft_answer(q, think)} for q in chosen]


def make_prompt(builder: PromptBuilder, question: Question, examples: list[dict[str, str]]) -> list[dict[str, str]]:
    """The chat messages that ask ``question``. ``examples`` are those of ``draw_examples``.

    An example is not shown to its own question: the prompt would hold the answer.
    """
    others = [example for example in examples if example["question"] != question.text]
    return builder.messages(question.text, others[:FEW_SHOT_EXAMPLES])


def rl_row(
    question: Question,
    split: str,
    prompt: list[dict[str, str]],
    answer: str,
    seen: str,
    db: Path,
    gold_shown: bool,
    timeout_s: float,
) -> dict[str, Any]:
    """One row as verl's RLHF dataset reads it; ``ground_truth`` is what ``reward_fns`` compares with.

    ``timeout_s``: the deadline of a query that answers it.
    """
    return {
        "data_source": "ehrsql",
        "prompt": prompt,
        "ability": "text2sql",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {
            "id": question.id,
            "split": split,
            "index": question.index,
            "question": question.text,
            "template": question.template,
            "seen_template": seen,
            "answerable": question.answerable,
            "db_path": str(db.resolve()),
            "gold_sql": question.gold if gold_shown else "",
            "timeout_s": timeout_s,
        },
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.ehrsql",
        description="EHRSQL-2024 JSON into parquet files for verl.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    option = parser.add_argument
    option("--data_dir", type=Path, required=True, help="folder with {train,valid,test}/{data,label}.json")
    option("--db", type=Path, required=True, help="SQLite database that the questions are about")
    option("--out_dir", type=Path, required=True, help="folder for the parquet files and manifest.json")
    option(
        "--reward_db",
        type=Path,
        help="database that rewards are computed on, if not --db: build_ehr_db's with indexes. "
        "Every gold query must have the same answer on both",
    )
    option(
        "--prompt",
        default="compact_schema",
        help=f"prompt template: {', '.join(prompt_names())}, or the path of a .jinja file",
    )
    option("--tokenizer", help="Hugging Face tokenizer with a chat template, to count prompt tokens")
    option("--max_prompt_length", type=int, help="limit in tokens; prompts over it are counted, not dropped")
    option(
        "--gold_sql_share",
        type=float,
        default=1.0,
        help="share of the train questions that comes with gold SQL (sft_train.parquet); below 1 the others, "
        "with answers only, make train.parquet; at 1 both files hold all questions",
    )
    option(
        "--teacher_labels",
        type=Path,
        help="a file like label.json with a teacher's unverified labels for some of the train questions: they make "
        "sft_train.parquet; the others, with answers only, make train.parquet",
    )
    option(
        "--executing_only",
        action="store_true",
        help="leave out the questions whose label in --teacher_labels does not execute",
    )
    option(
        "--think",
        action="store_true",
        help="prompts ask for reasoning in <think>, and SFT is taught reasoning, made from the query, before it; "
        "--prompt reasoning does the same by itself",
    )
    option("--seed", type=int, default=0, help="of the share's draw and the few-shot examples")
    option("--timeout_s", type=float, default=60.0, help="deadline of a gold query in seconds")
    args = parser.parse_args(argv)
    if is_template_path(args.prompt):
        args.prompt = str(Path(args.prompt).resolve())  # the manifest says what an evaluation will look for
    prepare(Options(**vars(args)), Console(markup=False, soft_wrap=True))


if __name__ == "__main__":
    run_main(main)
