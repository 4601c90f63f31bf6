"""Facts in a cardiology text: what the ECG grader compares instead of words.

A blank spaCy pipeline finds the terms of ``ecg_ontology.yaml`` by word stems, negspaCy (the NegEx algorithm, Chapman et
al. 2001, with the ontology's further triggers) says which are denied, regular expressions find leads and measurements.
No statistical model is needed. One text of 40 words takes about a millisecond.
"""

import functools
import math
import re
from dataclasses import dataclass

import spacy
from negspacy.negation import Negex
from negspacy.termsets import termset
from spacy.lang.en.lex_attrs import like_num
from spacy.language import Language
from spacy.matcher import PhraseMatcher
from spacy.tokens import Doc, Span

from reward_fns.ecg_grader.ontology import boilerplate, ontology, pattern, stem, synonyms
from reward_fns.ecg_grader.verdict import polarity, stance
from reward_fns.ecg_grader.words import MAX_CHARS, SENTENCE_END, clean, plain

LEAD, WORD, DIRECTION, WAVE = "lead", "word", "direction ", "wave or interval"
NEIGHBOURS = 6  # terms and words between a direction and what it is about, at most
_VERDICT = re.compile(r"^\W*(?:yes|no)\s*(?:[,.:;]|-(?=\s))\s*", re.IGNORECASE)

_LEAD = r"(?:aV[RLF]|AV[RLF]|avr|avl|avf|[Vv][1-9]R?|I{1,3})"
_LEAD_LIST = re.compile(
    r"(?P<intro>\b(?:leads?|type|class|mobitz|degree|stage|grade|factor|nyha)\s+)?(?<![\w-])"
    rf"(?P<list>{_LEAD}(?:(?:\s*(?:,|/|&|-|\band\b|\bor\b|\bto\b|\bthrough\b)+\s*|\s+)(?:leads?\s+)?{_LEAD})*)(?![\w-])"
)
_NO_LEADS = ("type", "class", "mobitz", "degree", "stage", "grade", "factor", "nyha")
_RANGE = re.compile(r"[Vv]([1-9])\s*(?:-|to|through)\s*[Vv]([1-9])")
_NUMBER = r"\d+(?:\.\d+)?"
_SIGN = r"(?:[-+]|(?:minus|plus)\s)?"
_UNITS = {
    "ms": ("time", 1e-3), "msec": ("time", 1e-3), "millisecond": ("time", 1e-3), "s": ("time", 1.0),
    "sec": ("time", 1.0), "second": ("time", 1.0), "minute": ("time", 60.0), "min": ("time", 60.0),
    "hour": ("time", 3600.0), "day": ("time", 86400.0), "week": ("time", 604800.0), "month": ("time", 2.63e6),
    "year": ("time", 3.156e7), "bpm": ("rate", 1.0), "beats per minute": ("rate", 1.0), "beats/min": ("rate", 1.0),
    "beats a minute": ("rate", 1.0), "mv": ("voltage", 1.0), "millivolt": ("voltage", 1.0), "mm": ("length", 1.0),
    "millimeter": ("length", 1.0), "cm": ("length", 10.0), "degree": ("angle", 1.0), "°": ("angle", 1.0),
    "%": ("percent", 1.0), "percent": ("percent", 1.0), "mmhg": ("pressure", 1.0), "mg": ("mass", 1.0),
    "mcg": ("mass", 1e-3), "g": ("mass", 1e3), "meq/l": ("concentration", 1.0), "mmol/l": ("concentration", 1.0),
    "mg/dl": ("concentration", 1.0),
}  # fmt: skip
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_UNIT_WORDS = frozenset(word for unit in _UNITS for word in re.findall("[a-z]+", unit))
_QUANTITY = re.compile(
    rf"(?<![\w.])(?P<low>{_SIGN}{_NUMBER})(?:\s*(?:{_UNIT})?s?\s*(?:-|to|and)\s*(?P<high>{_SIGN}{_NUMBER}))?\s*"
    rf"(?P<unit>{_UNIT})?s?(?![\w.]*\d|[a-z])",
    re.IGNORECASE,
)
# What stands before and after a number makes it a bound.
_MOST = re.compile(
    r"(?:(?:less|lower|shorter|smaller|fewer|(?:no|not) (?:more|longer|greater|higher)) than|below|under|up to|at most"
    r"|not exceed(?:ing)?|(?:never|not) (?:above|over)|≤|<=?)(?: about| a| an)?\s*$",
    re.IGNORECASE,
)
_LEAST = re.compile(
    r"(?:(?:more|greater|longer|higher|larger|wider|(?:no|not) (?:less|shorter|lower)) than|above|over|beyond|at least"
    r"|exceed(?:s|ing)?|(?:never|not) (?:below|under)|≥|>=?)(?: about| a| an)?\s*$",
    re.IGNORECASE,
)
_OR_MORE = re.compile(r"\s*(?:or|and) (?:more|longer|greater|higher|above|over)\b", re.IGNORECASE)
_OR_LESS = re.compile(r"\s*(?:or|and) (?:less|shorter|lower|below|under)\b", re.IGNORECASE)
SIGNED = ("angle", "voltage", "number")
DIMENSIONS = frozenset({dimension for dimension, _ in _UNITS.values()} | {"number"})
FACTORS = {name: sorted({factor for other, factor in _UNITS.values() if other == name}) for name in DIMENSIONS}
# What denies the leads or the number right after it, or the leads right before it. NegEx does it for terms.
_NOT = re.compile(
    r"\b(?:not|never|except|excluding|other than|apart from|rather than|instead of|spar(?:es?|ing))"
    r"(?:\s+(?:for|leads?|the|seen|visible|found|present|shown|recorded|evident|apparent|noted|observed|located|best"
    r"|well|in|on|at|by|from|of|be|exactly|usually|normally|affect(?:s|ing)?|involv(?:es?|ing)))*\s*$",
    re.IGNORECASE,
)
_DENIED_BEFORE = re.compile(
    r"\b(?:no|not|never|without|cannot)\b(?:(?!\b(?:but|and|while|whereas|although|only)\b)[^.;,])*$", re.IGNORECASE
)
_SPARED = re.compile(r"\s*(?:is|are|was|were) (?:not\b|never\b|spared|excluded|unaffected)", re.IGNORECASE)
_BEFORE = 60  # characters before a number or lead that are looked at
_OR = re.compile(r"\b(?:or|versus|vs)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Fact:
    """``slot`` names the property. Two facts with the same slot are alternatives or complement each other.

    =============================  ====================================================================================
    slot                           value
    =============================  ====================================================================================
    a kind of the ontology         the concept, such as ``atrial fibrillation`` of the kind ``rhythm``
    ``lead``                       the lead
    ``direction <axis> <target>``  ``+`` or ``-``
    a dimension such as ``time``   ``<least> <most>`` in SI or the clinical unit; infinite for "less than", "more than"
    ``word``                       the stem of a content word that the ontology does not know
    =============================  ====================================================================================
    """

    slot: str
    value: str
    negated: bool = False


@dataclass(frozen=True)
class Reading:
    """What a text says. ``facts`` in order, each once, with the number of the sentence that says it first.

    ``text`` is the cleaned text, ``polarity`` is ``yes``, ``no`` or ``both`` where it begins so, else "", ``stance``
    also where it permits or refuses something in other words. ``words`` counts words, ``function_words`` is the share
    of words such as "the" and "is" among them. ``hedge`` is the phrase by which the text takes nothing or everything
    for true, ``restriction`` that by which it makes little of a yes, or "".
    """

    text: str
    facts: dict[Fact, int]
    polarity: str
    stance: str
    words: int
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
            for sentence in SENTENCE_END.split(self.text)
            if _OR.search(sentence)
        )
        return tuple(
            tuple(
                frozenset(fact for fact in part if fact in self.facts or fact.slot.startswith(DIRECTION))
                for part in sentence
            )
            for sentence in parts
        )

    @functools.cached_property
    def outright(self) -> frozenset[Fact]:
        """The facts of the sentences without an "or"."""
        sentences = (sentence for sentence in SENTENCE_END.split(self.text) if not _OR.search(sentence))
        return frozenset(_facts(" ".join(sentences))[0])


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
        self.labels: dict[str, tuple[str, str]] = {}
        self.matcher = PhraseMatcher(self.nlp.vocab, attr="NORM")
        for kind, concepts in ontology()["concepts"].items():
            for concept, terms in concepts.items():
                self._add((kind, concept), [concept, *terms])
        for axis, (plus, minus) in ontology()["directions"].items():
            self._add((DIRECTION + axis, "+"), plus)
            self._add((DIRECTION + axis, "-"), minus)
        self.capitals = frozenset(ontology()["capitals"])
        triggers, more = termset("en_clinical").get_patterns(), ontology()["negation"]
        triggers = {name: [*phrases] for name, phrases in triggers.items()}
        triggers["pseudo_negations"] = [
            phrase for phrase in triggers["pseudo_negations"] if phrase not in more["denying"]
        ]
        triggers["preceding_negations"] += more["preceding"]
        triggers["following_negations"] += more["following"]
        triggers["termination"] += more["termination"]
        self.negex = Negex(self.nlp, "negex", triggers, span_keys=["facts"])

    def _add(self, fact: tuple[str, str], terms: list[str]) -> None:
        key = "|".join(fact)
        self.labels[key] = fact
        self.matcher.add(key, [self.nlp(plain(term)) for term in terms])

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
            and token.norm_ not in boilerplate() and not re.fullmatch(_LEAD, token.text)
        ]  # fmt: skip
        spans.sort(key=lambda span: span.start)
        doc.spans["facts"] = spans
        self.negex(doc)
        return doc, spans


@functools.cache
def _reader() -> _Reader:
    return _Reader()


@functools.lru_cache(maxsize=4096)
def read(text: str) -> Reading:
    """The facts of ``text``. Texts over ``MAX_CHARS`` are cut. Equal texts are read once."""
    text = clean(text[:MAX_CHARS])
    facts, doc = _facts(text)
    words = [token for token in doc if token.is_alpha or token.like_num]
    lower = text.lower()
    return Reading(
        text=text,
        facts=facts,
        polarity=polarity(text),
        stance=stance(text),
        words=len(words),
        function_words=sum(token.is_stop for token in words) / max(1, len(words)),
        hedge=_first("hedges", lower),
        restriction=_first("restrictions", lower),
    )


def _first(name: str, text: str) -> str:
    """The first of the ontology's phrases ``name`` in ``text``, or ""."""
    found = pattern(name).search(text)
    return found[0] if found else ""


def _facts(text: str) -> tuple[dict[Fact, int], Doc]:
    """The facts of a clean text with the number of the sentence that says each first, and the parsed text."""
    reader = _reader()
    # "No, it shortens QT" denies nothing after the comma.
    doc, spans = reader.spans(plain(_VERDICT.sub("", text)))
    facts: dict[Fact, int] = {}
    sentence = [number for number, sent in enumerate(doc.sents) for _ in range(sent.start, sent.end)]
    for position, span in enumerate(spans):
        slot, value = reader.labels.get(span.label_, (WORD, span[0].norm_))
        negated = bool(span._.negex)
        if slot.startswith(DIRECTION):
            slot = f"{slot} {_target(position, spans, sentence, reader.labels)}"
        facts.setdefault(Fact(slot, value, negated), sentence[span.start])
    for fact in (*leads(text), *quantities(text)):
        facts.setdefault(fact, 0)
    return facts, doc


def _target(position: int, spans: list[Span], sentence: list[int], labels: dict) -> str:
    """What a direction is about: the nearest wave or interval, else the nearest other term, of the sentence."""
    span = spans[position]
    best, rank = "", (2, 99)
    for other in spans[max(0, position - NEIGHBOURS) : position + NEIGHBOURS + 1]:
        slot, value = labels.get(other.label_, (WORD, other[0].norm_))
        if other is span or slot.startswith(DIRECTION) or sentence[other.start] != sentence[span.start]:
            continue
        gap = other.start - span.end if other.start >= span.end else span.start - other.end + 1
        if gap < NEIGHBOURS and (candidate := (slot != WAVE, gap)) < rank:
            best, rank = value, candidate
    return best


def leads(text: str) -> list[Fact]:
    """The leads that a text names, ranges such as V1-V3 written out. A lone I, II or III needs the word lead."""
    found: list[Fact] = []
    for match in _LEAD_LIST.finditer(text):
        intro = (match["intro"] or "").strip().lower()
        items = re.findall(_LEAD, match["list"])
        if intro in _NO_LEADS or not intro and len(items) == 1 and items[0].startswith("I"):
            continue
        for first, last in _RANGE.findall(match["list"]):
            items += [f"V{number}" for number in range(int(first), int(last) + 1)]
        before = _before(text, match.start())
        negated = bool(_NOT.search(before) or _DENIED_BEFORE.search(before) or _SPARED.match(text, match.end()))
        found += [Fact(LEAD, _lead_name(item), negated) for item in items]
    return list(dict.fromkeys(found))


def _lead_name(text: str) -> str:
    if text[0] in "aA":
        return f"aV{text[2].upper()}"
    return text.upper()


def _before(text: str, position: int) -> str:
    return text[max(0, position - _BEFORE) : position]


def quantities(text: str) -> list[Fact]:
    """The numbers of a text, converted to one unit a dimension; ``number`` is that of those without a unit."""
    found = []
    for match in _QUANTITY.finditer(text):
        dimension, factor = _UNITS.get((match["unit"] or "").lower(), ("number", 1.0))
        ends = [_signed(match[name], dimension) * factor for name in ("low", "high") if match[name]]
        low, high = min(ends), max(ends)
        before = _before(text, match.start())
        if _MOST.search(before) or _OR_LESS.match(text, match.end()):
            low = -math.inf
        elif _LEAST.search(before) or _OR_MORE.match(text, match.end()):
            high = math.inf
        found.append(Fact(dimension, f"{low:g} {high:g}", negated=bool(_NOT.search(before))))
    return found


def is_measure(word: str) -> bool:
    """Whether a word is a number, in digits or not, or one of a unit."""
    return like_num(word) or word.lower() in _UNIT_WORDS or word.lower().removesuffix("s") in _UNIT_WORDS


def _signed(number: str, dimension: str) -> float:
    """A depression of -2 mm and one of 2 mm are the same; an axis of -30 degrees is none of 30."""
    value = float(re.sub(r"plus\s|\+", "", re.sub(r"minus\s", "-", number.lower())))
    return value if dimension in SIGNED else abs(value)
