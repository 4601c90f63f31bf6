"""How certain a model was of the tokens that it wrote."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

TOP_LOGPROBS = 20  # of each position; vLLM and the OpenAI protocol give at most so many


@dataclass(frozen=True)
class TokenConfidence:
    """Over the tokens of a response, in nats: the mean and lowest log-probability, the mean and highest entropy.

    The entropy of a position takes all tokens but the ``TOP_LOGPROBS`` most probable as one, so it is a lower bound.
    """

    logprob_mean: float
    logprob_min: float
    entropy_mean: float
    entropy_max: float


def token_confidence(positions: Sequence[tuple[float, Sequence[float]]]) -> TokenConfidence | None:
    """``positions``: for each token its log-probability, and those of the most probable tokens. None for no tokens."""
    if not positions:
        return None
    logprobs = [logprob for logprob, _ in positions]
    entropies = [_entropy(top) for _, top in positions]
    return TokenConfidence(
        logprob_mean=math.fsum(logprobs) / len(logprobs),
        logprob_min=min(logprobs),
        entropy_mean=math.fsum(entropies) / len(entropies),
        entropy_max=max(entropies),
    )


def _entropy(logprobs: Sequence[float]) -> float:
    shares = [math.exp(logprob) for logprob in logprobs]
    rest = 1 - math.fsum(shares)
    return -math.fsum(share * math.log(share) for share in (*shares, rest) if share > 0)
