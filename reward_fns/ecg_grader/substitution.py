"""What an answer that copies the reference's sentences puts in place of some of its words.

"It raises the uric acid" for "It raises the cholesterol" differs in a term that no ontology need know: the same words
stand around it, so it is what the answer says instead. An answer in words of its own has no such frame, and one that
leaves words out or adds some puts nothing in the place of others. Numbers and units are compared elsewhere. A synonym
that the ontology lacks looks the same, so one such word costs part of the score, but in a short sentence nearly all.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass
from itertools import product

from rapidfuzz.distance import Levenshtein

from reward_fns.ecg_grader.facts import DIRECTION, WORD, Fact, is_measure, read
from reward_fns.ecg_grader.match import related
from reward_fns.ecg_grader.words import content_stem, says_little, words_of

FRAME = 0.4, 0.6  # share of the words that are copied in their order, from which it counts, and in full
LONGEST = 6  # telling words on either side: more are a sentence of its own
NEIGHBOURS = 2  # words that must be the same next to it
SWAP_NEIGHBOURS = 3  # on each side of a term that the reference has elsewhere: items of a list may change places
ENOUGH = 0.3  # share of the telling words that must be put in place of others for the most that they matter
MOST = 0.85


@dataclass(frozen=True)
class Substitution:
    """``size`` in (0, ``MOST``] says how much it contradicts, ``missing`` are the words that others replaced."""

    size: float
    reason: str
    missing: tuple[str, ...]


def substitution(answer: str, reference: str, question: str) -> Substitution | None:
    """What ``answer`` puts in place of words of ``reference``; None if it copies nothing, or changes nothing."""
    said, wanted = words_of(answer), _words(reference)
    stems, wanted_stems = _stems(said), _stems(wanted)
    blocks = Levenshtein.opcodes(wanted_stems, stems).as_matching_blocks()
    low, high = FRAME
    frame = (sum(block.size for block in blocks) / max(1, len(said), len(wanted)) - low) / (high - low)
    if frame <= 0:
        return None
    known = {*wanted_stems, *_stems(_words(question))}
    replaced, gone, changes = 0, [], []
    a = b = size = 0  # where the last equal words begin in both, and their number
    for block in blocks:
        before, after = slice(a + size, block.a), slice(b + size, block.b)
        framed = size + block.size >= NEIGHBOURS
        edges = a == 0, block.a + block.size == len(wanted)
        apart = all(edge or same >= SWAP_NEIGHBOURS for edge, same in zip(edges, (size, block.size), strict=True))
        a, b, size = block
        missing = _telling(wanted[before], without=stems[after])
        other = _telling(said[after], without=wanted_stems[before])
        if not framed or not 0 < len(missing) <= LONGEST or not 0 < len(other) <= LONGEST:
            continue
        here, instead = _concepts(wanted, before), _concepts(said, after)
        if any(_agree(fact, fact_instead) for fact, fact_instead in product(here, instead)):
            continue
        new = _telling(other, without=known)
        if new or apart and {fact.slot for fact in here} & {fact.slot for fact in instead}:
            replaced += len(new or other)
            gone += missing
            changes.append(f"{' '.join(new or other)} for {' '.join(missing)}")
    if not changes:
        return None
    share = replaced / len(_telling(said))
    size = min(1.0, frame) * min(1.0, share / ENOUGH) * MOST
    return Substitution(size, f"replaced: {'; '.join(changes)}", tuple(gone))


@functools.lru_cache(maxsize=1024)
def _words(text: str) -> list[str]:
    return words_of(text)


def _stems(words: list[str]) -> list[str]:
    """Their stems, but the words themselves where they are such as "the"."""
    return [content_stem(word) or word.lower() for word in words]


def _telling(words: list[str], without: Collection[str] = ()) -> list[str]:
    """The words that tell something, whose stems are not among ``without``."""
    return [
        word
        for word in words
        if (stem := content_stem(word)) and stem not in without and not says_little(word) and not is_measure(word)
    ]


def _concepts(words: list[str], place: slice) -> set[Fact]:
    """The ontology's concepts in the words at ``place``, or that begin or end in their neighbours."""
    start, end = max(0, place.start - NEIGHBOURS), place.stop + NEIGHBOURS
    beside = _facts(words[start : place.start]) | _facts(words[place.stop : end])
    return _facts(words[start:end]) - beside


def _facts(words: list[str]) -> set[Fact]:
    facts = (fact for fact in read(" ".join(words)).facts if fact.slot != WORD)
    return {Fact(_axis(fact.slot), fact.value) for fact in facts}


def _axis(slot: str) -> str:
    """A direction without what it is about, which may stand elsewhere."""
    return " ".join(slot.split(" ")[:2]) if slot.startswith(DIRECTION) else slot


def _agree(fact: Fact, other: Fact) -> bool:
    return fact == other or related(fact.value, other.value)
