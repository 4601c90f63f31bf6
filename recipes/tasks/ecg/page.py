"""What a page shows of an ECG question: context, reference, and each answer with its facts."""

from collections.abc import Sequence
from typing import Any

from data_prep.common.errors import InputError
from recipes.report.page_text import page_text
from recipes.tasks.ecg.fact_states import fact_states
from recipes.tasks.ecg.figures import Sample, contradicts
from reward_fns.ecg_grader.reference import Reference, load_reference


def page_item(samples: Sequence[Sample]) -> dict[str, Any]:
    """A question with the samples of all runs.

    Raises:
        InputError: the reference is not what the grader reads.
    """
    first = samples[0]
    try:
        reference = load_reference(first.ground_truth)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"question {first.id}: not this version's ground truth ({error}); evaluate again") from error
    texts = [page_text("context", first.context)] if first.context else []
    return {
        "id": first.id,
        "category": first.category,
        "template": "",
        "question": first.question,
        "texts": [*texts, page_text("reference", first.reference)],
        "answers": [_answer(sample, reference) for sample in samples],
    }


def _answer(sample: Sample, reference: Reference) -> dict[str, Any]:
    verdict = "bad" if contradicts(sample) or not sample.correctness else "partly"
    verdict = "good" if sample.correctness == 1 else verdict
    facts = fact_states(sample.answer, reference)
    return {
        "score": 100 * sample.correctness,
        "verdict": verdict,
        "outcome": {"good": "right", "partly": "partly right", "bad": "wrong"}[verdict],
        "kinds": [],
        "note": f"correctness {100 * sample.correctness:.0f} %, coverage {100 * sample.coverage:.0f} %, "
        f"ROUGE-L {sample.rouge_l:.0f}, {sample.response_tokens} tokens",
        "texts": [page_text("response", sample.response)],
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
