"""How certain an answer to an EHRSQL question is, by several scores. Higher is more certain in each."""

from collections.abc import Sequence
from dataclasses import asdict

from recipes.evaluation.generation import Response
from reward_fns.ehrsql import Grade
from reward_fns.sql.answers import says_nothing


def confidence(response: Response, grade: Grade, further: Sequence[str]) -> dict[str, float]:
    """The scores by name, those of the tokens only where the model gave them.

    ``logprob_mean``, ``logprob_min``, ``negative_entropy_mean`` and ``negative_entropy_max`` are those of
    ``TokenConfidence``. 1 or 0 are: ``executes``, whether there is a query that runs; ``returns_value``, whether its
    answer holds more than NULL; ``returns_one_row``. An abstention has 1 in all three. ``agreement`` is the share of
    the answers ``further`` (``Grade.pred``) that are equal to this one.
    """
    scores = {}
    if response.confidence:
        tokens = asdict(response.confidence)
        scores = {name: tokens[name] for name in ("logprob_mean", "logprob_min")}
        scores |= {f"negative_{name}": -tokens[name] for name in ("entropy_mean", "entropy_max")}
    answer = grade.execution.answer if grade.execution else None
    scores["executes"] = float(grade.abstained or grade.executed)
    scores["returns_value"] = float(grade.abstained or (answer is not None and not says_nothing(answer)))
    scores["returns_one_row"] = float(grade.abstained or (grade.executed and grade.execution.rows == 1))
    if further:
        scores["agreement"] = sum(pred == grade.pred for pred in further) / len(further)
    return scores
