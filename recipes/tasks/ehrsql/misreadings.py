"""Which wrong answers a misreading of the question gives: what a teacher who errs has taught, and GRPO unlearns."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any

from data_prep.sql.misreadings import MISREADINGS
from recipes.evaluation.answer_kinds import AnswerKinds
from reward_fns.sql.sandbox import DEFAULT_TIMEOUT_S, shared_sandbox

SEVERAL = "several at once"
NAMES = (*(misreading.name for misreading in MISREADINGS), SEVERAL)


def misread_answers(
    gold_sql: str, ground_truth: str, db_path: str, timeout_s: float = DEFAULT_TIMEOUT_S
) -> dict[str, set[str]]:
    """Name of a misreading -> the wrong answers that the gold query gives with it; only those that give one.

    Under ``SEVERAL`` are the answers of two or more misreadings together that none of them gives alone. Answers are
    canonical, as ``reward_fns.sql.answers`` defines them, and so is ``ground_truth``.

    Raises ``DatabaseError`` or ``SandboxError`` when a query cannot be executed.
    """
    applying = [misreading for misreading in MISREADINGS if misreading.apply(gold_sql) != gold_sql]
    answers: dict[str, set[str]] = {}
    for number in range(1, len(applying) + 1):
        for chosen in combinations(applying, number):
            sql = gold_sql
            for misreading in chosen:
                sql = misreading.apply(sql)
            answer = shared_sandbox().execute(db_path, sql, timeout_s=timeout_s).answer
            if answer not in (None, ground_truth):
                answers.setdefault(chosen[0].name if number == 1 else SEVERAL, set()).add(answer)
    if several := answers.pop(SEVERAL, set()).difference(*answers.values()):
        answers[SEVERAL] = several
    return answers


def given_by_misreadings(
    answer: str | None, gold_sql: str, ground_truth: str, db_path: str, timeout_s: float = DEFAULT_TIMEOUT_S
) -> dict[str, bool]:
    """For each misreading that changes the gold query's answer: does it give ``answer``?

    ``answer`` is the model's, None where it has none. Raises as ``misread_answers``.
    """
    misread = misread_answers(gold_sql, ground_truth, db_path, timeout_s)
    return {name: answer in answers for name, answers in misread.items()}


def misreading_counts(samples: Sequence[Any]) -> dict[str, dict[str, int]]:
    """Name of a misreading -> ``changes``, the number of questions whose answer it changes, and ``wrong``, the number
    of answers that equal what it gives; only those that change one. ``samples`` are ``Sample``s. Two misreadings may
    give the same answer.
    """
    changes = Counter(name for sample in samples for name in sample.misreadings)
    wrong = Counter(name for sample in samples for name, given in sample.misreadings.items() if given)
    return {name: {"changes": changes[name], "wrong": wrong[name]} for name in NAMES if changes[name]}


MISREADING_KINDS = AnswerKinds(
    name="misreadings",
    title="Wrong answers that a misreading of the question gives",
    whole="changes",
    share_of="the questions whose answer the misreading changes",
    count=misreading_counts,
)
