"""What an answer that copies the reference's sentences puts in place of some of its words.

"It raises the uric acid" for "It raises the cholesterol" differs in a term that no ontology need know: the same words
stand around it, so it is what the answer says instead. An answer in words of its own has no such frame, and one that
leaves words out or adds some puts nothing in the place of others. Numbers and units are compared elsewhere. A synonym
that the ontology lacks looks the same, so one such word costs part of the score, but in a short sentence nearly all.
Another concept of the same kind, "left" for "right", and a "not" more or less turn the sentence into its opposite.
"""

from collections.abc import Collection
from dataclasses import replace
from itertools import product

from rapidfuzz.distance import Levenshtein

from reward_fns.ecg_grader.contradictions import Contradiction
from reward_fns.ecg_grader.facts import WORD, Direction, Fact, Term, affirmed
from reward_fns.ecg_grader.match import is_kin, is_word
from reward_fns.ecg_grader.ontology import ontology
from reward_fns.ecg_grader.opposites import opposite
from reward_fns.ecg_grader.parameters import (
    ENOUGH_REPLACED,
    FRAME,
    FRAME_NEIGHBOURS,
    LATER_CHANGE,
    LONGEST,
    SUBSTITUTED,
    SWAP_NEIGHBOURS,
)
from reward_fns.ecg_grader.quantities import is_measure
from reward_fns.ecg_grader.reading import VERDICT, read
from reward_fns.ecg_grader.text import SENTENCE_END, Text, content_stem, says_little


def substitution(answer: str, reference: str, question: str) -> Contradiction | None:
    """What ``answer`` puts in place of words of ``reference``; None if it copies nothing, or changes nothing.

    Each sentence of the answer is compared with the sentence of the reference that it is most like: what stands around
    a changed copy does not hide the change. The facts of the contradiction are the words that others replaced.
    """
    known = {*_stems(Text(reference).words), *_stems(Text(question).words)}
    length = max(1, len(_telling(Text(answer).words)))
    copied = _sentences(reference)
    found = []
    for said in _sentences(answer):
        alike = [Levenshtein.normalized_similarity(_stems(wanted), _stems(said)) for wanted in copied]
        place = alike.index(max(alike))
        found.append(_replaced(said, copied[place], known, length, LATER_CHANGE if place else 1.0))
    return max((each for each in found if each), key=lambda each: each.severity, default=None)


def _replaced(said: list[str], wanted: list[str], known: set[str], length: int, weight: float) -> Contradiction | None:
    """What ``said`` puts in place of words of ``wanted``, both the words of a sentence.

    ``known`` are stems of the question and of the whole reference. ``length`` is the number of telling words of the
    whole answer. ``weight`` is the severity of a denial more or less, or of another concept of a kind.
    """
    stems, wanted_stems = _stems(said), _stems(wanted)
    blocks = Levenshtein.opcodes(wanted_stems, stems).as_matching_blocks()
    low, high = FRAME
    frame = (sum(block.size for block in blocks) / max(1, len(said), len(wanted)) - low) / (high - low)
    if frame <= 0:
        return None
    replaced, gone, changes, worst = 0, [], [], 0.0
    a = b = size = 0  # where the last equal words begin in both, and their number
    for block in blocks:
        before, after = slice(a + size, block.a), slice(b + size, block.b)
        framed = size + block.size >= FRAME_NEIGHBOURS
        edges = a == 0, block.a + block.size == len(wanted)
        apart = all(edge or same >= SWAP_NEIGHBOURS for edge, same in zip(edges, (size, block.size), strict=True))
        a, b, size = block
        missing = _telling(wanted[before], without=stems[after])
        other = _telling(said[after], without=wanted_stems[before])
        denial = not missing and not other and _denies(wanted[before]) != _denies(said[after])
        short = max(len(wanted[before]), len(said[after])) <= LONGEST
        if framed and (denial or apart and short and opposite(wanted[before], said[after])):
            changes.append(f"{' '.join(said[after]) or 'nothing'} for {' '.join(wanted[before]) or 'nothing'}")
            worst = max(worst, weight)
            continue
        if not framed or not 0 < len(missing) <= LONGEST or not 0 < len(other) <= LONGEST:
            continue
        here, instead = _concepts(wanted, before), _concepts(said, after)
        if any(fact == other_fact or is_kin(fact, other_fact) for fact, other_fact in product(here, instead)):
            continue
        new = _telling(other, without=known)
        alternatives = {fact.slot for fact in here} & {fact.slot for fact in instead}
        if alternatives:
            worst = max(worst, weight)
        if new or apart and alternatives:
            replaced += len(new or other)
            gone += missing
            changes.append(f"{' '.join(new or other)} for {' '.join(missing)}")
    if not changes:
        return None
    severity = min(1.0, frame) * max(worst, min(1.0, replaced / length / ENOUGH_REPLACED) * SUBSTITUTED)
    words = tuple(Term(WORD, stem) for word in gone if (stem := content_stem(word)))
    return Contradiction(severity, f"replaced: {'; '.join(changes)}", words)


def _sentences(text: str) -> list[list[str]]:
    """The words of each sentence, without a yes or no before them, which changes none of them."""
    return [Text(VERDICT.sub("", sentence)).words for sentence in SENTENCE_END.split(text)]


def _denies(words: list[str]) -> bool:
    """Whether an odd number of ``words`` denies."""
    return sum(word.lower() in ontology()["negation"]["words"] for word in words) % 2 == 1


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
    start, end = max(0, place.start - FRAME_NEIGHBOURS), place.stop + FRAME_NEIGHBOURS
    beside = _facts(words[start : place.start]) | _facts(words[place.stop : end])
    return _facts(words[start:end]) - beside


def _facts(words: list[str]) -> set[Fact]:
    """The facts of ``words``, a direction without what it is about, which may stand elsewhere."""
    facts = (affirmed(fact) for fact in read(" ".join(words)).facts if not is_word(fact))
    return {replace(fact, target="") if isinstance(fact, Direction) else fact for fact in facts}
