"""What is particular to evaluating the ECG recipe: its rows, its grader, its figures and their tables.

A new figure goes into ``SCORES`` or ``LENGTHS`` of ``recipes.tasks.ecg.figures``. Runs are compared by some of these,
``FIGURES`` below.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from data_prep.common.errors import InputError
from data_prep.common.parallel import parallel_map
from recipes.evaluation.figure import Figure
from recipes.evaluation.generation import Response
from recipes.evaluation.predictions import tokens_counted
from recipes.evaluation.rows import Row, missing_fields, read_parquet
from recipes.tasks.ecg.figures import ALL, LENGTHS, SCORES, Sample, contradicts, graded, summarize
from recipes.tasks.ecg.text_scores import bert_scores, bleu, bleu_statistics, meteor, rouge_l, words
from reward_fns.ecg import compute_score, extract_answer
from reward_fns.ecg_grader.grade import grade
from reward_fns.ecg_grader.reference import load_reference

__all__ = ["Sample", "graded", "summarize"]

TITLE = "ECG question answering"
# Greedy validation, as verl names it for each category (a pattern), and what its mean over the categories is.
VALIDATION = "val-core/ecg/*/acc/mean@1"
VALIDATION_LABEL = "correctness of validation answers, mean over categories (%)"

PROGRAM = "python -m data_prep.ecg_expert_qa"
PREFIX = "ecg/"  # of a row's data_source; its category follows
QUESTION_FIELDS = {"id": str, "question": str}

# What runs are compared by.
COMPARED = ("correctness", "coverage", "contradiction rate", "ROUGE-L")
FIGURES = {
    **{name: Figure(lambda sample: True, SCORES[name]) for name in COMPARED},
    "response tokens": Figure(tokens_counted, LENGTHS["response tokens"]),
}
ANSWER_KINDS = ()  # the grader's contradictions say what is wrong with an answer
# Of the table by category, beside correctness: heading -> figure.
CATEGORY_COLUMNS = {"coverage": "coverage", "contradicted": "contradiction rate", "ROUGE-L": "ROUGE-L"}


def identity(sample: Sample) -> tuple:
    """What two runs on the same questions agree on."""
    return sample.id, sample.category, sample.ground_truth


def load_rows(args: argparse.Namespace) -> list[Row]:
    """The rows of ``--dataset_path``, as ``data_prep.ecg.rows.grpo_row`` makes them.

    Raises:
        InputError: the file is missing, of another kind or shape, or empty.
    """
    path = args.dataset_path
    if not path.is_file():
        raise InputError(f"no such dataset: {path}; make one with {PROGRAM}")
    if path.suffix != ".parquet":
        raise InputError(f"cannot evaluate on {path}; give a .parquet file of {PROGRAM}, such as grpo_test.parquet")
    return read_parquet(path, PROGRAM, _problem)


def _problem(row: Row) -> str | None:
    source = row["data_source"]
    if not isinstance(source, str) or not source.removeprefix(PREFIX) or not source.startswith(PREFIX):
        return f"data_source is {source!r}, not '{PREFIX}<category>' (--recipe ehrsql evaluates 'ehrsql')"
    try:
        load_reference(row["reward_model"]["ground_truth"])
    except (ValueError, KeyError, TypeError) as error:
        return f"the ground_truth holds no reference of the grader ({error})"
    return missing_fields(row, QUESTION_FIELDS)


def grade_responses(rows: Sequence[Row], responses: Sequence[Response]) -> list[Sample]:
    """Grade each response to its row."""
    samples = parallel_map(_grade, "Grading", Console(stderr=True), rows, responses)
    scores = bert_scores([sample.answer for sample in samples], [sample.reference for sample in samples])
    if scores is None:
        return samples
    return [replace(sample, bert_score=score) for sample, score in zip(samples, scores, strict=True)]


def _grade(row: Row, response: Response) -> Sample:
    info, ground_truth = row["extra_info"], row["reward_model"]["ground_truth"]
    answer, _ = extract_answer(response.text)
    reference = load_reference(ground_truth)
    scores = compute_score(row["data_source"], response.text, ground_truth, info)
    # The reward says that an answer contradicts, not why; where the grader fails there is nothing to say.
    reasons = () if scores["grader_failed"] else grade(answer, reference).reasons
    return Sample(
        id=info["id"],
        category=row["data_source"].removeprefix(PREFIX),
        question=info["question"],
        context=_context(row["prompt"], info["question"]),
        reference=reference.text,
        ground_truth=ground_truth,
        response=response.text,
        response_tokens=response.tokens,
        finish_reason=response.finish_reason,
        answer=answer,
        words=len(words(answer)),
        format_ok=bool(scores["format_ok"]),
        correctness=scores["correctness"],
        coverage=scores["coverage"],
        contradiction=scores["contradiction"],
        reasons=list(reasons),
        grader_failed=bool(scores["grader_failed"]),
        copied=scores["copied"],
        rouge_l=rouge_l(answer, reference.text),
        bleu=bleu(bleu_statistics(answer, reference.text), sentence=True),
        meteor=meteor(answer, reference.text),
        bert_score=None,
    )


def _context(prompt: Sequence[dict[str, str]], question: str) -> str:
    """The messages of a prompt without the system prompt and, at the end, the question."""
    texts = [message["content"] for message in prompt if message["role"] != "system"]
    texts[-1:] = [texts[-1].removesuffix(question).strip()] if texts else []
    return "\n\n".join(filter(None, texts))


def canaries(rows: Sequence[Row]) -> dict[str, float]:
    """name -> mean correctness over ``rows``, in [0, 1], of policies that a policy under training may collapse to."""
    references = Counter(load_reference(row["reward_model"]["ground_truth"]).text for row in rows)
    frequent = references.most_common(1)[0][0]
    policies: dict[str, Callable[[str], str]] = {
        "Yes": lambda question: "Yes",
        "No": lambda question: "No",
        "empty": lambda question: "",
        "the question copied": lambda question: question,
        "the most frequent reference": lambda question: frequent,
    }
    return {name: fmean(_correctness(row, respond) for row in rows) for name, respond in policies.items()}


def _correctness(row: Row, respond: Callable[[str], str]) -> float:
    info = row["extra_info"]
    response = respond(info["question"])
    return compute_score(row["data_source"], response, row["reward_model"]["ground_truth"], info)["correctness"]


def log_lines(sample: Sample) -> Iterator[str]:
    """A sample as ``evaluation.log`` shows it."""
    verdict = "CONTRADICTS" if contradicts(sample) else ""
    yield f"{100 * sample.correctness:3.0f} %  {verdict:11}  {sample.category}  {sample.id}  {sample.question}"
    yield f"  response:  {sample.response}"
    yield f"  reference: {sample.reference}"
    for reason in sample.reasons:
        yield f"  contradicts: {reason}"


def summary_table(summary: dict[str, Any], title: str) -> Group:
    """The figures of ``summarize``, for all questions and by category, and those of ``canaries``: a table each."""
    groups = summary["groups"]
    table = Table(title=title, caption=f"METEOR: {summary['meteor']}. BERTScore: {summary['bert_score']}.")
    for column in (f"{ALL} ({summary['questions']:,})", "value", "95 % interval"):
        table.add_column(column, justify="right" if table.columns else "left")
    for name, figure in groups[ALL]["figures"].items():
        table.add_row(name, f"{figure['value']:.1f}", f"{figure['low']:.1f} to {figure['high']:.1f}")
    if summary["grader_failed"]:
        table.add_row("grader failed (answers)", str(summary["grader_failed"]), "")
    by_category = Table(title="By category")
    for column in ("category", "n", "correctness [95 %]", *CATEGORY_COLUMNS):
        by_category.add_column(column, justify="right" if by_category.columns else "left", no_wrap=True)
    for name, group in groups.items():
        if name != ALL:
            figures = group["figures"]
            correctness = figures["correctness"]
            value = f"{correctness['value']:.1f} [{correctness['low']:.1f}, {correctness['high']:.1f}]"
            others = (f"{figures[figure]['value']:.1f}" for figure in CATEGORY_COLUMNS.values())
            by_category.add_row(name, f"{group['questions']:,}", Text(value), *others)
    floors = Table(title="Degenerate policies on these questions: what the model's figures must beat")
    for column in ("", "correctness"):
        floors.add_column(column, justify="right" if column else "left")
    for name, correctness in summary["canaries"].items():
        floors.add_row(name, f"{100 * correctness:.1f}")
    return Group(table, by_category, floors)
