"""What an evaluation reports: one ``Sample`` a question, and the figures over all of them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, TypedDict

from recipes.evaluation.bootstrap import percent_interval
from recipes.tasks.ehrsql.error_kinds import error_kind_counts, gold_is_known
from recipes.tasks.ehrsql.further import further_figures
from recipes.tasks.ehrsql.misreadings import misreading_counts
from recipes.tasks.ehrsql.robust import robust_figures
from reward_fns.sql.answers import GOLD_FAILED, SELECT_1
from reward_fns.sql.reliability import Verdict, official_penalties, reliability_score

SHOWN_ROWS = 20


class FurtherAnswer(TypedDict):
    """One of several answers to a question, graded; the names are those of ``Sample``."""

    response: str
    response_tokens: int
    acc: float
    abstained: bool
    pred: str


@dataclass(frozen=True)
class Sample:
    """A question, the model's response and its grade: one record of ``samples`` in ``results.json``.

    ``ground_truth`` is as ``reward_fns.sql.answers`` defines it. ``acc`` is the official scorer's verdict, ``score``
    the reward of training. ``executed``: there was a query and it ran; ``reads_table``: and it read a table.
    ``finish_reason`` is ``length`` where the response was cut off, ``prompt_too_long`` where the prompt got none.
    ``answer``: the first ``SHOWN_ROWS`` rows of the query's canonical answer, as JSON (None without an answer), and
    ``rows`` the number of all rows. ``pred`` is equal for responses with equal answers (``reward_fns.ehrsql.Grade``).
    ``confidence``: see ``recipes.tasks.ehrsql.confidence``. ``further``: more answers to the question. ``withheld``:
    whether selection withholds the answer, None without selection. ``variants``: see ``recipes.tasks.ehrsql.robust``.
    ``misreadings``: those that change the gold query's answer, each with whether it gives the model's answer (see
    ``recipes.tasks.ehrsql.misreadings``); empty where the gold query is not known.
    ``error_kinds``: of a wrong answer, see ``recipes.tasks.ehrsql.error_kinds``.
    """

    id: str
    question: str
    template: str
    seen_template: str
    answerable: bool
    gold_sql: str
    ground_truth: str
    response: str
    response_tokens: int
    finish_reason: str
    sql: str | None
    score: float
    acc: float
    executed: bool
    reads_table: bool
    abstained: bool
    timed_out: bool
    format_ok: bool
    error: str
    misreadings: dict[str, bool] = field(default_factory=dict)
    answer: str | None = None
    rows: int = 0
    pred: str = ""
    confidence: dict[str, float] = field(default_factory=dict)
    further: list[FurtherAnswer] = field(default_factory=list)
    withheld: bool | None = None
    variants: dict[str, bool | None] = field(default_factory=dict)
    error_kinds: list[str] = field(default_factory=list)


# The groups that accuracy is reported on, in the order of the tables. A template is seen if train has it.
GROUPS: dict[str, Callable[[Sample], bool]] = {
    "seen templates": lambda sample: sample.answerable and sample.seen_template == "seen",
    "unseen templates": lambda sample: sample.answerable and sample.seen_template == "unseen",
    "all answerable": lambda sample: sample.answerable,
    "all questions": lambda sample: True,
}


def graded(samples: Sequence[Sample]) -> list[Sample]:
    """The samples that have a right answer: without those whose gold query failed."""
    return [sample for sample in samples if sample.ground_truth != GOLD_FAILED]


def summarize(samples: Sequence[Sample], seed: int = 0) -> dict[str, Any]:
    """The figures of one run; all shares are in percent, and None where there is nothing to take a share of.

    ``execution_accuracy`` has for each of ``GROUPS`` the number of ``questions``, ``percent`` and its bootstrap
    interval ``low``, ``high``. ``reliability``: 100 x RS(c); N is the number of graded questions.
    ``executable_percent``: of the responses that do not abstain, those whose query runs; a response without a query
    does not run. ``abstention``: precision is the share of the abstentions that are on unanswerable questions, recall
    the share of the unanswerable questions that are abstained on. ``select_1_percent`` is what the constant query
    SELECT 1 would score on the answerable; ``right_constants`` counts right answers of queries that read no table.
    ``misreadings``: see ``misreading_counts``. ``error_kinds``: see ``error_kind_counts``; ``wrong_without_gold_sql``
    counts the wrong answers that are in none of them, as the gold SQL is not known.
    ``further``, where there are further answers: see ``further_figures``. ``robust``, where there are variants: see
    ``robust_figures``.
    Questions whose gold query failed are counted in ``gold_failed`` and nowhere else.

    Raises:
        ValueError: there is no graded sample.
    """
    everything, samples = samples, graded(samples)
    if not samples:
        raise ValueError("no sample has a gold answer")
    answerable = [sample for sample in samples if sample.answerable]
    unanswerable = [sample for sample in samples if not sample.answerable]
    abstained = [sample for sample in samples if sample.abstained]
    return {
        "questions": len(samples),
        "answerable": len(answerable),
        "unanswerable": len(unanswerable),
        "gold_failed": len(everything) - len(samples),
        "execution_accuracy": {
            name: percent_interval([100 * sample.acc for sample in samples if belongs(sample)], seed)
            for name, belongs in GROUPS.items()
        },
        "select_1_percent": percent([100 * (sample.ground_truth == SELECT_1) for sample in answerable]),
        "right_constants": sum(sample.acc > 0 and sample.executed and not sample.reads_table for sample in samples),
        "reliability": {
            name: 100 * reliability_score(samples, penalty)
            for name, penalty in official_penalties(len(samples)).items()
        },
        "executable_percent": percent([100 * sample.executed for sample in samples if not sample.abstained]),
        "abstention": {
            "percent": percent([100 * sample.abstained for sample in samples]),
            "precision_percent": percent([100 * (not sample.answerable) for sample in abstained]),
            "recall_percent": percent([100 * sample.abstained for sample in unanswerable]),
        },
        "timed_out": sum(sample.timed_out for sample in samples),
        "format_ok_percent": percent([100 * sample.format_ok for sample in samples]),
        "response_tokens_mean": fmean(sample.response_tokens for sample in samples),
        "cut_off_percent": percent([100 * (sample.finish_reason == "length") for sample in samples]),
        "misreadings": misreading_counts(samples),
        "error_kinds": error_kind_counts(samples),
        "wrong_without_gold_sql": sum(not sample.acc and not gold_is_known(sample) for sample in samples),
        **further_figures(samples),
        **robust_figures(samples, GROUPS, seed),
    }


def shown(sample: Sample) -> Verdict:
    """What ``sample`` counts as where withheld answers are abstentions."""
    return Verdict(float(not sample.answerable), True) if sample.withheld else Verdict(sample.acc, sample.abstained)


def first_rows(answer: str | None) -> str | None:
    """The first ``SHOWN_ROWS`` rows of a canonical answer."""
    return answer if answer is None else json.dumps(json.loads(answer)[:SHOWN_ROWS])


def percent(values: Sequence[float]) -> float | None:
    """The mean of values that are already times 100, None without any."""
    return fmean(values) if values else None
