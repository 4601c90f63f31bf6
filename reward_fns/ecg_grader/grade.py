"""Grades an ECG answer by the facts that it shares with the reference answer, and by those that it contradicts.

1. Coverage: the weighted share of the reference's facts that the question does not hold already. ``FULL_COVERAGE`` of
   it is enough, so that a right answer in ten words scores like one in a hundred.
2. Contradiction: a fact denied, the opposite direction, another lead, rhythm, drug or number in place of the
   reference's or next to it with an "or", yes for no or with an "only" behind it. It lowers the score; from
   ``KEY_CONTRADICTION`` on it caps it at ``CONTRADICTED``. Other words in a sentence that is copied from the reference
   lower it too.
3. Similarity in meaning joins for what the ontology does not know: that of what answer and reference add to the
   question, so that the question restated gains nothing. It is bounded, it is never enough alone, and an answer about
   something else is cut by it.

The thresholds are in ``parameters.py``.
"""

from dataclasses import dataclass

import numpy as np

from reward_fns.ecg_grader.contradictions import contradictions
from reward_fns.ecg_grader.entities import entity_f1, split_entities
from reward_fns.ecg_grader.match import FactMatch
from reward_fns.ecg_grader.parameters import (
    ADDED,
    ADDED_SIZE,
    ALONE,
    CONTRADICTED,
    FINDINGS_COVERAGE,
    FULL_COVERAGE,
    KEY_CONTRADICTION,
    KNOWN_ENOUGH,
    LEAST_REASON_WORDS,
    MEANING_SHARE,
    MEANS,
    ON_TOPIC,
    RIGHT_VERDICT,
    RIGHT_VERDICT_AND_MEANING,
    SHORT_WORDS,
    STRAY,
    STRAYED,
    TELEGRAM_FUNCTION_WORDS,
    TELEGRAM_WORDS,
)
from reward_fns.ecg_grader.reading import Reading, read
from reward_fns.ecg_grader.reference import Reference
from reward_fns.ecg_grader.similarity import embed
from reward_fns.ecg_grader.substitution import substitution
from reward_fns.ecg_grader.text import SENTENCE_END, unlisted


@dataclass(frozen=True)
class EcgGrade:
    """All in [0, 1]. ``contradiction`` is that of the worst contradiction; ``reasons`` name all of them."""

    correctness: float
    coverage: float
    contradiction: float
    reasons: tuple[str, ...] = ()


def grade(answer: str, reference: Reference) -> EcgGrade:
    """Grade ``answer``, the model's text without any reasoning, against ``reference``.

    An empty answer scores 0, and so does one that only asks: the question copied, with or without a verdict.

    >>> from reward_fns.ecg_grader.reference import load_reference, make_reference
    >>> reference = load_reference(make_reference("Which lead shows the septum?", "Lead V1 shows the septum."))
    >>> grade("The septum is seen in V1.", reference).correctness
    1.0
    >>> grade("The septum is seen in aVF.", reference).reasons
    ('leads aVF for V1',)
    """
    if reference.kind == "entities":
        f1 = entity_f1(split_entities(answer), reference.entities)
        return EcgGrade(f1, f1, 0.0)
    if _repeats(answer):
        return EcgGrade(0.0, 0.0, 0.0)
    answer = _statements(unlisted(answer), reference.question)
    if not answer:
        return EcgGrade(0.0, 0.0, 0.0)
    reading = read(answer)
    match = FactMatch(reading, reference)
    coverage = match.coverage()
    found = [*contradictions(match)]
    wrong = any(each.severity >= KEY_CONTRADICTION for each in found)
    if not wrong and (replaced := substitution(answer, reference.text, reference.question)):
        found.append(replaced)
    worst = max((each.severity for each in found), default=0.0)
    reasons = tuple(each.reason for each in found)
    if worst >= KEY_CONTRADICTION:
        return EcgGrade(min(coverage, CONTRADICTED), coverage, worst, reasons)
    if _is_telegram(reading) and not (_is_telegram(read(reference.text)) and _about_as_long(answer, reference.text)):
        return EcgGrade(0.0, coverage, worst, reasons)
    full = FINDINGS_COVERAGE if reference.kind == "findings" else FULL_COVERAGE
    value = _with_meaning(min(1.0, coverage / full) ** STRAY, match.known_coverage(), reading, reference)
    return EcgGrade(value * (1 - worst) ** 2, coverage, worst, reasons)


def _statements(answer: str, question: str) -> str:
    """``answer`` with each sentence once, without those that ask and without the question: they add nothing."""
    sentences = (
        sentence.strip() for sentence in SENTENCE_END.split(answer.replace(question, " ") if question else answer)
    )
    return " ".join(dict.fromkeys(sentence for sentence in sentences if not sentence.endswith("?"))).strip()


def _repeats(answer: str) -> bool:
    """Whether a text says the same words over and over."""
    words = answer.lower().split()
    runs = [tuple(words[start : start + 3]) for start in range(len(words) - 2)]
    return len(words) >= TELEGRAM_WORDS and len(set(runs)) < len(runs) / 2


def _is_telegram(reading: Reading) -> bool:
    return reading.word_count >= TELEGRAM_WORDS and reading.function_words < TELEGRAM_FUNCTION_WORDS


def _about_as_long(answer: str, reference: str) -> bool:
    return len(answer.split()) <= 2 * len(reference.split())


def _with_meaning(value: float, known: float, reading: Reading, reference: Reference) -> float:
    """``value`` of the facts, raised for an answer that adds to the question what the reference does, cut if off topic.

    A short answer such as "0.12-0.20 s" has little meaning by itself: what it holds of the ontology's facts, ``known``,
    tells the topic as well. Where they say all, nothing is embedded, which takes most of the time.
    """
    known = min(1.0, known / (FULL_COVERAGE if reading.word_count <= SHORT_WORDS else KNOWN_ENOUGH))
    if value >= 1 and known >= 1:
        return 1.0
    vector = embed(reading.text.raw)
    meaning = float(vector @ reference.text_embedding)
    if value < 1:
        low, high = ADDED
        added = _clip((_added_meaning(vector, reference) - low) / (high - low))
        if meaning >= MEANS:
            value += MEANING_SHARE * added * min(1.0, ALONE + value)
        if reference.polarity and reading.stance == reference.polarity and reading.word_count >= LEAST_REASON_WORDS:
            value = max(value, RIGHT_VERDICT + (RIGHT_VERDICT_AND_MEANING - RIGHT_VERDICT) * added)
    off, on = ON_TOPIC
    topic = max(STRAYED, _clip((meaning - off) / (on - off)))
    return min(1.0, value) * (max(known, topic) if reading.word_count <= SHORT_WORDS else topic)


def _added_meaning(vector: np.ndarray, reference: Reference) -> float:
    """The cosine of what the answer and the reference add to the question: what is orthogonal to its embedding.

    The question restated adds next to nothing, however near it is to the reference.
    """
    question = reference.question_embedding
    added = vector - (vector @ question) * question
    wanted = reference.text_embedding - (reference.text_embedding @ question) * question
    size = float(np.linalg.norm(added))
    cosine = float(added @ wanted) / (size * float(np.linalg.norm(wanted)) + 1e-6)
    return cosine * min(1.0, size / ADDED_SIZE)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))
