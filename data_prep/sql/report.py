"""Counts over the prepared questions, and the table that shows them."""

from collections import Counter, defaultdict
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.common.prompt_tokens import TokenCounter, WordCounter
from data_prep.sql.source import Question
from reward_fns.ehrsql import CORRECT, EXECUTED
from reward_fns.sql.answers import ABSTAIN, EMPTY, GOLD_FAILED, SELECT_1, says_nothing

FAILURES_SHOWN = 5
MAX_EMPTY = 0.02  # the share of empty gold answers above which a database is not the one that the questions are about
ANSWER_CHARS = 40


def split_counts(
    questions: list[Question],
    seen: list[str],
    answers: dict[str, str],
    prompts: list[list[dict[str, str]]],
    counter: WordCounter | TokenCounter,
    max_prompt_length: int | None,
) -> dict[str, Any]:
    """What one split holds, over all of its questions, before any is held back or masked.

    Shares of the answerable questions with gold: ``select_1``, on which the constant query ``SELECT 1`` is right;
    ``empty`` and ``null_only``, whose gold answer has no row, and no cell but NULL; ``most_frequent``, whose gold
    answer is the most frequent one. ``best_constant``: see there.
    """
    lengths = counter.prompts(prompts)
    answerable = [question for question in questions if question.answerable]
    ground_truths = Counter(answers[question.gold] for question in answerable if question.gold)
    share_of = {answer: count / ground_truths.total() for answer, count in ground_truths.items()}
    nothing = sum(share for answer, share in share_of.items() if says_nothing(answer))
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
        "select_1": share_of.get(SELECT_1, 0) if share_of else None,
        "empty": share_of.get(EMPTY, 0) if share_of else None,
        "null_only": nothing - share_of.get(EMPTY, 0) if share_of else None,
        "most_frequent": max((share for answer, share in share_of.items() if answer != GOLD_FAILED), default=None),
        "best_constant": best_constant(Counter(answers[question.gold] for question in questions if question.gold)),
        "prompt_mean": sum(lengths) / len(lengths),
        "prompt_max": max(lengths),
        "prompts_over_limit": sum(n > max_prompt_length for n in lengths) if max_prompt_length else None,
    }


def best_constant(ground_truths: Counter[str]) -> dict[str, Any]:
    """What the best policy earns that says the same whatever the question: ``abstains``, or gives an ``answer``.

    ``accuracy`` and ``reward`` name a policy and what it earns in the mean over all questions whose gold executes, with
    the reward's default weights. A policy gives an answer by a query that reads a table.
    """
    counts = {answer: count for answer, count in ground_truths.items() if answer != GOLD_FAILED}
    total = sum(counts.values())
    accuracy = {answer: count / total for answer, count in counts.items()}
    reward = {
        answer: CORRECT * share if answer == ABSTAIN
        else EXECUTED if says_nothing(answer)
        else EXECUTED + (CORRECT - EXECUTED) * share
        for answer, share in accuracy.items()
    }  # fmt: skip
    earned = {}
    for name, values in (("accuracy", accuracy), ("reward", reward)):
        if values:
            best = max(values, key=values.__getitem__)
            earned[name] = {"policy": _policy(best), "value": values[best]}
    return earned


def _policy(answer: str) -> str:
    if answer == ABSTAIN:
        return "always abstains"
    if says_nothing(answer):
        return "always returns no row" if answer == EMPTY else "always returns NULL"
    return f"always answers {answer if len(answer) <= ANSWER_CHARS else answer[:ANSWER_CHARS] + '...'}"


def teacher_counts(
    train: list[Question], answers: dict[str, str], teacher_answers: dict[str, str], failures: dict[str, str]
) -> dict[str, Any]:
    """What the teacher's labels of train questions hold: ``labels`` of which ``queries`` (the others abstain).

    ``reasoned``: labels with the teacher's own reasoning, which is taught only to a model that thinks.
    ``executing``: queries that execute; ``failed``: id -> error of the others. ``answer_known``: labels of questions
    whose gold executes or abstains; ``right``: of these, labels that give the same answer.
    """
    taught = [question for question in train if question.teacher]
    failed = {question.id: failures[question.teacher] for question in taught if question.teacher in failures}
    queries = sum(question.teacher != ABSTAIN for question in taught)
    known = [question for question in taught if answers.get(question.gold, GOLD_FAILED) != GOLD_FAILED]
    return {
        "labels": len(taught),
        "reasoned": sum(bool(question.reasoning) for question in taught),
        "queries": queries,
        "executing": queries - len(failed),
        "answer_known": len(known),
        "right": sum(teacher_answers[question.teacher] == answers[question.gold] for question in known),
        "failed": failed,
    }


def print_report(console: Console, manifest: dict[str, Any], unit: str) -> None:
    """Print the counts of ``manifest``, the gold queries that failed, and the files that were written."""
    limit = manifest["options"]["max_prompt_length"]
    table = Table(title="EHRSQL questions", caption="Shares: of the answerable questions. SELECT 1: its accuracy")
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
        ("empty", "gold answer empty", "{:.1%}"),
        ("null_only", "gold answer only NULL", "{:.1%}"),
        ("most_frequent", "most frequent gold answer", "{:.1%}"),
        ("select_1", "SELECT 1", "{:.1%}"),
        ("prompt_mean", f"prompt {unit}, mean", "{:,.1f}"),
        ("prompt_max", f"prompt {unit}, max", "{:,}"),
        ("prompts_over_limit", f"prompts over {limit} {unit}", "{:,}"),
    ):
        values = [counts[key] for counts in manifest["counts"].values()]
        if any(value is not None for value in values):
            table.add_row(label, *("" if value is None else pattern.format(value) for value in values))
    console.print(table)
    for split, counts in manifest["counts"].items():
        _print_constants(console, split, counts)
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
        if reasoned := teacher["reasoned"]:
            console.print(f"teacher: {reasoned:,} labels come with reasoning, which only a model that thinks is taught")
        if failed := teacher["failed"]:
            fate = "left out" if manifest["options"]["executing_only"] else "kept for SFT"
            console.print(f"teacher: {len(failed):,} of {teacher['queries']:,} queries fail, {fate}: {_first(failed)}")
    for name, output in manifest["outputs"].items():
        console.print(f"{name}: {output['rows']:,} rows")
    console.print(f"Wrote {manifest['options']['out_dir']}/manifest.json")


def _print_constants(console: Console, split: str, counts: dict[str, Any]) -> None:
    best = counts["best_constant"]
    if best:
        accuracy, reward = best["accuracy"], best["reward"]
        console.print(
            f"{split}: the best constant policy earns accuracy {accuracy['value']:.1%} ({accuracy['policy']}), "
            f"reward {reward['value']:.3f} ({reward['policy']})"
        )
    nothing = (counts["empty"] or 0) + (counts["null_only"] or 0)
    if nothing > MAX_EMPTY:
        console.print(
            f"warning: {split}: {nothing:.1%} of the gold answers are empty or NULL, so a query that returns nothing "
            "is often right; was the database built without --timeshift? Build it with the options of docs/real-data.md"
        )


def _first(failures: dict[str, str]) -> str:
    """The first of id -> error, as text."""
    return "; ".join(f"{id} ({error})" for id, error in list(failures.items())[:FAILURES_SHOWN])
