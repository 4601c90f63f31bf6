"""How certain an answer to an EHRSQL question is, by several scores. Higher is more certain in each."""

from collections.abc import Sequence
from dataclasses import asdict

from recipes.evaluation.token_confidence import TokenConfidence
from reward_fns.sql.answers import says_nothing
from reward_fns.sql.sandbox import Execution


def confidence(tokens: TokenConfidence | None, abstained: bool, execution: Execution | None) -> dict[str, float]:
    """The scores by name of an answer by itself, those of the tokens only where the model gave them.

    ``logprob_mean``, ``logprob_min``, ``negative_entropy_mean`` and ``negative_entropy_max`` are those of
    ``TokenConfidence``. 1 or 0 are: ``executes``, whether there is a query that runs; ``returns_value``, whether its
    answer holds more than NULL; ``returns_one_row``. An abstention has 1 in all three.
    """
    scores = {}
    if tokens:
        values = asdict(tokens)
        scores = {name: values[name] for name in ("logprob_mean", "logprob_min")}
        scores |= {f"negative_{name}": -values[name] for name in ("entropy_mean", "entropy_max")}
    answer = execution.answer if execution else None
    scores["executes"] = float(abstained or answer is not None)
    scores["returns_value"] = float(abstained or (answer is not None and not says_nothing(answer)))
    scores["returns_one_row"] = float(abstained or (answer is not None and execution.rows == 1))
    return scores


def agreement(pred: str, further: Sequence[str]) -> dict[str, float]:
    """``agreement``: the share of further answers that are equal to this one (``Grade.pred``); nothing without any."""
    return {"agreement": sum(other == pred for other in further) / len(further)} if further else {}
