"""Attention by sequence gives the losses and gradients of transformers' own attention under a dense mask."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from verl_cpu.packed_attention import NAME, packed_attention, register

register()
SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def loss_and_gradients(config, implementation: str, lengths: list[int]):
    """Of a row that packs random sequences: its log-likelihood's sum, and the gradients by the name of the weight."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
    generator = torch.Generator().manual_seed(sum(lengths))
    ids = torch.randint(config.vocab_size, (1, sum(lengths)), generator=generator)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    loss = logits.log_softmax(-1).gather(-1, ids.roll(-1, 1)[..., None]).sum()
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("config", [LlamaConfig(**SHAPE), Qwen2Config(**SHAPE)], ids=["llama", "qwen2"])
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_losses_and_gradients_equal_the_plain_path(config, lengths):
    loss, gradients = loss_and_gradients(config, NAME, lengths)
    plain_loss, plain_gradients = loss_and_gradients(config, "sdpa", lengths)
    assert loss == pytest.approx(plain_loss, rel=1e-5)
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, plain_gradients[name], rtol=1e-3, atol=1e-4), name


def test_a_sequence_does_not_see_its_neighbours():
    """What stands before a sequence in the row leaves its attention as it is."""
    random.seed(0)
    query, key, value = torch.randn(3, 1, 2, 12, 8)
    positions = torch.cat([torch.arange(7), torch.arange(5)])[None]
    before, _ = packed_attention(None, query, key, value, None, position_ids=positions)
    key[:, :, :7] += 1
    value[:, :, :7] -= 1
    after, _ = packed_attention(None, query, key, value, None, position_ids=positions)
    assert torch.equal(before[:, 7:], after[:, 7:]) and not torch.allclose(before[:, :7], after[:, :7])


@pytest.mark.parametrize(
    ("rows", "mask", "options"), [(2, None, {}), (1, torch.ones(1, 1, 4, 4), {}), (1, None, {"sliding_window": 2})]
)
def test_what_it_does_not_compute_is_refused(rows, mask, options):
    tensors = torch.randn(3, rows, 2, 4, 8)
    with pytest.raises(ValueError, match="packed_sdpa takes one packed row"):
        packed_attention(None, *tensors, mask, position_ids=torch.arange(4)[None], **options)
