"""Counts over the prepared ECG questions, and the tables that show them."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.common.prompt_tokens import TokenCounter, WordCounter
from data_prep.ecg.rows import Question

SPLITS = ("train", "valid", "test")
_YES_OR_NO = re.compile(r"(yes|no)\b")
_CJK = re.compile("[\u3400-\u9fff\uf900-\ufaff]")  # the ideographs of Chinese, Japanese and Korean


def category_counts(
    questions: Sequence[Question],
    dropped: Mapping[str, Counter[str]],
    duplicates: Counter[str],
    counter: WordCounter | TokenCounter,
    max_prompt_length: int | None,
) -> dict[str, dict[str, Any]]:
    """What each category holds, in the order of ``dropped`` (reasons by category).

    All are counts of questions, and ``read`` is the sum of what was dropped and of duplicates, train, valid and test.
    ``yes`` and ``no`` are the shares of answers that begin so; lengths are in the unit of ``counter``.
    """
    by_category = defaultdict(list)
    for question in questions:
        by_category[question.record.schema.id].append(question)
    counts = {}
    for category, reasons in dropped.items():
        members = by_category[category]
        splits = Counter(question.split for question in members)
        counts[category] = {
            "read": len(members) + duplicates[category] + reasons.total(),
            "dropped": dict(reasons),
            "duplicates": duplicates[category],
            **{split: splits[split] for split in SPLITS},
        }
        if members:
            counts[category] |= _text_counts(members, counter, max_prompt_length)
    return counts


def _text_counts(
    members: list[Question], counter: WordCounter | TokenCounter, max_prompt_length: int | None
) -> dict[str, Any]:
    begins = Counter(m[1] for q in members if (m := _YES_OR_NO.match(q.turn.answer.lower())))
    question_lengths = counter.texts([q.turn.question for q in members])
    answer_lengths = counter.texts([q.turn.answer for q in members])
    prompt_lengths = counter.prompts([q.prompt for q in members])
    return {
        "yes": begins["yes"] / len(members),
        "no": begins["no"] / len(members),
        "question_mean": sum(question_lengths) / len(members),
        "question_max": max(question_lengths),
        "answer_mean": sum(answer_lengths) / len(members),
        "answer_max": max(answer_lengths),
        "prompt_max": max(prompt_lengths),
        "prompts_over_limit": sum(n > max_prompt_length for n in prompt_lengths) if max_prompt_length else None,
        "cjk": sum(_has_cjk(q) for q in members),
    }


def _has_cjk(question: Question) -> bool:
    context = (value for _, value in question.record.context)
    return any(_CJK.search(text) for text in (question.turn.question, question.turn.answer, *context))


def print_report(console: Console, manifest: dict[str, Any], unit: str) -> None:
    """Print the counts of ``manifest``, why questions were dropped, the groups, and the files that were written."""
    counts = {
        category: {**values, "dropped": sum(values["dropped"].values())}
        for category, values in manifest["counts"].items()
    }
    sums = ("read", "dropped", "duplicates", *SPLITS)
    counts_and_total = counts | {"all": {key: sum(values[key] for values in counts.values()) for key in sums}}
    _print_table(console, "ECG questions", counts_and_total, {key: (key, "{:,}") for key in sums})
    columns = {
        "yes": ("yes", "{:.0%}"),
        "no": ("no", "{:.0%}"),
        "question_mean": ("question", "{:.1f}"),
        "question_max": ("max", "{:,}"),
        "answer_mean": ("answer", "{:.1f}"),
        "answer_max": ("max", "{:,}"),
        "prompt_max": ("prompt", "{:,}"),
        "prompts_over_limit": (f"over {manifest['options']['max_prompt_length']}", "{:,}"),
        "cjk": ("CJK", "{:,}"),
    }
    _print_table(
        console, f"Answers that begin with yes or no; lengths in {unit}: mean and max, of prompts max", counts, columns
    )
    for category, values in manifest["counts"].items():
        for reason, number in values["dropped"].items():
            console.print(f"{category}: {number:,} dropped, {reason}")
    groups = manifest["groups"]
    console.print(
        f"{groups['number']:,} groups that the split keeps whole, the largest of {groups['largest']:,} questions"
    )
    if teacher := manifest.get("teacher"):
        console.print(
            f"teacher: {teacher['answers']:,} answers for SFT, mean correctness {teacher['correctness']:.1%}; "
            f"{teacher['correct']:,} are correct, {teacher['contradicting']:,} contradict a key fact"
        )
    for name, output in manifest["outputs"].items():
        console.print(f"{name}: {output['rows']:,} rows")
    console.print(f"Wrote {manifest['options']['out_dir']}/manifest.json")


def _print_table(
    console: Console, title: str, rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]
) -> None:
    """A table of ``columns``, key to (header, format); those without any value are left out."""
    table = Table(title=title)
    table.add_column("")
    shown = {key: spec for key, spec in columns.items() if any(row.get(key) is not None for row in rows.values())}
    for header, _ in shown.values():
        table.add_column(header, justify="right")
    for name, row in rows.items():
        cells = ((row.get(key), pattern) for key, (_, pattern) in shown.items())
        table.add_row(name, *("" if value is None else pattern.format(value) for value, pattern in cells))
    console.print(table)
