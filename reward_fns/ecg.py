"""The ECG reward: ``compute_score`` is what verl calls, ``reward_fns.ecg_grader.grade`` the grader under it.

=======================================  ===========================================================================
the model's text                         score
=======================================  ===========================================================================
says the reference's facts               1.0, in ten words or in a hundred
says some of them                        in between
contradicts a key fact, says this "or"   at most 0.01, however fluent
that
says it both ways, copies the reference  little
with other words in places
names the right one among alternatives   less, the more alternatives
restates the question, boilerplate, a    next to nothing
long list of terms
empty, or reasoning without an answer    0.0
the grader failed                        0.0, and ``grader_failed`` = 1.0
=======================================  ===========================================================================

Where the text holds ``<answer>...</answer>`` or ends a ``<think>`` block, only the answer is graded.
"""

import functools
import logging

from reward_fns.ecg_grader.grade import EcgGrade, grade
from reward_fns.ecg_grader.reference import load_reference
from reward_fns.ecg_grader.text import copied_share

logger = logging.getLogger(__name__)


def extract_answer(solution_str: str) -> tuple[str, bool]:
    """The answer in a model's raw text, and whether the text is in an accepted form.

    That of the last ``<answer>``, else what follows ``</think>``, else the whole text. Reasoning that does not
    end, and an ``<answer>`` that does not, hold no answer.
    """
    lower = solution_str.lower()
    if (start := lower.rfind("<answer>")) >= 0:
        end = lower.find("</answer>", start)
        return (solution_str[start + len("<answer>") : end].strip(), True) if end >= 0 else ("", False)
    end = lower.rfind("</think>")
    after = solution_str[end + len("</think>") :] if end >= 0 else solution_str
    answer = "" if "<think>" in after.lower() else after.strip()
    return answer, bool(answer)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    *,
    format_bonus: float = 0.0,
    reward_router_address: str | None = None,
    reward_model_tokenizer: object = None,
) -> dict[str, float]:
    """Score one sample for verl, with the same keys every time; see the module docstring for the values.

    ``ground_truth`` is what ``reward_fns.ecg_grader.reference.make_reference`` wrote. ``format_bonus`` is added to the
    score of an answer that earns anything and is in an accepted form. ``length_tokens`` counts the answer's words,
    ``copied`` is the share of its content words that stand in the question, ``judge_used`` is 0: it is
    ``reward_fns.ecg_judge`` that has one. The other arguments, which verl may pass, are unused. A text never raises.

    >>> from reward_fns.ecg_grader.reference import make_reference
    >>> ground_truth = make_reference("Which lead shows the septum?", "Lead V1 shows the septum.")
    >>> compute_score("ecg/demo", "<answer>It is lead V1.</answer>", ground_truth)["score"]
    1.0
    """
    try:
        answer, format_ok = extract_answer(solution_str)
        reference = load_reference(ground_truth)
        result = grade(answer, reference)
        copied, failed = copied_share(answer, reference.question), 0.0
    except Exception as error:  # an exception here would end the training run
        _log_once(str(error))
        answer, format_ok, result, copied, failed = "", False, EcgGrade(0.0, 0.0, 0.0), 0.0, 1.0
    bonus = format_bonus if format_ok and result.correctness > 0 else 0.0
    return {
        "score": result.correctness + bonus,
        "acc": result.correctness,
        "correctness": result.correctness,
        "coverage": result.coverage,
        "contradiction": result.contradiction,
        "format_ok": float(format_ok),
        "length_tokens": float(len(answer.split())),
        "copied": copied,
        "judge_used": 0.0,
        "grader_failed": failed,
    }


@functools.lru_cache(maxsize=1024)
def _log_once(error: str) -> None:
    logger.exception("the ECG grader failed; this is logged once")
