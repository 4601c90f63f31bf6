"""What a page shows of an EHRSQL question: the gold SQL, and each answer with its query."""

from collections.abc import Sequence
from typing import Any

from recipes.report.page_text import page_text
from recipes.tasks.ehrsql.evaluation import outcome
from recipes.tasks.ehrsql.figures import Sample


def page_item(samples: Sequence[Sample]) -> dict[str, Any]:
    """A question with the samples of all runs."""
    first = samples[0]
    return {
        "id": first.id,
        "category": f"template {first.seen_template}" if first.answerable else "unanswerable",
        "question": first.question,
        "texts": [page_text("gold SQL", first.gold_sql, code=True)],
        "answers": [_answer(sample) for sample in samples],
    }


def _answer(sample: Sample) -> dict[str, Any]:
    query = [] if sample.sql is None or sample.sql == sample.response else [page_text("SQL", sample.sql, code=True)]
    return {
        "score": 100 * sample.acc,
        "verdict": {"right": "good", "abstained": "partly", "wrong": "bad"}[outcome(sample)],
        "note": f"{outcome(sample)}, {sample.response_tokens} tokens",
        "texts": [*query, page_text("response", sample.response, code=sample.sql == sample.response)],
        "facts": [],
        "problems": [
            *([f"error: {sample.error}"] if sample.error else []),
            *(["cut off at the length limit"] if sample.finish_reason == "length" else []),
        ],
    }
