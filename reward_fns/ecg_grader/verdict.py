"""Yes or no: what an answer to such a question says, in that word or in others."""

import re

from reward_fns.ecg_grader.ontology import ontology, pattern
from reward_fns.ecg_grader.text import SENTENCE_END, Text

# "If you cannot wait, you may ..." permits.
_CONDITION = re.compile(r"\b(?:if|unless|while|when|where|until|because|since|although|though)\b[^,.;]*(?:[,.;]|$)")
_DENIED = re.compile(r"\b(?:not|never|hardly|no|nothing|nobody)\b[^,.;]*$")


def polarity(text: Text) -> str:
    """``yes``, ``no`` or ``both``, whichever of the ontology's openings ``text`` begins with, else ""."""
    beginning = re.sub(r"^\W+", "", text.spelled_out).lower()
    matches = ((verdict, pattern("openings", verdict).match(beginning)) for verdict in ontology()["openings"])
    return max(((match.end(), verdict) for verdict, match in matches if match), default=(0, ""))[1]


def stance(text: Text) -> str:
    """``polarity``, or else that of the first sentence which permits or refuses something, of the first two."""
    if verdict := polarity(text):
        return verdict
    for sentence in SENTENCE_END.split(text.spelled_out)[:2]:
        sentence = _CONDITION.sub("", sentence.lower())
        yes, no = (pattern("stances", verdict).search(sentence) for verdict in ("yes", "no"))
        if no and not (yes and yes.end() < no.start()):  # not "you may, though it may not ..."
            return "no"
        if yes and not _DENIED.search(sentence[: yes.start()]):
            return "yes"
    return ""
