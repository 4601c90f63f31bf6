"""What several answers to each EHRSQL question come to: figures and their table."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from rich.table import Table

from recipes.evaluation.multiple_answers import majority, pass_at_k, pass_hat_k
from reward_fns.sql.reliability import Verdict, official_penalties, reliability_score

FAILED = "error"  # ``Grade.pred`` of a text whose query gives no result


def further_figures(samples: Sequence[Any]) -> dict[str, dict[str, Any]]:
    """Under ``further`` the figures of the further answers of ``samples`` (``Sample``s); nothing where they have none.

    ``answers`` is K, their number for each question; a prompt that got no answer has K wrong ones. ``pass_at_k`` and
    ``pass_hat_k``, in percent by k: 1, 2, 4 and so on up to K. ``majority``: what most of the K answers say, with its
    ``accuracy`` in percent and its ``reliability`` (100 x RS(c)); answers are alike if the database's answers are
    (``Grade.pred``), abstentions are alike, and a query that fails wins only where all do. ``tokens``: of all ``first``
    answers together, and of all ``further`` ones.
    """
    number = max((len(sample.further) for sample in samples), default=0)
    if not number:
        return {}
    right = [sum(answer["acc"] > 0 for answer in sample.further) for sample in samples]
    ks = [2**power for power in range(number.bit_length())]
    verdicts = [_majority(sample.further) for sample in samples]
    figures = {
        "answers": number,
        "pass_at_k": {str(k): 100 * fmean(pass_at_k(number, count, k) for count in right) for k in ks},
        "pass_hat_k": {str(k): 100 * fmean(pass_hat_k(number, count, k) for count in right) for k in ks},
        "majority": {
            "accuracy": 100 * fmean(verdict.acc for verdict in verdicts),
            "reliability": {
                name: 100 * reliability_score(verdicts, penalty)
                for name, penalty in official_penalties(len(samples)).items()
            },
        },
        "tokens": {
            "first": sum(sample.response_tokens for sample in samples),
            "further": sum(answer["response_tokens"] for sample in samples for answer in sample.further),
        },
    }
    return {"further": figures}


def _majority(answers: Sequence[dict[str, Any]]) -> Verdict:
    if not answers:
        return Verdict(0.0, False)
    winner = answers[majority([answer["pred"] for answer in answers], FAILED)]
    return Verdict(winner["acc"], winner["abstained"])


def further_table(further: dict[str, Any]) -> Table:
    """``further`` is that of the summary."""
    number, tokens = further["answers"], further["tokens"]
    table = Table(
        title=f"{number} further answers to each question, all questions, %",
        caption=f"{tokens['further']:,} tokens; the first answers have {tokens['first']:,}",
    )
    for column in ("", *(f"k = {k}" for k in further["pass_at_k"])):
        table.add_column(column, justify="right" if table.columns else "left")
    table.add_row("pass@k: one of k is right", *(f"{value:.1f}" for value in further["pass_at_k"].values()))
    table.add_row("pass^k: all k are right", *(f"{value:.1f}" for value in further["pass_hat_k"].values()))
    table.add_section()
    table.add_row(f"majority of {number}: accuracy", f"{further['majority']['accuracy']:.1f}")
    for name, value in further["majority"]["reliability"].items():
        table.add_row(f"majority of {number}: {name}", f"{value:.1f}")
    return table
