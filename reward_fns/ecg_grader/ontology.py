"""What the ECG grader knows: ``ecg_ontology.yaml``, and the word stems by which its terms are matched."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

import yaml
from nltk.stem.snowball import SnowballStemmer

ONTOLOGY_FILE = Path(__file__).parent.with_name("ecg_ontology.yaml")


@functools.cache
def ontology() -> dict:
    """The parsed ``ecg_ontology.yaml``."""
    return yaml.safe_load(ONTOLOGY_FILE.read_text(encoding="utf-8"))


@functools.cache
def members() -> dict[str, frozenset[str]]:
    """For each class of the ontology its members."""
    return {name: frozenset(concepts) for name, concepts in ontology()["members"].items()}


@functools.lru_cache(maxsize=65536)
def stem(word: str) -> str:
    return _stemmer().stem(word)


@functools.cache
def _stemmer() -> SnowballStemmer:
    return SnowballStemmer("english")


@functools.cache
def synonyms() -> dict[str, str]:
    """Stem -> the stem that stands for it."""
    return {stem(word): stem(name) for name, words in ontology()["synonyms"].items() for word in words}


@functools.cache
def boilerplate() -> frozenset[str]:
    """The stems of words that say little."""
    return frozenset(map(stem, ontology()["boilerplate"].split()))


@functools.cache
def pattern(*keys: str) -> re.Pattern:
    """What finds one of the phrases at ``keys`` of the ontology, the longest first, in a text in lower case."""
    return re.compile(rf"\b(?:{phrases(functools.reduce(lambda found, key: found[key], keys, ontology()))})\b")


def phrases(words: Iterable[str]) -> str:
    """An alternative of a regular expression for each of ``words``, the longest first."""
    return "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
