"""Reads the facts of a cardiology text.

A blank spaCy pipeline finds the terms of ``ecg_ontology.yaml`` by word stems, and NegEx says which are denied. Regular
expressions find leads and quantities. No statistical model is needed. One text of 40 words takes about a millisecond.
"""

import functools
import re
from dataclasses import dataclass

import spacy
from spacy.language import Language
from spacy.matcher import PhraseMatcher
from spacy.tokens import Doc, Span

from reward_fns.ecg_grader.clauses import with_clause_ends
from reward_fns.ecg_grader.facts import WAVE, WORD, Direction, Fact, Term
from reward_fns.ecg_grader.leads import is_lead, leads
from reward_fns.ecg_grader.negation import Negations
from reward_fns.ecg_grader.ontology import boilerplate, ontology, pattern, stem, synonyms
from reward_fns.ecg_grader.parameters import NEIGHBOURS
from reward_fns.ecg_grader.quantities import quantities
from reward_fns.ecg_grader.text import SENTENCE_END, Text, plain
from reward_fns.ecg_grader.verdict import polarity, stance

VERDICT = re.compile(r"^\W*(?:yes|no)\s*(?:[,.:;]|-(?=\s))\s*", re.IGNORECASE)
_OR = re.compile(r"\b(?:or|versus|vs)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """What a text says. ``facts`` in order, each once, with the number of the sentence that says it first.

    ``polarity`` is ``yes``, ``no`` or ``both`` where the text begins so, else "", ``stance`` also where it permits or
    refuses something in other words. ``word_count`` counts words, ``function_words`` is the share of words such as
    "the" and "is" among them. ``hedge`` is the phrase by which the text takes nothing or everything for true,
    ``restriction`` that by which it makes little of a yes, or "".
    """

    text: Text
    facts: dict[Fact, int]
    polarity: str
    stance: str
    word_count: int
    function_words: float
    hedge: str
    restriction: str

    @functools.cached_property
    def branches(self) -> tuple[tuple[frozenset[Fact], ...], ...]:
        """For each sentence with an "or" the facts of its parts between the "or"s.

        A part's fact that the whole text does not hold is an artefact. But what a direction is about may stand in
        another part, and differs.
        """
        parts = (
            [_facts(part)[0] for part in _OR.split(sentence)]
            for sentence in SENTENCE_END.split(self.text.clean)
            if _OR.search(sentence)
        )
        return tuple(
            tuple(
                frozenset(fact for fact in part if fact in self.facts or isinstance(fact, Direction))
                for part in sentence
            )
            for sentence in parts
        )

    @functools.cached_property
    def outright(self) -> frozenset[Fact]:
        """The facts of the sentences without an "or"."""
        sentences = (sentence for sentence in SENTENCE_END.split(self.text.clean) if not _OR.search(sentence))
        return frozenset(_facts(" ".join(sentences))[0])


@functools.lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """The facts of ``text``. Equal texts are read once."""
    normalised = Text(text)
    facts, doc = _facts(normalised.clean)
    words = [token for token in doc if token.is_alpha or token.like_num]
    return Reading(
        text=normalised,
        facts=facts,
        polarity=polarity(normalised),
        stance=stance(normalised),
        word_count=len(words),
        function_words=sum(token.is_stop for token in words) / max(1, len(words)),
        hedge=_first("hedges", normalised.lower),
        restriction=_first("restrictions", normalised.lower),
    )


def _first(name: str, text: str) -> str:
    """The first of the ontology's phrases ``name`` in ``text``, or ""."""
    found = pattern(name).search(text)
    return found[0] if found else ""


@Language.component("ecg_stems")
def _stems(doc: Doc) -> Doc:
    for token in doc:
        plural = token.text[-1:] == "s" and token.text[:-1].isupper()  # PVCs
        norm = stem(token.lower_[:-1] if plural else token.lower_)
        token.norm_ = synonyms().get(norm, norm)
    return doc


class _Reader:
    """The pipeline, built once a process (about a second)."""

    def __init__(self) -> None:
        self.nlp = spacy.blank("en")
        self.nlp.add_pipe("sentencizer", config={"punct_chars": [".", "!", "?"]})
        self.nlp.add_pipe("ecg_stems")
        self.labels: dict[str, Term | Direction] = {}
        self.matcher = PhraseMatcher(self.nlp.vocab, attr="NORM")
        for kind, concepts in ontology()["concepts"].items():
            for concept, phrases in concepts.items():
                self._add(Term(kind, concept), [concept, *phrases])
        for axis, signs in ontology()["directions"].items():
            for sign, phrases in zip("+-", signs, strict=True):
                self._add(Direction(axis, "", sign), phrases)
        for word, phrases in ontology()["phrases of words"].items():
            self._add(Term(WORD, stem(word)), phrases)
        self.capitals = frozenset(ontology()["capitals"])
        self.negations = Negations(self.nlp)

    def _add(self, fact: Term | Direction, phrases: list[str]) -> None:
        label = f"{fact.slot}|{fact.value}"
        self.labels[label] = fact
        self.matcher.add(label, [self.nlp(plain(phrase)) for phrase in phrases])

    def spans(self, text: str) -> tuple[Doc, list[Span]]:
        doc = self.nlp(text)
        matches = [
            Span(doc, start, end, label=key)
            for key, start, end in self.matcher(doc)
            if end - start > 1 or doc[start].norm_ not in self.capitals or doc[start].text.rstrip("s").isupper()
        ]
        spans = spacy.util.filter_spans(matches)
        taken = {token.i for span in spans for token in span}
        spans += [
            Span(doc, token.i, token.i + 1, label=WORD)
            for token in doc
            if token.i not in taken and token.is_alpha and len(token) > 2 and not token.is_stop
            and token.norm_ not in boilerplate() and not is_lead(token.text)
        ]  # fmt: skip
        spans.sort(key=lambda span: span.start)
        doc.spans["facts"] = spans
        self.negations.mark(doc)
        return doc, spans

    def label(self, span: Span) -> Term | Direction:
        """What a span says, before its negation and, of a direction, its target are known."""
        return self.labels.get(span.label_) or Term(WORD, span[0].norm_)


@functools.cache
def _reader() -> _Reader:
    return _Reader()


def _facts(text: str) -> tuple[dict[Fact, int], Doc]:
    """The facts of a clean text with the number of the sentence that says each first, and the parsed text."""
    # "No, it shortens QT" denies nothing after the comma.
    doc, spans = _reader().spans(plain(with_clause_ends(VERDICT.sub("", text))))
    labels, negations = [_reader().label(span) for span in spans], _reader().negations
    sentence = [number for number, sent in enumerate(doc.sents) for _ in range(sent.start, sent.end)]
    facts: dict[Fact, int] = {}
    for position, (span, label) in enumerate(zip(spans, labels, strict=True)):
        if isinstance(label, Direction):
            target = _target(position, spans, labels, sentence)
            fact: Fact = Direction(label.axis, target, label.sign, negations.state(span, label.axis))
        else:
            fact = Term(label.kind, label.name, negations.state(span, label.kind))
        facts.setdefault(fact, sentence[span.start])
    for fact in (*leads(text), *quantities(text)):
        facts.setdefault(fact, 0)
    return facts, doc


def _target(position: int, spans: list[Span], labels: list[Term | Direction], sentence: list[int]) -> str:
    """What a direction is about: the nearest wave or interval, else the nearest other term, of the sentence."""
    span = spans[position]
    best, rank = "", (2, 99)
    for near in range(max(0, position - NEIGHBOURS), min(len(spans), position + NEIGHBOURS + 1)):
        other, label = spans[near], labels[near]
        if isinstance(label, Direction) or sentence[other.start] != sentence[span.start]:
            continue
        gap = other.start - span.end if other.start >= span.end else span.start - other.end + 1
        if gap < NEIGHBOURS and (candidate := (label.kind != WAVE, gap)) < rank:
            best, rank = label.name, candidate
    return best
