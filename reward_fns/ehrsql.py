"""The EHRSQL reward: executes a model's SQL and compares its answer with the gold answer stored in the parquet row.

``compute_score`` is what verl calls; ``grade`` is the grader under it, which evaluation uses too. Every outcome and
its value (the names are keyword arguments, settable in verl's ``reward.custom_reward_function.reward_kwargs``);
RS(c) is the score with ``reliability_penalty`` = c:

============  =============================================  ===  =======================================  =====
question      the model's text                               acc  score                                    RS(c)
============  =============================================  ===  =======================================  =====
answerable    a query whose answer equals the gold answer    1    ``correct`` = 1.0                        1
answerable    the same, where the gold answer is empty (+)   1    ``executed``                             0
answerable    a query that executes, another answer          0    ``executed`` = 0.1                       -c
answerable    abstains                                       0    ``abstained`` = 0.0                      0
unanswerable  abstains                                       1    ``correct`` = 1.0                        1
unanswerable  a query that executes                          0    ``answered_unanswerable``, ``executed``  -c
any           a query that reads no table (``SELECT 1``)     (*)  0.0: a constant earns nothing            -c
any           no query, or one that gives no result (#)      0    0.0                                      -c
gold failed   anything                                       0    0.0: such rows belong masked             0
any           the grader failed (database missing)           0    0.0, and ``grader_failed`` = 1.0         0
============  =============================================  ===  =======================================  =====

(#) ``Execution.status`` says why: an error, a timeout, a result over the caps, a refused query, a crash.
(*) ``acc`` is the official scorer's verdict, so a constant that hits the gold answer has ``acc`` 1 and score 0.
(+) Empty: no row, or nothing but NULL. ``SELECT subject_id FROM patients WHERE 0`` and every query whose conditions fit
no row give that answer, and nothing in them tells whether a right query found nothing or a wrong one asked for nothing.
So such an answer counts as any query that executes, and with ``reliability_penalty`` as an abstention. ``acc`` is
official here too. ``official_empty`` = True gives it ``correct``, as the official scorer reads it. ``data_prep.ehrsql``
says how many gold answers are empty; of EHRSQL-2024's on its own database it is 1 of 931.

``format_bonus`` = 0.0 is added to every score of a text in an accepted form, except in the last two rows and for
constants. Keep it well below ``executed``: a bonus as large as the partial credit makes well-formed wrong answers
a stable optimum.

``reliability_penalty`` trains for the shared task's RS(c) (``reward_fns.sql.reliability``), in place of all other
weights. An answer that is right with probability p is then worth p - c (1 - p), an abstention 0: answering pays from
p = c / (c + 1) on, 0.5 for c = 1, 0.83 for c = 5, 0.91 for c = 10. If a policy is less certain than that
on every question, it learns to abstain always. Train for accuracy first, then raise c.

A query has ``timeout_s`` seconds, or without that argument as many as ``extra_info["timeout_s"]`` says:
``data_prep.ehrsql`` measures how long the gold query takes. Rows of older data sets lack that field and have 10 s.

verl calls ``compute_score`` once a sample, in threads beside its event loop. They share a few processes that execute
SQL, and a cache: of the 16 rollouts of a group only distinct queries are executed, and gold never is.
"""

import functools
import hashlib
import logging
import os
from dataclasses import dataclass

from reward_fns.sql.answers import ABSTAIN, GOLD_FAILED, says_nothing
from reward_fns.sql.reliability import reliability
from reward_fns.sql.sandbox import DEFAULT_TIMEOUT_S, DatabaseError, Execution, check_database, shared_sandbox
from reward_fns.sql.text import Extraction, extract_sql

CORRECT, EXECUTED = 1.0, 0.1  # the defaults of ``correct`` and ``executed``

logger = logging.getLogger(__name__)
_FAILED = {
    "score": 0.0,
    "acc": 0.0,
    "executed": 0.0,
    "abstained": 0.0,
    "timed_out": 0.0,
    "format_ok": 0.0,
    "answerable": 0.0,
    "grader_failed": 1.0,
}


@dataclass(frozen=True)
class Grade:
    """A graded text: what was extracted, what came of it (None without a query), and the official verdict.

    ``pred`` is a short hash of the answer, or ``abstain`` or ``error``: equal for texts with equal answers, so that
    verl's maj@N votes by execution.
    """

    extraction: Extraction
    execution: Execution | None
    answerable: bool
    acc: float
    pred: str

    @property
    def abstained(self) -> bool:
        return self.extraction.abstained

    @property
    def executed(self) -> bool:
        return self.execution is not None and self.execution.status == "ok"

    @property
    def timed_out(self) -> bool:
        return self.execution is not None and self.execution.status == "timeout"


def grade(
    solution_str: str,
    ground_truth: str,
    db_path: str | os.PathLike,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    official_clean_up: bool = False,
) -> Grade:
    """Grade a model's raw text against a ground truth as ``reward_fns.sql.answers`` defines it.

    ``official_clean_up`` takes the official scorer's clean-up of a query literally (``reward_fns.sql.text.clean_up``).

    Raises ``DatabaseError`` or ``SandboxError`` when the query cannot be judged; never for what the text says.

    >>> grade("SELECT count(*) FROM admissions", '[["2.0"]]', db_path).execution.error
    'no such table: admissions'
    """
    extraction = extract_sql(solution_str)
    execution = None
    if extraction.sql is None:
        check_database(db_path)  # as an execution does: without a database no verdict is worth anything
    if extraction.abstained:
        answer, pred = ABSTAIN, "abstain"
    else:
        if extraction.sql is not None:
            execution = shared_sandbox().execute(db_path, extraction.sql, official_clean_up, timeout_s)
        answer = execution.answer if execution else None
        pred = "error" if answer is None else hashlib.sha256(answer.encode()).hexdigest()[:16]
    acc = float(answer is not None and answer == ground_truth)
    return Grade(extraction, execution, answerable=ground_truth != ABSTAIN, acc=acc, pred=pred)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict | None = None,
    *,
    correct: float = CORRECT,
    executed: float = EXECUTED,
    abstained: float = 0.0,
    answered_unanswerable: float | None = None,
    format_bonus: float = 0.0,
    reliability_penalty: float | None = None,
    timeout_s: float | None = None,
    official_clean_up: bool = False,
    official_empty: bool = False,
    reward_router_address: str | None = None,
    reward_model_tokenizer: object = None,
) -> dict[str, float | str]:
    """Score one sample for verl, with the same keys every time; see the module docstring for the values.

    ``extra_info["db_path"]`` is the database's absolute path; where no such file is on this node, the environment
    variable ``EHRSQL_DB`` names it. ``data_source`` and the two ``reward_*`` arguments, which verl may pass, are
    unused. A text or a database never raises; a misspelt keyword argument does (``TypeError``).

    >>> gold = '[["2.0"]]'  # of a database with two patients
    >>> compute_score("ehrsql", "SELECT count(*) FROM patients", gold, {"db_path": db_path})["score"]
    1.0
    """
    if timeout_s is None:
        timeout_s = query_timeout(extra_info)
    try:
        result = grade(solution_str, ground_truth, _database_path(extra_info), timeout_s, official_clean_up)
    except Exception as error:  # an exception here would end the training run
        _log_once(f"{type(error).__name__}: {error}")
        return {**_FAILED, "answerable": float(str(ground_truth) != ABSTAIN), "pred": f"grader failed: {error}"}
    is_constant = result.executed and not result.execution.reads_table
    right = result.acc and not is_constant
    right_by_nothing = right and not official_empty and says_nothing(ground_truth)
    if ground_truth == GOLD_FAILED:
        score = 0.0
    elif reliability_penalty is not None:
        score = 0.0 if right_by_nothing else reliability(right, result.abstained, reliability_penalty)
    elif is_constant:
        score = 0.0
    else:
        if right:
            score = executed if right_by_nothing else correct
        elif result.abstained:
            score = abstained
        elif result.executed:
            score = executed if result.answerable or answered_unanswerable is None else answered_unanswerable
        else:
            score = 0.0
        score += format_bonus * result.extraction.format_ok
    return {
        "score": float(score),
        "acc": result.acc,
        "executed": float(result.executed),
        "abstained": float(result.abstained),
        "timed_out": float(result.timed_out),
        "format_ok": float(result.extraction.format_ok),
        "answerable": float(result.answerable),
        "pred": result.pred,
        "grader_failed": 0.0,
    }


def query_timeout(extra_info: dict | None) -> float:
    """The deadline of a query that a row names, in seconds."""
    return (extra_info or {}).get("timeout_s") or DEFAULT_TIMEOUT_S


def _database_path(extra_info: dict | None) -> str:
    path = (extra_info or {}).get("db_path")
    if path and os.path.isfile(path):
        return path
    path = os.environ.get("EHRSQL_DB") or path
    if not path:
        raise DatabaseError("extra_info has no db_path and EHRSQL_DB is not set")
    return path


@functools.lru_cache(maxsize=1024)
def _log_once(cause: str) -> None:
    logger.exception("EHRSQL grader failed, the sample scores 0: %s", cause)
