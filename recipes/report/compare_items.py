"""The questions of compared runs as the page shows them: plain dictionaries, the same shape for every recipe."""

from typing import Any

from data_prep.common.errors import InputError
from recipes.evaluation.results import Run


def page_items(runs: dict[str, Run]) -> list[dict[str, Any]]:
    """One dictionary a question, for runs on the same questions.

    ``id``, ``category``, ``question``; ``texts``: what belongs to the question, each with ``label``, ``text`` and
    ``code`` (whether it is code); ``answers``, one a run; ``winner``, the position of the run that scores highest, -1
    where several do; ``change``: the last run's score less the first's. An answer has ``score`` (0 to 100), ``verdict``
    (``good``, ``bad`` or ``partly``), ``note``, ``texts`` as above, ``facts`` (pairs of text and state, see
    ``recipes.tasks.ecg.fact_states``) and ``problems``.

    Raises:
        InputError: a reference of an ECG run is not what the grader reads.
    """
    first, *_ = runs.values()
    build = _ecg_item if first.recipe == "ecg" else _ehrsql_item
    items = [build(samples) for samples in zip(*(run.samples for run in runs.values()), strict=True)]
    for item in items:
        scores = [answer["score"] for answer in item["answers"]]
        best = [position for position, score in enumerate(scores) if score == max(scores)]
        item["winner"] = best[0] if len(best) == 1 else -1
        item["change"] = scores[-1] - scores[0]
    return items


def _text(label: str, text: str, code: bool = False) -> dict[str, Any]:
    return {"label": label, "text": text, "code": code}


def _ecg_item(samples: tuple) -> dict[str, Any]:
    from reward_fns.ecg_grader.reference import load_reference

    first = samples[0]
    try:
        reference = load_reference(first.ground_truth)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"question {first.id}: not this version's ground truth ({error}); evaluate again") from error
    texts = [_text("context", first.context)] if first.context else []
    return {
        "id": first.id,
        "category": first.category,
        "question": first.question,
        "texts": [*texts, _text("reference", first.reference)],
        "answers": [_ecg_answer(sample, reference) for sample in samples],
    }


def _ecg_answer(sample: Any, reference: Any) -> dict[str, Any]:
    from recipes.tasks.ecg.fact_states import fact_states
    from recipes.tasks.ecg.figures import contradicts

    verdict = "bad" if contradicts(sample) or not sample.correctness else "partly"
    facts = fact_states(sample.answer, reference)
    return {
        "score": 100 * sample.correctness,
        "verdict": "good" if sample.correctness == 1 else verdict,
        "note": f"correctness {100 * sample.correctness:.0f} %, coverage {100 * sample.coverage:.0f} %, "
        f"ROUGE-L {sample.rouge_l:.0f}, {sample.response_tokens} tokens",
        "texts": [_text("response", sample.response)],
        "facts": [
            (fact.text + (" (word)" if fact.word else "") + (" (given)" if fact.given else ""), fact.state)
            for fact in facts
        ],
        "problems": [
            *(f"contradicts: {reason}" for reason in sample.reasons),
            *(["cut off at the length limit"] if sample.finish_reason == "length" else []),
            *(["the grader failed"] if sample.grader_failed else []),
        ],
    }


def _ehrsql_item(samples: tuple) -> dict[str, Any]:
    first = samples[0]
    return {
        "id": first.id,
        "category": f"template {first.seen_template}" if first.answerable else "unanswerable",
        "question": first.question,
        "texts": [_text("gold SQL", first.gold_sql, code=True)],
        "answers": [_ehrsql_answer(sample) for sample in samples],
    }


def _ehrsql_answer(sample: Any) -> dict[str, Any]:
    from recipes.tasks.ehrsql.evaluation import outcome

    query = [] if sample.sql is None or sample.sql == sample.response else [_text("SQL", sample.sql, code=True)]
    return {
        "score": 100 * sample.acc,
        "verdict": {"right": "good", "abstained": "partly", "wrong": "bad"}[outcome(sample)],
        "note": f"{outcome(sample)}, {sample.response_tokens} tokens",
        "texts": [*query, _text("response", sample.response, code=sample.sql == sample.response)],
        "facts": [],
        "problems": [
            *([f"error: {sample.error}"] if sample.error else []),
            *(["cut off at the length limit"] if sample.finish_reason == "length" else []),
        ],
    }
