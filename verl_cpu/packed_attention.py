"""Attention over packed sequences, each sequence by itself.

verl packs the sequences of a micro-batch one after the other into one row (``use_remove_padding``). On a GPU,
flash-attn computes the attention of such a row sequence by sequence. transformers' ``sdpa`` computes it under a mask of
(tokens x tokens), whose cost grows with the square of the row. Here the cost is that of the sequences, however many
there are in a row.

``verl_cpu.external_lib`` registers ``packed_attention`` with transformers' ``AttentionInterface`` as ``NAME``, which
``configs/hardware/cpu.yaml`` and ``configs/sft_hardware/cpu.yaml`` choose (``attn_implementation``). transformers makes
no mask for a name that has no mask function.
"""

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

NAME = "packed_sdpa"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    position_ids: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each sequence of a packed row; called as transformers calls attention functions.

    ``query`` has the shape (1, heads, tokens, head size); ``key`` and ``value`` may have fewer heads. ``position_ids``
    has the shape (1, tokens) and begins at 0 in each sequence. Returns (1, tokens, heads, head size), and no weights.

    Raises:
        ValueError: there is a mask, a sliding window or more than one row, which verl's packed rows do not have.
    """
    if attention_mask is not None or sliding_window is not None or query.shape[0] != 1:
        raise ValueError(f"{NAME} takes one packed row without mask and sliding window; use attn_implementation=sdpa")
    groups = query.shape[1] // key.shape[1]
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    lengths = [end - start for start, end in zip(starts, [*starts[1:], query.shape[2]], strict=True)]
    # split's backward pass is one concatenation; that of a slice would be a row of zeros for each sequence.
    sequences = (tensor.split(lengths, dim=2) for tensor in (query, repeat_kv(key, groups), repeat_kv(value, groups)))
    outputs = [
        scaled_dot_product_attention(*sequence, dropout_p=dropout, is_causal=True, scale=scaling)
        for sequence in zip(*sequences, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def register() -> None:
    """Make ``attn_implementation: packed_sdpa`` known to transformers."""
    AttentionInterface.register(NAME, packed_attention)
