"""What is wrong with a wrong answer, by the clauses in which its query differs from the gold query.

The kinds say where two queries differ, not which difference makes the answer wrong. Two queries may differ and have the
same answer, so only wrong answers are sorted.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from rapidfuzz import fuzz

from recipes.evaluation.answer_kinds import AnswerKinds
from recipes.tasks.ehrsql.sql_clauses import Clauses, Condition, read_clauses
from reward_fns.ehrsql import Grade
from reward_fns.sql.sandbox import Execution

TABLE, JOIN, COLUMN, CONDITION = "table", "join", "column", "condition"
NEAR_VALUE, OTHER_VALUE = "value: near miss", "value: another"
TIME, AGGREGATION, ORDER, DISTINCT = "time condition", "aggregation", "order and limit", "distinct"
OTHER, UNREADABLE = "other", "cannot be parsed"
ABSTAINED, ANSWERED, NO_QUERY = "abstained wrongly", "answered the unanswerable", "no query"
FAILED = "does not execute: "
# What SQLite's message begins with or holds -> what it is called here. Others are "another error".
_MESSAGES = {
    "no such table": "no such table",
    "no such column": "no such column",
    "no such function": "no such function",
    "ambiguous column": "ambiguous column",
    "misuse of": "misuse of a function",
    "wrong number of arguments": "misuse of a function",
    "syntax error": "syntax error",
    "unrecognized token": "syntax error",
    "incomplete input": "syntax error",
}
_STATUSES = {"refused": "refused", "timeout": "timeout", "too_large": "too large", "crashed": "crashed"}
_FAILURES = tuple(FAILED + name for name in dict.fromkeys((*_MESSAGES.values(), "another error", *_STATUSES.values())))
# All kinds, in the order of tables and charts.
KINDS = (
    *(ABSTAINED, ANSWERED, NO_QUERY, *_FAILURES, TABLE, JOIN, COLUMN, CONDITION, NEAR_VALUE, OTHER_VALUE),
    *(TIME, AGGREGATION, ORDER, DISTINCT, OTHER, UNREADABLE),
)
NEAR = 85  # from this similarity of 100 on a value is a near miss: a digit of eight, two letters of a long label


def error_kinds(gold_sql: str, grade: Grade) -> tuple[str, ...]:
    """The kinds of a wrong answer, in the order of ``KINDS``; none if it is right or ``gold_sql`` is not known.

    >>> from reward_fns.ehrsql import grade
    >>> answer = grade("SELECT min(subject_id) FROM patients", '[["2.0"]]', db_path)
    >>> error_kinds("SELECT max(subject_id) FROM patients", answer)
    ('aggregation',)
    """
    if grade.acc or (grade.answerable and not gold_sql):
        return ()
    if grade.abstained:
        return (ABSTAINED,)
    if grade.execution is None:
        return (NO_QUERY,)
    kinds = set() if grade.executed else {_failure(grade.execution)}
    if not grade.answerable:
        kinds.add(ANSWERED)
    else:
        differing = clause_kinds(gold_sql, grade.extraction.sql)
        kinds |= differing if not kinds else differing - {OTHER, UNREADABLE}
    return tuple(kind for kind in KINDS if kind in kinds)


def clause_kinds(gold_sql: str, predicted_sql: str) -> set[str]:
    """The clauses in which two queries differ. Never empty, and never raises.

    Two queries that say the same, but say something more or less often, differ in the clauses that say it.

    >>> clause_kinds("SELECT drug FROM prescriptions WHERE route = 'iv'", "SELECT drug FROM prescriptions")
    {'condition'}
    """
    gold, predicted = _gold_clauses(gold_sql), read_clauses(predicted_sql)
    if gold is None or predicted is None:
        return {UNREADABLE}
    return _differences(gold, predicted, once=True) or _differences(gold, predicted, once=False) or {OTHER}


_gold_clauses = lru_cache(maxsize=4096)(read_clauses)


def _differences(gold: Clauses, predicted: Clauses, once: bool) -> set[str]:
    """The kinds of difference. ``once``: what a query says several times counts as said once."""

    def said(counter: Counter) -> Counter:
        return Counter({*counter}) if once else counter

    kinds = {
        kind
        for kind, name in {
            TABLE: "tables",
            JOIN: "joins",
            COLUMN: "columns",
            TIME: "times",
            AGGREGATION: "aggregations",
            ORDER: "orders",
            DISTINCT: "distincts",
        }.items()
        if said(getattr(gold, name)) != said(getattr(predicted, name))
    }
    return kinds | _condition_kinds(said(gold.conditions), said(predicted.conditions))


def _condition_kinds(gold: Counter[Condition], predicted: Counter[Condition]) -> set[str]:
    """Of the conditions of two queries.

    A condition of the prediction alone, and a gold condition that differs from it in one part, are a pair: the part
    tells the kind. Conditions without such a partner are missing, or too many.
    """
    missing, kinds = gold - predicted, set()
    for condition in (predicted - gold).elements():
        # One of the missing conditions rather than one that the prediction has elsewhere.
        partner = _partner(condition, missing) or _partner(condition, gold)
        if partner is None or partner.shape != condition.shape:
            kinds.add(CONDITION)
        elif partner.columns != condition.columns:
            kinds.add(COLUMN)
        else:
            kinds.add(NEAR_VALUE if _similarity(partner, condition) >= NEAR else OTHER_VALUE)
        if partner in missing:
            missing -= Counter([partner])
    return kinds | ({CONDITION} if missing else set())


def _partner(condition: Condition, others: Iterable[Condition]) -> Condition | None:
    """The one that differs from ``condition`` in one part only: in its values rather than in another part."""
    alike = [other for other in others if sum(a != b for a, b in zip(condition, other, strict=True)) == 1]
    return max(alike, key=lambda other: (other.values != condition.values, _similarity(condition, other)), default=None)


def _similarity(one: Condition, other: Condition) -> float:
    return fuzz.ratio(" ".join(one.values), " ".join(other.values))


def _failure(execution: Execution) -> str:
    name = _STATUSES.get(execution.status)
    if name is None:
        found = (name for text, name in _MESSAGES.items() if text in execution.error)
        name = next(found, "another error")
    return FAILED + name


def gold_is_known(sample: Any) -> bool:
    """Whether errors of a ``Sample`` can be sorted: an unanswerable question has no gold SQL."""
    return bool(sample.gold_sql) or not sample.answerable


def error_kind_counts(samples: Sequence[Any]) -> dict[str, dict[str, int]]:
    """Kind -> ``wrong``, the answers of that kind, and ``questions``, those whose gold SQL is known, of ``samples``.

    An answer may be of several kinds. Kinds that no answer is of are left out.
    """
    known = [sample for sample in samples if gold_is_known(sample)]
    counts = Counter(kind for sample in known for kind in sample.error_kinds)
    return {kind: {"wrong": counts[kind], "questions": len(known)} for kind in KINDS if counts[kind]}


ERROR_KINDS = AnswerKinds(
    name="error_kinds",
    title="Kinds of wrong answers (an answer may be of several)",
    whole="questions",
    share_of="the questions whose gold SQL is known",
    count=error_kind_counts,
)
