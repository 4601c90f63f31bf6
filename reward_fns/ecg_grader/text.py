"""A text in one spelling, and its words."""

import functools
import html
import re
import unicodedata

from spacy.lang.en.stop_words import STOP_WORDS

from reward_fns.ecg_grader.ontology import boilerplate, ontology, phrases, stem, synonyms

MAX_CHARS = 3_000  # of a text that is read; longer ones are cut
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
# "left or right bundle branch block"
_SHARED_NOUN = re.compile(
    r"\b(left|right|anterior|inferior|lateral|posterior|septal|atrial|ventricular|sinus) (and/or|and|or) "
    r"((?:left|right|anterior|inferior|lateral|posterior|septal|atrial|ventricular|sinus|bi)\w*) "
    r"(bundle branch block|ventricular \w+|atrial \w+"
    r"|(?!(?:in|is|are|was|were|of|with|on|to|for|at|as|may|can|and|or)\b)\w+)",
    re.IGNORECASE,
)
_ISE = re.compile(r"\b(?!(?:exerc|prec|conc|otherw|comprom)is)(\w{3,})is(e|es|ed|ing|ation)\b")
_MARKER = r"(?:\(?\d{1,2}[.)]|[-*\u2022\u2023\u25e6])\s+"
_FIRST_ITEM = re.compile(rf"(^|[:.;!?]\s*)\n?\s*{_MARKER}(?=\D)")
_ITEM = re.compile(rf"([^:.;!?,\s])[^\S\n]*[,;]?\n\s*{_MARKER}(?=\D)")
# A narrow or fixed space between the digits of a number; a space of another width separates two numbers.
_THOUSANDS = re.compile(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))")
_RAISED = re.compile(r"(?<=[\w°])[\u2070\u00b9\u00b2\u00b3\u2074-\u207b]+")
_QUOTES = str.maketrans("\u2018\u2019\u201a\u201b\u2032\u201c\u201d\u201e\u2033", '\'\'\x27\x27\x27""""')
_CONTRACTED = {"re": " are", "s": " is", "d": " would", "ll": " will"}
_BRITISH = {
    "aemi": "emi", "haem": "hem", "oedem": "edem", "oesoph": "esoph", "anaes": "anes", "paed": "ped", "pnoea": "pnea",
    "rrhoea": "rrhea", "oestr": "estr", "foet": "fet", "caesar": "cesar", "gynaec": "gynec", "leucocyt": "leukocyt",
    "aetiol": "etiol", "sulph": "sulf", "fibre": "fiber", "centre": "center", "metre": "meter", "litre": "liter",
    "tumour": "tumor", "favour": "favor", "behaviour": "behavior", "colour": "color", "labour": "labor",
    "catheteris": "catheteriz", "analyse": "analyze", "programme": "program", "judgement": "judgment",
}  # fmt: skip


class Text:
    """The first ``MAX_CHARS`` characters of a text, put into one spelling once, step by step."""

    def __init__(self, raw: str) -> None:
        self.raw = raw[:MAX_CHARS]

    @functools.cached_property
    def clean(self) -> str:
        """One kind of dash and space, "not" written out, and a shared noun after each of its adjectives."""
        return _clean(self.raw)

    @functools.cached_property
    def lower(self) -> str:
        """``clean`` in lower case."""
        return self.clean.lower()

    @functools.cached_property
    def spelled_out(self) -> str:
        """``clean`` with "is", "are" and "will" written out, too."""
        return _spelled_out(self.clean)

    @functools.cached_property
    def words(self) -> list[str]:
        """Its words in American spelling, numbers among them."""
        return re.findall(r"[A-Za-z0-9]+(?:[.][0-9]+)?", plain(self.spelled_out))


def unlisted(text: str) -> str:
    """``text`` with the lines of a numbered or bulleted list as items between commas."""
    return _FIRST_ITEM.sub(r"\1 ", _ITEM.sub(r"\1, ", text))


def copied_share(text: str, source: str) -> float:
    """Share of the content words of ``text`` that stand in ``source``, by their stems; 0 for a text without any."""
    stems = [stem(word) for word in Text(text).words if content_stem(word)]
    known = {stem(word) for word in Text(source).words}
    return sum(each in known for each in stems) / max(1, len(stems))


def content_stem(word: str) -> str | None:
    """What stands for a word and its synonyms; None for one such as "the"."""
    return None if word.lower() in STOP_WORDS else synonyms().get(stem(word), stem(word))


def says_little(word: str) -> bool:
    """Whether a word is one of the ontology's boilerplate."""
    return stem(word) in boilerplate()


def plain(text: str) -> str:
    """Hyphens and slashes between letters are spaces; spelling is American."""
    text = re.sub(r"(?<=[A-Za-z])[-/](?=[A-Za-z])", " ", text)
    text = _ISE.sub(r"\1iz\2", text)
    for british, american in _BRITISH.items():
        text = text.replace(british, american).replace(british.capitalize(), american.capitalize())
    return text


def _clean(text: str) -> str:
    text = html.unescape(text.encode("utf-8", "ignore").decode())
    text = _THOUSANDS.sub("", unlisted(text))
    text = _RAISED.sub(lambda raised: f"^{raised[0]}", text)
    text = unicodedata.normalize("NFKC", text)
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")  # of no width
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", text).translate(_QUOTES).replace("*", "")
    # Runs of one character and words over 60, on which spaCy is slow, are broken up.
    text = re.sub(r"(\D)\1{5,}", r"\1\1\1", " ".join(text.split()))
    text = _SHARED_NOUN.sub(r"\1 \4 \2 \3 \4", text)
    text = re.sub(r"\bcan't\b", "cannot", text, flags=re.IGNORECASE)
    text = re.sub(r"\bwon't\b", "will not", text, flags=re.IGNORECASE).replace("n't", " not")
    text = _abbreviation().sub(lambda short: ontology()["abbreviations"][short[0]], text)
    return re.sub(r"\S{60}", r"\g<0> ", text)


@functools.cache
def _abbreviation() -> re.Pattern:
    return re.compile(rf"\b(?:{phrases(ontology()['abbreviations'])})\b")


def _spelled_out(text: str) -> str:
    return re.sub(r"(?<=\w)'(re|s|d|ll)\b", lambda match: _CONTRACTED[match[1]], text)
