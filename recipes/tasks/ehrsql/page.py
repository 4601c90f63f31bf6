"""What a page shows of an EHRSQL question: the gold SQL and its answer, and each query with its answer."""

import json
from collections.abc import Sequence
from typing import Any

from recipes.report.page_text import page_text
from recipes.tasks.ehrsql.evaluation import outcome
from recipes.tasks.ehrsql.figures import Sample
from recipes.tasks.ehrsql.robust import right_by_luck
from recipes.tasks.ehrsql.sql_diff import sql_edits
from reward_fns.sql.answers import ABSTAIN, COMPARED_ROWS

SHOWN_ROWS, SHOWN_CHARS = 5, 200  # of an answer, and of one of its rows


def page_item(samples: Sequence[Sample]) -> dict[str, Any]:
    """A question with the samples of all runs."""
    first = samples[0]
    return {
        "id": first.id,
        "category": f"template {first.seen_template}" if first.answerable else "unanswerable",
        "template": first.template,
        "question": first.question,
        "texts": [
            page_text("gold SQL", first.gold_sql, code=True) if first.gold_sql else page_text("gold SQL", "not known"),
            _gold_answer(first.ground_truth),
        ],
        "answers": [_answer(sample) for sample in samples],
    }


def _gold_answer(ground_truth: str) -> dict[str, Any]:
    if ground_truth == ABSTAIN:
        return page_text("gold answer", "none: the database cannot answer the question")
    rows = json.loads(ground_truth)
    return _rows("gold answer", rows, f"{len(rows)} or more" if len(rows) == COMPARED_ROWS else str(len(rows)))


def _rows(label: str, rows: list[list[str]], number: str) -> dict[str, Any]:
    """The first ``rows`` of an answer of ``number`` rows."""
    lines = [" | ".join(cells) for cells in rows[:SHOWN_ROWS]]
    lines = [line if len(line) <= SHOWN_CHARS else f"{line[:SHOWN_CHARS]} ..." for line in lines]
    shown = f"first {len(lines)} of {number} rows" if len(rows) > len(lines) else f"rows: {number}"
    return page_text(f"{label}, {shown}", "\n".join(lines), code=True)


def _grade(sample: Sample) -> str:
    word = outcome(sample)
    return "abstained wrongly" if word == "abstained" else word


def _outcome(sample: Sample) -> str:
    word = "right by luck" if right_by_luck(sample) else _grade(sample)
    return f"{word} but withheld" if sample.withheld else word


def _answer(sample: Sample) -> dict[str, Any]:
    texts = []
    if sample.sql is not None:
        edits = sql_edits(sample.gold_sql, sample.sql) if sample.answerable and sample.gold_sql else ()
        texts.append(page_text("SQL", sample.sql, code=True, edits=edits))
    if sample.answer is not None:
        texts.append(_rows("answer", json.loads(sample.answer), str(sample.rows)))
    if sample.response.strip() != sample.sql:
        texts.append(page_text("response", sample.response, code=True))
    if sample.confidence:
        scores = ", ".join(f"{name} {value:.3g}" for name, value in sample.confidence.items())
        texts.append(page_text("confidence", scores, code=True))
    return {
        "score": 100 * sample.acc,
        "verdict": {"right": "good", "abstained": "partly", "wrong": "bad"}[outcome(sample)],
        "outcome": _outcome(sample),
        "grade": _grade(sample),
        "kinds": sample.error_kinds,
        "note": f"{_outcome(sample)}, {sample.response_tokens} tokens",
        "texts": texts,
        "facts": [],
        "problems": [
            *([f"error: {sample.error}"] if sample.error else []),
            *(["cut off at the length limit"] if sample.finish_reason == "length" else []),
        ],
    }
