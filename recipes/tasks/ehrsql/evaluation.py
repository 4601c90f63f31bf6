"""What is particular to evaluating EHRSQL: its rows, its grader, its figures and their table."""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from rich.console import Console, Group
from rich.progress import track
from rich.table import Table

from data_prep.common.errors import InputError
from recipes.evaluation.answer_kinds import AnswerKinds
from recipes.evaluation.figure import Figure
from recipes.evaluation.generation import Response
from recipes.evaluation.predictions import tokens_counted
from recipes.evaluation.rows import Row
from recipes.tasks.ehrsql.canaries import canaries
from recipes.tasks.ehrsql.confidence import agreement, confidence
from recipes.tasks.ehrsql.defaults import DEFAULT_PROMPT, database_of, prompt_of, warn_of_bare_questions
from recipes.tasks.ehrsql.error_kinds import ERROR_KINDS, error_kinds
from recipes.tasks.ehrsql.figures import GROUPS, FurtherAnswer, Sample, first_rows, graded, shown, summarize
from recipes.tasks.ehrsql.further import further_table
from recipes.tasks.ehrsql.misreadings import MISREADING_KINDS, given_by_misreadings
from recipes.tasks.ehrsql.prediction_file import write_predictions
from recipes.tasks.ehrsql.robust import add_variants, judge_on_variants, right_by_luck, robust_table, robustly_right
from recipes.tasks.ehrsql.rows import read_rows
from recipes.tasks.ehrsql.selection_table import selection_table
from reward_fns.ehrsql import compute_score, grade, query_timeout
from reward_fns.sql.answers import GOLD_FAILED
from reward_fns.sql.reliability import reliability_score
from reward_fns.sql.sandbox import DatabaseError, SandboxError

__all__ = ["Sample", "canaries", "graded", "summarize", "write_predictions"]

TITLE = "EHRSQL"
# Greedy validation, as verl names it (a pattern), and what it is.
VALIDATION = "val-core/ehrsql/acc/mean@1"
VALIDATION_LABEL = "accuracy on all validation questions (%)"


def _has_selection(sample: Sample) -> bool:
    return sample.withheld is not None


def _has_variants(sample: Sample) -> bool:
    return sample.answerable and bool(sample.variants)


# What runs are compared by.
FIGURES = {
    **{name: Figure(GROUPS[name], lambda sample: 100 * sample.acc) for name in GROUPS if name != "all questions"},
    "all answerable, robust": Figure(_has_variants, lambda sample: 100 * robustly_right(sample), ("variants",)),
    "RS(0)": Figure(GROUPS["all questions"], lambda sample: 100 * reliability_score([sample], 0)),
    "RS(10)": Figure(GROUPS["all questions"], lambda sample: 100 * reliability_score([sample], 10)),
    "RS(10), selected": Figure(
        _has_selection, lambda sample: 100 * reliability_score([shown(sample)], 10), ("select", "select_penalty")
    ),
    "response tokens": Figure(tokens_counted, lambda sample: sample.response_tokens),
}
ANSWER_KINDS = (MISREADING_KINDS, ERROR_KINDS)


def identity(sample: Sample) -> tuple:
    """What two runs on the same questions agree on."""
    return sample.id, sample.ground_truth, sample.seen_template


def load_rows(args: argparse.Namespace) -> list[Row]:
    """The rows of ``--dataset_path``; see ``rows`` and, for ``--variants``, ``robust`` beside this module.

    For a ``data.json``, fills in ``--db_path``, ``--prompt`` and ``think``, so that the results name them.
    """
    think = False
    if args.dataset_path.suffix == ".json" and args.dataset_path.is_file():
        args.db_path = args.db_path or database_of(args.dataset_path)
        args.prompt, think = prompt_of(args.model_name, args.prompt)
        args.think = think
    elif args.prompt:
        raise InputError(f"--prompt has no effect on {args.dataset_path}, which holds its prompts; leave it out")
    rows = read_rows(args.dataset_path, args.db_path, args.prompt or DEFAULT_PROMPT, think)
    if not args.predictions:
        warn_of_bare_questions(rows, args.model_name)
    if args.variants:
        add_variants(rows, args.variants, args.dataset_path)
    return rows


def grade_responses(rows: Sequence[Row], responses: Sequence[Response]) -> list[Sample]:
    """Grade each response to its row, several at a time.

    Raises:
        InputError: a database became unreadable, no SQL process can be started, or no row has a right answer.
    """
    with ThreadPoolExecutor() as pool:
        try:
            samples = pool.map(_grade, rows, responses)
            samples = list(track(samples, "Grading", len(rows), console=Console(stderr=True)))
            verdicts = judge_on_variants(rows, responses, pool)
        except (DatabaseError, SandboxError) as error:
            pool.shutdown(cancel_futures=True)
            raise InputError(f"cannot grade: {error}") from error
    samples = [replace(sample, variants=verdict) for sample, verdict in zip(samples, verdicts, strict=True)]
    if not graded(samples):
        raise InputError("every gold query of the dataset failed; prepare it again on the right database")
    return samples


def _grade(row: Row, response: Response) -> Sample:
    info, ground_truth = row["extra_info"], row["reward_model"]["ground_truth"]
    timeout_s = query_timeout(info)
    result = grade(response.text, ground_truth, info["db_path"], timeout_s)
    # Both execute the query, the second time from the sandbox's cache.
    score = compute_score(row["data_source"], response.text, ground_truth, info)["score"]
    further = [_further(row, answer) for answer in response.further]
    no_query = "" if result.abstained else "no query in the response"
    misreadings = {}
    if info["answerable"] and info["gold_sql"] and ground_truth != GOLD_FAILED:
        answer = result.execution.answer if result.execution else None
        misreadings = given_by_misreadings(answer, info["gold_sql"], ground_truth, info["db_path"], timeout_s)
    return Sample(
        id=info["id"],
        question=info["question"],
        template=info["template"],
        seen_template=info["seen_template"],
        answerable=info["answerable"],
        gold_sql=info["gold_sql"],
        ground_truth=ground_truth,
        response=response.text,
        response_tokens=response.tokens,
        finish_reason=response.finish_reason,
        sql=result.extraction.sql,
        score=score,
        acc=result.acc,
        executed=result.executed,
        reads_table=result.executed and result.execution.reads_table,
        abstained=result.abstained,
        timed_out=result.timed_out,
        format_ok=result.extraction.format_ok,
        error=result.execution.error if result.execution else no_query,
        misreadings=misreadings,
        answer=first_rows(result.execution.answer) if result.execution else None,
        rows=result.execution.rows if result.execution else 0,
        pred=result.pred,
        confidence=confidence(response.confidence, result.abstained, result.execution)
        | agreement(result.pred, [answer["pred"] for answer in further]),
        further=further,
        error_kinds=[] if ground_truth == GOLD_FAILED else [*error_kinds(info["gold_sql"], result)],
    )


def _further(row: Row, response: Response) -> FurtherAnswer:
    info = row["extra_info"]
    result = grade(response.text, row["reward_model"]["ground_truth"], info["db_path"], query_timeout(info))
    return {
        "response": response.text,
        "response_tokens": response.tokens,
        "acc": result.acc,
        "abstained": result.abstained,
        "pred": result.pred,
    }


def outcome(sample: Sample) -> str:
    """``right``, ``abstained`` (wrongly) or ``wrong``."""
    if sample.acc:
        return "right"
    return "abstained" if sample.abstained else "wrong"


def log_lines(sample: Sample) -> Iterator[str]:
    """A sample as ``evaluation.log`` shows it."""
    yield f"{outcome(sample).upper():9}  {sample.id}  {sample.question}"
    yield f"  response: {sample.response}"
    yield f"  gold:     {sample.gold_sql}"
    if sample.error:
        yield f"  error:    {sample.error}"
    if sample.withheld:
        yield "  withheld: not certain enough"
    if given := [name for name, given in sample.misreadings.items() if given]:
        yield f"  misread:  {', '.join(given)}"
    if sample.error_kinds:
        yield f"  wrong in: {', '.join(sample.error_kinds)}"
    if right_by_luck(sample):
        yield f"  by luck:  wrong on {', '.join(name for name, right in sample.variants.items() if right is False)}"


def summary_table(summary: dict[str, Any], title: str) -> Group:
    """The figures of ``summarize``, under ``canaries`` those of ``canaries``, and under ``selection`` those of
    ``recipes.tasks.ehrsql.selection.select``: a table each.
    """
    table = Table(title=title)
    table.add_column("")
    for column in ("value", "95 % interval", "questions"):
        table.add_column(column, justify="right")
    for name, group in summary["execution_accuracy"].items():
        interval = f"{group['low']:.1f} to {group['high']:.1f}" if group["questions"] else ""
        table.add_row(f"accuracy, {name}", _percent(group["percent"]), interval, f"{group['questions']:,}")
    answerable, questions = f"{summary['answerable']:,}", f"{summary['questions']:,}"
    table.add_row("SELECT 1, all answerable", _percent(summary["select_1_percent"]), "", answerable)
    table.add_row("right by a constant", str(summary["right_constants"]), "", questions, end_section=True)
    for name, value in summary["reliability"].items():
        table.add_row(name, f"{value:.1f}", "", questions)
    abstention = summary["abstention"]
    table.add_section()
    table.add_row("executable, of those not abstained", _percent(summary["executable_percent"]), "", "")
    table.add_row("abstained", _percent(abstention["percent"]), "", questions)
    table.add_row("abstention precision", _percent(abstention["precision_percent"]), "", "")
    table.add_row("abstention recall", _percent(abstention["recall_percent"]), "", f"{summary['unanswerable']:,}")
    table.add_row("timed out", str(summary["timed_out"]), "", questions)
    table.add_row("accepted format", _percent(summary["format_ok_percent"]), "", questions)
    table.add_row("response tokens, mean", f"{summary['response_tokens_mean']:.1f}", "", questions)
    table.add_row("cut off at the length limit", _percent(summary["cut_off_percent"]), "", questions)
    if summary["gold_failed"]:
        table.add_row("gold failed, not counted above", "", "", str(summary["gold_failed"]))
    tables = [table]
    if "robust" in summary:
        tables.append(robust_table(summary))
    tables += [_kinds_table(kinds, summary[kinds.name]) for kinds in ANSWER_KINDS if summary[kinds.name]]
    if summary["wrong_without_gold_sql"]:
        tables.append(f"{summary['wrong_without_gold_sql']:,} wrong answers have no kind: their gold SQL is not known")
    tables.append(_canary_table(summary["canaries"]))
    if "further" in summary:
        tables.append(further_table(summary["further"]))
    if "selection" in summary:
        tables.append(selection_table(summary["selection"]))
    return Group(*tables)


def _kinds_table(kinds: AnswerKinds, counts: dict[str, dict[str, int]]) -> Table:
    table = Table(title=kinds.title)
    for column in ("", "wrong answers", f"of {kinds.share_of}"):
        table.add_column(column, justify="right" if column else "left")
    for name, count in counts.items():
        share = f"{100 * count['wrong'] / count[kinds.whole]:.1f} % of {count[kinds.whole]:,}"
        table.add_row(name, f"{count['wrong']:,}", share)
    return table


def _canary_table(earned: dict[str, dict[str, float]]) -> Table:
    table = Table(title="Degenerate policies on these questions: what the model's figures must beat")
    for column in ("", "accuracy, all questions", "reward"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in earned.items():
        table.add_row(name, f"{100 * values['acc']:.1f} %", f"{values['score']:.3f}")
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} %"
