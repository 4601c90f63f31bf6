"""What an ECG evaluation reports: one ``Sample`` a question, and the figures over all of them and by category."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from recipes.evaluation.bootstrap import bootstrap_interval
from recipes.tasks.ecg.text_scores import BERT_MODEL, METEOR_STAGES, corpus_bleu
from reward_fns.ecg_grader.parameters import KEY_CONTRADICTION

ALL = "all questions"
NOT_MEASURED = f"not measured: it needs the package bert-score and {BERT_MODEL} in the Hugging Face cache"


@dataclass(frozen=True)
class Sample:
    """A question, the model's response and its grade: one record of ``samples`` in ``results.json``.

    ``ground_truth`` is as ``reward_fns.ecg_grader.reference`` writes it, ``reference`` its text. ``context`` is what
    the prompt shows besides the system prompt and the question, "" if nothing. ``answer`` is the part of the response
    that is graded, ``words`` the number of its words. ``correctness``, ``coverage`` and ``contradiction`` are the
    grader's, in [0, 1], ``reasons`` its contradictions. ``copied`` is the reward's.
    ``rouge_l``, ``bleu`` (sentence), ``meteor`` and ``bert_score`` (None if not measured) are in [0, 100].
    ``finish_reason`` is ``length`` where the response was cut off, ``prompt_too_long`` where the prompt got none.
    """

    id: str
    category: str
    question: str
    context: str
    reference: str
    ground_truth: str
    response: str
    response_tokens: int
    finish_reason: str
    answer: str
    words: int
    format_ok: bool
    correctness: float
    coverage: float
    contradiction: float
    reasons: list[str]
    grader_failed: bool
    copied: float
    rouge_l: float
    bleu: float
    meteor: float
    bert_score: float | None


def contradicts(sample: Sample) -> bool:
    """Whether the answer contradicts a key fact."""
    return sample.contradiction >= KEY_CONTRADICTION


Value = Callable[[Sample], float]
# A figure is the mean of its values, empty answers included: shares in percent, scores in [0, 100], or a number.
SCORES: dict[str, Value] = {
    "correctness": lambda sample: 100 * sample.correctness,
    "coverage": lambda sample: 100 * sample.coverage,
    "contradiction rate": lambda sample: 100 * contradicts(sample),
    "ROUGE-L": lambda sample: sample.rouge_l,
    "BLEU, sentence": lambda sample: sample.bleu,
    "METEOR": lambda sample: sample.meteor,
}
LENGTHS: dict[str, Value] = {
    "response tokens": lambda sample: sample.response_tokens,
    "answer words": lambda sample: sample.words,
    "empty answers": lambda sample: 100 * (not sample.answer),
    "cut off at the length limit": lambda sample: 100 * (sample.finish_reason == "length"),
    "words copied from the question": lambda sample: 100 * sample.copied,
}


def graded(samples: Sequence[Sample]) -> list[Sample]:
    """All samples: each has a reference."""
    return list(samples)


def summarize(samples: Sequence[Sample], seed: int = 0) -> dict[str, Any]:
    """The figures of one run.

    ``groups`` has, for all questions and for each category, the number of ``questions`` and ``figures``: the names of
    ``SCORES`` and ``LENGTHS``, corpus BLEU, BERTScore (where measured) and the share of identical answers, each with
    ``value`` and its bootstrap interval ``low``, ``high``. An answer is identical if another question got it too;
    empty ones are not. ``meteor`` and ``bert_score`` say how these were measured. ``grader_failed`` counts answers on
    which the grader raised; they score zero.

    Raises:
        ValueError: there are no samples.
    """
    if not samples:
        raise ValueError("no samples")
    times = Counter(sample.answer for sample in samples if sample.answer)
    figures = {**SCORES, **LENGTHS, "identical answers": lambda sample: 100 * (times[sample.answer] > 1)}
    measured = all(sample.bert_score is not None for sample in samples)
    if measured:
        figures["BERTScore"] = lambda sample: sample.bert_score
    members: dict[str, list[Sample]] = {ALL: list(samples)}
    for sample in sorted(samples, key=lambda sample: sample.category):
        members.setdefault(sample.category, []).append(sample)
    return {
        "questions": len(samples),
        "grader_failed": sum(sample.grader_failed for sample in samples),
        "meteor": METEOR_STAGES,
        "bert_score": BERT_MODEL if measured else NOT_MEASURED,
        "groups": {name: _group(group, figures, seed) for name, group in members.items()},
    }


def _group(samples: list[Sample], figures: dict[str, Value], seed: int) -> dict[str, Any]:
    results = {}
    for name, value in figures.items():
        values = [value(sample) for sample in samples]
        results[name] = (fmean(values), *bootstrap_interval(values, seed))
    results["BLEU, corpus"] = corpus_bleu([(sample.answer, sample.reference) for sample in samples], seed)
    return {
        "questions": len(samples),
        "figures": {name: dict(zip(("value", "low", "high"), result, strict=True)) for name, result in results.items()},
    }
