"""Counts over the prepared questions, and the table that shows them."""

from collections import Counter, defaultdict
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.common.prompt_tokens import TokenCounter, WordCounter
from data_prep.sql.source import Question
from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, SELECT_1

FAILURES_SHOWN = 5


def split_counts(
    questions: list[Question],
    seen: list[str],
    answers: dict[str, str],
    prompts: list[list[dict[str, str]]],
    counter: WordCounter | TokenCounter,
    max_prompt_length: int | None,
) -> dict[str, Any]:
    """What one split holds, over all of its questions, before any is held back or masked.

    ``select_1`` is the share of the answerable questions with gold on which the constant query ``SELECT 1`` is right.
    """
    lengths = counter.prompts(prompts)
    answerable = [question for question in questions if question.answerable]
    ground_truths = Counter(answers[question.gold] for question in answerable if question.gold)
    templates = defaultdict(set)
    for question, status in zip(questions, seen, strict=True):
        if question.template:
            templates[status].add(question.template)
    return {
        "questions": len(questions),
        "answerable": len(answerable),
        "unanswerable": len(questions) - len(answerable),
        "failed_gold": ground_truths[GOLD_FAILED],
        **{f"{status}_template": seen.count(status) for status in ("seen", "unseen", "unknown")},
        **{f"templates_{status}": len(templates[status]) for status in ("seen", "unseen")},
        "select_1": ground_truths[SELECT_1] / ground_truths.total() if ground_truths else None,
        "prompt_mean": sum(lengths) / len(lengths),
        "prompt_max": max(lengths),
        "prompts_over_limit": sum(n > max_prompt_length for n in lengths) if max_prompt_length else None,
    }


def teacher_counts(
    train: list[Question], answers: dict[str, str], teacher_answers: dict[str, str], failures: dict[str, str]
) -> dict[str, Any]:
    """What the teacher's labels of train questions hold: ``labels`` of which ``queries`` (the others abstain).

    ``executing``: queries that execute; ``failed``: id -> error of the others. ``answer_known``: labels of questions
    whose gold executes or abstains; ``right``: of these, labels that give the same answer.
    """
    taught = [question for question in train if question.teacher]
    failed = {question.id: failures[question.teacher] for question in taught if question.teacher in failures}
    queries = sum(question.teacher != ABSTAIN for question in taught)
    known = [question for question in taught if answers.get(question.gold, GOLD_FAILED) != GOLD_FAILED]
    return {
        "labels": len(taught),
        "queries": queries,
        "executing": queries - len(failed),
        "answer_known": len(known),
        "right": sum(teacher_answers[question.teacher] == answers[question.gold] for question in known),
        "failed": failed,
    }


def print_report(console: Console, manifest: dict[str, Any], unit: str) -> None:
    """Print the counts of ``manifest``, the gold queries that failed, and the files that were written."""
    limit = manifest["options"]["max_prompt_length"]
    table = Table(title="EHRSQL questions", caption="SELECT 1: its accuracy on the answerable questions")
    table.add_column("")
    for split in manifest["counts"]:
        table.add_column(split, justify="right")
    for key, label, pattern in (
        ("questions", "questions", "{:,}"),
        ("answerable", "answerable", "{:,}"),
        ("unanswerable", "unanswerable", "{:,}"),
        ("failed_gold", "gold failed", "{:,}"),
        ("seen_template", "template seen in train", "{:,}"),
        ("unseen_template", "template not in train", "{:,}"),
        ("unknown_template", "template unknown", "{:,}"),
        ("templates_seen", "annotated templates seen", "{:,}"),
        ("templates_unseen", "annotated templates not seen", "{:,}"),
        ("select_1", "SELECT 1", "{:.1%}"),
        ("prompt_mean", f"prompt {unit}, mean", "{:,.1f}"),
        ("prompt_max", f"prompt {unit}, max", "{:,}"),
        ("prompts_over_limit", f"prompts over {limit} {unit}", "{:,}"),
    ):
        values = [counts[key] for counts in manifest["counts"].values()]
        if any(value is not None for value in values):
            table.add_row(label, *("" if value is None else pattern.format(value) for value in values))
    console.print(table)
    if slowest := manifest["slowest_gold_seconds"]:
        console.print(
            f"the slowest gold query takes {slowest:.3f} s; an answer in training has ten times as long as the gold "
            "query of its question, and at least 1 s"
        )
    for split, failures in manifest["failed_gold"].items():
        if failures:
            fate = "kept, never rewarded"
            if split == "train":
                fate = "left out of GRPO" if "teacher" in manifest else "left out"
            total = manifest["counts"][split]["questions"]
            console.print(f"{split}: gold failed on {len(failures)} of {total} questions, {fate}: {_first(failures)}")
    if teacher := manifest.get("teacher"):
        console.print(
            f"teacher: {teacher['labels']:,} labels, {teacher['executing']:,} of {teacher['queries']:,} queries "
            f"execute, {teacher['right']:,} of {teacher['answer_known']:,} labels with a known answer are right"
        )
        if failed := teacher["failed"]:
            fate = "left out" if manifest["options"]["executing_only"] else "kept for SFT"
            console.print(f"teacher: {len(failed):,} of {teacher['queries']:,} queries fail, {fate}: {_first(failed)}")
    for name, output in manifest["outputs"].items():
        console.print(f"{name}: {output['rows']:,} rows")
    console.print(f"Wrote {manifest['options']['out_dir']}/manifest.json")


def _first(failures: dict[str, str]) -> str:
    """The first of id -> error, as text."""
    return "; ".join(f"{id} ({error})" for id, error in list(failures.items())[:FAILURES_SHOWN])
