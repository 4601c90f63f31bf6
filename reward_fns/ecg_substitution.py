"""What an answer that copies the reference's sentences puts in place of some of its words.

"It raises the uric acid" for "It raises the cholesterol" differs in a term that no ontology need know: the same words
stand around it, so it is what the answer says instead. An answer in words of its own has no such frame, and one that
leaves words out or adds some puts nothing in the place of others.
"""

import functools
from collections.abc import Collection, Iterator
from itertools import product

from rapidfuzz.distance import Levenshtein

from reward_fns.ecg_facts import WORD, Fact, read
from reward_fns.ecg_match import related
from reward_fns.ecg_words import content_stem, says_little, words_of

REPLACED = "replaced: "  # how the reason begins
FRAME = 0.4, 0.6  # share of the words that are copied in their order, from which it counts, and in full
LONGEST = 6  # content words on either side: more are a sentence of its own
NEIGHBOURS = 2  # words that must be the same next to it
SWAP_NEIGHBOURS = 4  # the same for a term that the reference has elsewhere: items of a list may change places
ENOUGH = 0.15  # share of the answer's content words that must be put in place of others to contradict it in full


def substitutions(answer: str, reference: str, question: str) -> Iterator[tuple[float, str]]:
    """Yields (size in (0, 1], reason) once if ``answer`` copies ``reference`` with other words in some places."""
    said, wanted = words_of(answer), _words(reference)
    stems, wanted_stems = _stems(said), _stems(wanted)
    blocks = Levenshtein.opcodes(wanted_stems, stems).as_matching_blocks()
    low, high = FRAME
    frame = (sum(block.size for block in blocks) / max(1, len(said), len(wanted)) - low) / (high - low)
    if frame <= 0:
        return
    known = {*wanted_stems, *_stems(_words(question))}
    replaced, reasons = 0, []
    a = b = size = 0  # where the last equal words begin in both, and their number
    for block in blocks:
        before, after, same = wanted[a + size : block.a], said[b + size : block.b], size + block.size
        a, b, size = block
        missing, other = _content(before, without=_stems(after)), _content(after)
        if same < NEIGHBOURS or not 0 < len(missing) <= LONGEST or not 0 < len(other) <= LONGEST:
            continue
        new = [word for word in _content(after, without=known) if not says_little(word)]
        if _say_the_same(missing, new) if new else same < SWAP_NEIGHBOURS or not _exchanged(before, after):
            continue
        replaced += len(new or other)
        reasons.append(f"{' '.join(new or other)} for {' '.join(missing)}")
    if reasons:
        share = replaced / len(_content(said))
        yield min(1.0, frame) * min(1.0, share / ENOUGH), f"{REPLACED}{'; '.join(reasons)}"


@functools.lru_cache(maxsize=1024)
def _words(text: str) -> list[str]:
    return words_of(text)


def _stems(words: list[str]) -> list[str]:
    """Their stems, but the words themselves where they are such as "the"."""
    return [content_stem(word) or word for word in words]


def _content(words: list[str], without: Collection[str] = ()) -> list[str]:
    """The content words among ``words`` whose stems are not among ``without``."""
    return [word for word in words if (stem := content_stem(word)) and stem not in without]


def _say_the_same(words: list[str], others: list[str]) -> bool:
    """Whether the ontology has a concept, or a class and its member, that stands in both."""
    return any(_agree(fact, other) for fact, other in product(_concepts(words), _concepts(others)))


def _exchanged(words: list[str], others: list[str]) -> bool:
    """Whether they name different things of a kind."""
    pairs = [pair for pair in product(_concepts(words), _concepts(others)) if pair[0].slot == pair[1].slot]
    return bool(pairs) and not any(_agree(fact, other) for fact, other in pairs)


def _concepts(words: list[str]) -> list[Fact]:
    return [fact for fact in read(" ".join(words)).facts if fact.slot != WORD]


def _agree(fact: Fact, other: Fact) -> bool:
    return fact == other or related(fact.value, other.value)
