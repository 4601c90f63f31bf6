"""What several answers to a question are worth: one right among k, all k right, and a majority vote."""

from collections import Counter
from collections.abc import Sequence
from math import comb


def pass_at_k(answers: int, right: int, k: int) -> float:
    """The probability that at least one of k answers is right, where ``right`` of ``answers`` are.

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374), for answers drawn independently.

    Raises:
        ValueError: ``k`` is not in 1 to ``answers``.
    """
    return 1 - _all_among(answers, answers - right, k)


def pass_hat_k(answers: int, right: int, k: int) -> float:
    """pass^k: the probability that all of k answers are right, where ``right`` of ``answers`` are.

    The unbiased estimator of tau-bench (Yao et al. 2024, arXiv 2406.12045), for answers drawn independently.

    Raises:
        ValueError: ``k`` is not in 1 to ``answers``.
    """
    return _all_among(answers, right, k)


def _all_among(answers: int, chosen: int, k: int) -> float:
    """The share of the subsets of k answers that lie in ``chosen`` of them."""
    if not 1 <= k <= answers:
        raise ValueError(f"k is {k}; give 1 to {answers}, the number of answers")
    return comb(chosen, k) / comb(answers, k)


def majority(votes: Sequence[str], invalid: str) -> int:
    """The place of the first vote for what most votes are for; of several, what was voted for first wins.

    ``invalid`` wins only where there is no other vote.
    """
    counts = Counter(vote for vote in votes if vote != invalid) or Counter(votes)
    winner, _ = counts.most_common(1)[0]  # of equal counts, the first that was counted
    return votes.index(winner)
