"""The probabilities of the tokens that transformers generates, as vLLM gives them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recipes.evaluation.token_confidence import TOP_LOGPROBS, TokenConfidence, token_confidence

if TYPE_CHECKING:
    import torch


class TokenRecorder:
    """A logits processor of ``generate`` for one sequence that changes nothing, and remembers probabilities.

    transformers calls it before the temperature is applied, so that the probabilities are the model's own.
    """

    def __init__(self):
        self._positions: list[tuple[float, list[float]]] = []
        self._logprobs: torch.Tensor | None = None  # of the position whose token is not drawn yet

    def __call__(self, ids: "torch.Tensor", logits: "torch.Tensor") -> "torch.Tensor":
        self._record(ids[0, -1].item())
        self._logprobs = logits[0].log_softmax(-1)
        return logits

    def confidence(self, tokens: Sequence[int]) -> TokenConfidence:
        """That of the whole text, whose tokens are ``tokens``, at least one."""
        self._record(tokens[-1])
        return token_confidence(self._positions)

    def _record(self, token: int) -> None:
        """``token`` was drawn at the last position."""
        if self._logprobs is not None:
            top = self._logprobs.topk(min(TOP_LOGPROBS, len(self._logprobs))).values.tolist()
            self._positions.append((self._logprobs[token].item(), top))
