"""Yes or no: what an answer to such a question says, in that word or in others."""

import functools
import re

from reward_fns.ecg_ontology import ontology
from reward_fns.ecg_words import SENTENCE_END

# "If you cannot wait, you may ..." permits.
_CONDITION = re.compile(r"\b(?:if|unless|while|when|where|until|because|since|although|though)\b[^,.;]*(?:[,.;]|$)")
_DENIED = re.compile(r"\b(?:not|never|hardly|no|nothing|nobody)\b[^,.;]*$")
_CONTRACTED = {"re": " are", "s": " is", "d": " would", "ll": " will"}


def polarity(text: str) -> str:
    """``yes``, ``no`` or ``both``, whichever of the ontology's openings ``text`` begins with, else ""."""
    text = _spelled_out(re.sub(r"^\W+", "", text))
    matches = ((verdict, _pattern("openings", verdict).match(text)) for verdict in ontology()["openings"])
    return max(((match.end(), verdict) for verdict, match in matches if match), default=(0, ""))[1]


def stance(text: str) -> str:
    """``polarity``, or else what the first of two sentences does that permits or refuses something."""
    if verdict := polarity(text):
        return verdict
    for sentence in SENTENCE_END.split(text)[:2]:
        sentence = _CONDITION.sub("", _spelled_out(sentence))
        yes, no = (_pattern("stances", verdict).search(sentence) for verdict in ("yes", "no"))
        if no and not (yes and yes.end() < no.start()):  # not "you may, though it may not ..."
            return "no"
        if yes and not _DENIED.search(sentence[: yes.start()]):
            return "yes"
    return ""


@functools.cache
def _pattern(name: str, verdict: str) -> re.Pattern:
    """What finds the ontology's phrases ``name`` of a verdict, the longest first."""
    phrases = sorted(ontology()[name][verdict], key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, phrases))})\b")


def _spelled_out(text: str) -> str:
    """In lower case, without contractions."""
    text = text.lower().replace("can't", "cannot").replace("won't", "will not").replace("n't", " not")
    return re.sub(r"'(re|s|d|ll)\b", lambda match: _CONTRACTED[match[1]], text)
