"""Wrong and right variants of reference answers, made by rules that know nothing of the grader.

A wrong variant changes one key fact of the reference, a right one says the same in another form. The words stand in
``ecg_variants.yaml``. Nothing here imports the grader or its ontology: a rule that both share would hide its faults.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from html import escape
from math import ceil
from pathlib import Path

import yaml

OPENING_WORDS = 6  # a comma after fewer words ends an opening ("Yes,", "In children,"), not the statement
STEM = 5  # first letters that forms of a word share: elevation, elevated
LONG_STEM = 9  # of words with a prefix that many share: hyperkalemia, hypertension
FOREIGN = re.compile("[\u3400-\u9fff]")  # bytes of another code page, read as Chinese: "120掳" for "120°"
BACK = re.compile(  # a sentence that begins so refers to the one before
    r"(?:Its|Their|That|He|She|However|Additional\w*|Also|Further\w*|Moreover|Other|Both|In addition|Therefore|Thus|"
    r"Hence|Instead|Otherwise|The (?:latter|former|\w+ing)|Then|Here|Similarly|Conversely)\b"
)


@dataclass(frozen=True)
class Asked:
    """A question with its reference answer."""

    question: str
    reference: str


@dataclass(frozen=True)
class Variant:
    """``text`` answers ``asked``; ``kind`` names the rule that made it, ``right`` says whether it is right."""

    kind: str
    right: bool
    asked: Asked
    text: str


Rule = Callable[[Asked], Iterable[str]]


@cache
def words() -> dict:
    """``ecg_variants.yaml``."""
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


END = re.compile(r"[.!?](?=\s+[A-Z]|$)|[,;:]\s|\s(?=such as|including|like|e\.g\.|while|whereas|rather)")


def key_end(reference: str) -> int:
    """Where the first statement ends: at its sentence's end, or where reasons, examples and contrasts begin."""
    for match in END.finditer(reference):
        if match[0] in ".!?" or len(reference[: match.start()].split()) >= OPENING_WORDS:
            return match.end()
    return len(reference)


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", text)


def replaced(text: str, start: int, end: int, new: str) -> str:
    """``text`` with ``new`` in place of ``text[start:end]``, with its capital and with the article that fits."""
    before = text[:start]
    if new[0].islower():
        article = "an" if new[0] in "aeiou" else "a"
        before = re.sub(r"\b(a)n? $", rf"\1{article[1:]} ", before, flags=re.IGNORECASE)
        if text[start].isupper() and text[start + 1 : start + 2].islower():
            new = capital(new)
    return before + new + text[end:]


def alternatives(texts: Iterable[str]) -> str:
    """A pattern for any of ``texts``, the longest first."""
    return "|".join(map(re.escape, sorted(texts, key=lambda text: (-len(text), text))))


# Wrong variants: words that are exchanged


@dataclass(frozen=True)
class Table:
    """One of ``swaps`` in the word lists; see there."""

    words: dict[str, tuple[str, ...]]
    pattern: re.Pattern[str]
    outside: re.Pattern[str] | None
    single: bool
    whole: bool

    def stem(self, word: str) -> str:
        """The beginning that tells this word from others of the table."""
        if self.whole:
            return word.lower()
        first = word.lower().split()[0]
        return first[: LONG_STEM if first.startswith(("hyper", "hypo")) else STEM]

    def leaves(self, asked: Asked, start: int) -> bool:
        """Whether a phrase in which no word is changed covers ``start``."""
        found = self.outside.finditer(asked.reference) if self.outside else ()
        return any(phrase.start() <= start < phrase.end() for phrase in found)


@cache
def tables(kind: str) -> list[Table]:
    return [read_table(entry) for entry in words()["swaps"] if entry["kind"] == kind]


def read_table(entry: dict) -> Table:
    exchange: dict[str, list[str]] = {word: list(new) for word, new in entry.get("words", {}).items()}
    for first, second in entry.get("pairs", []):
        exchange.setdefault(first, []).append(second)
        exchange.setdefault(second, []).append(first)
    before = f"(?<!\\w)(?:{entry['before']})" if "before" in entry else r"(?<![\w-])"
    after = f"(?={entry['after']})" if "after" in entry else r"(?![\w-])"
    outside = "|".join(entry.get("outside", []))
    return Table(
        words={word.lower(): tuple(new) for word, new in exchange.items()},
        pattern=re.compile(f"{before}({alternatives(exchange)}){after}", re.IGNORECASE),
        outside=re.compile(rf"\b(?:{outside})", re.IGNORECASE) if outside else None,
        single=entry.get("single", False),
        whole=entry.get("whole", False),
    )


def occurrences(stem: str, text: str, whole: bool) -> int:
    """How often ``stem`` begins a word of ``text``, or is one if ``whole``."""
    return len(re.findall(rf"(?<![a-z]){re.escape(stem)}{'(?![a-z])' if whole else ''}", text.lower()))


def swap(kind: str) -> Rule:
    """The rule that exchanges a word of ``kind`` in the key part.

    The word stands once in the reference and its substitute not at all. The question names neither of them, or both:
    a word that it names is its subject rather than the answer. What is denied, or is one thing of several, stays as
    it is.
    """

    def variants(asked: Asked) -> Iterator[str]:
        key = asked.reference[: key_end(asked.reference)]
        if " or " in key or NEGATION.search(key) or is_list(asked.reference, len(key)):
            return
        for table in tables(kind):
            for match in table.pattern.finditer(asked.reference, 0, len(key)):
                start, end = match.span(1)
                if not (table.single and others(kind, asked.reference, start, end)) and not table.leaves(asked, start):
                    for new in table.words[match[1].lower()]:
                        if exchangeable(table, match[1], new, asked):
                            yield replaced(asked.reference, start, end, new)

    return variants


LIST_SO_FAR = re.compile(r",[^,;:.]{2,60},? (?:and|or) ")
# What follows the first comma of a list; "indicating a block and a delay" follows a comma as well, and is none.
LIST_FROM_HERE = re.compile(
    r"(?!and |or )(?:[^.;:]{3,200}?, (?:and|or|along with) "
    r"|(?!\w+ing |which |with |due |often |usually |typically |particularly |where )[^,;.:]{0,80} (?:and|or) )"
)


def is_list(text: str, end: int) -> bool:
    """Whether ``text[:end]`` holds things of a list or begins one."""
    return bool(LIST_SO_FAR.search(text[: end + len("and ")]) or LIST_FROM_HERE.match(text, end))


def others(kind: str, text: str, start: int, end: int) -> bool:
    """Whether words of ``kind`` stand in ``text`` outside ``text[start:end]``."""
    rest = text[:start] + " " + text[end:]
    return any(re.search(rf"(?<!\w)(?:{alternatives(table.words)})\b", rest, re.I) for table in tables(kind))


def exchangeable(table: Table, old: str, new: str, asked: Asked) -> bool:
    def count(word: str, text: str) -> int:
        return occurrences(table.stem(word), text, table.whole)

    once = count(old, asked.reference) == count(old, old) and not count(new, asked.reference)
    return once and (count(old, asked.question) > 0) == (count(new, asked.question) > 0)


# Wrong variants: leads, numbers, units

LEAD = r"(?:aV[RLF]|V[1-9]R?|III|II|I)(?!\w)"
LEAD_GROUP = re.compile(rf"\b(leads?|electrodes?) ({LEAD}(?:(?:, and|,? or|,| and| to| through|-|–|/)? ?{LEAD})*)")
CERTAIN_LEAD = re.compile(r"\b(?:aV[RLF]|V[1-9])(?!\w)")  # also without the word "lead"
ANY_WALL = re.compile(r"ischa?emi|infarct|injur|\bSTEMI|reciprocal", re.I)
WALL = re.compile(r"anterior|inferior|lateral|sept|posterior|right ventric", re.I)


def leads(asked: Asked) -> Iterator[str]:
    """The only leads that the reference names, exchanged for others; the question names none."""
    groups = list(LEAD_GROUP.finditer(asked.reference))
    if len(groups) != 1 or groups[0].end() > key_end(asked.reference):
        return
    named = re.findall(rf"\b{LEAD}", groups[0][2])
    bare = re.sub(LEAD_GROUP, "", asked.reference)
    if any(CERTAIN_LEAD.search(text) or LEAD_GROUP.search(text) for text in (asked.question, bare)):
        return  # other leads are named
    if ANY_WALL.search(asked.reference) and not WALL.search(asked.question + asked.reference[: groups[0].end()]):
        return  # true of any leads
    if groups[0][1].endswith("s"):
        numbers = [int(name[1]) for name in named if name[0] == "V"]
        chest = range(min(numbers) - 1, max(numbers) + 2) if numbers else ()  # with their neighbours
        covered = {*named, *(f"V{number}" for number in chest)}
        candidates = [group for group in words()["lead_groups"] if not covered & {*re.findall(rf"\b{LEAD}", group)}]
    else:
        candidates = words()["single_leads"].get(named[0], []) if len(named) == 1 else []
    for new in candidates:
        yield replaced(asked.reference, *groups[0].span(2), new)


NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"


@cache
def quantity() -> re.Pattern[str]:
    """A number or a range, and its unit; no part of a compound unit, a ratio or a name."""
    units = alternatives(words()["units"])
    return re.compile(
        rf"(?<![\w.,:/+−-])(?P<low>[-+−]?{NUMBER})(?:(?P<to> ?[-–] ?| to | and )(?P<high>[-+−]?{NUMBER}))?"
        rf"(?P<gap>[ -]?)(?P<unit>{units})(?![\w/²^]|-(?!old))"
    )


def only_quantity(asked: Asked) -> re.Match[str] | None:
    """The key part's quantity, where the reference holds no second one of its dimension, and the question none."""
    found = list(quantity().finditer(asked.reference))
    in_key = [match for match in found if match.end() <= key_end(asked.reference)]
    if not in_key or quantity().search(asked.question):
        return None
    dimension = words()["units"][in_key[0]["unit"]]["dimension"]
    same = [match for match in found if words()["units"][match["unit"]]["dimension"] == dimension]
    return in_key[0] if len(same) == 1 else None


def value(number: str) -> float:
    return float(number.replace(",", "").replace("−", "-"))


def times(number: str, factor: float) -> str:
    """``number`` multiplied, with its sign, without zeros at the end."""
    sign = "+" if number[0] == "+" else ""
    return sign + f"{value(number) * factor:.6f}".rstrip("0").rstrip(".")


def scaled(match: re.Match[str], factor: float) -> str:
    """The number or the range of a quantity, multiplied; without the unit."""
    low = times(match["low"], factor)
    return low if match["high"] is None else low + match["to"] + times(match["high"], factor)


def numbers(asked: Asked) -> Iterator[str]:
    """Twice, ten times or half as much; of a range one that does not meet the reference's."""
    match = only_quantity(asked)
    if match is None or not value(match["low"]):
        return
    if words()["units"][match["unit"]]["dimension"] == "angle":
        factors = [2]
    elif match["high"] is not None:
        factors = [10, ceil(2 * value(match["high"]) / value(match["low"]))]
    else:
        factors = [0.5] if match["unit"] in ("%", "percent") else [2, 10, 0.5]
    start, end = match.start("low"), match.end("high") if match["high"] else match.end("low")
    for factor in factors:
        yield asked.reference[:start] + scaled(match, factor) + asked.reference[end:]


def units(asked: Asked) -> Iterator[str]:
    """Another prefix, or another unit of the same dimension."""
    match = only_quantity(asked)
    for new in words()["units"][match["unit"]].get("wrong", []) if match else []:
        yield replaced(asked.reference, *match.span("unit"), new)


# Wrong variants: negation and verdict

NEGATION = re.compile(
    r"\b(?:not?|without|never|cannot|absen\w+|neither|nor|lack\w*|except|unless|fails?|rarely)\b|n't", re.IGNORECASE
)
CLAUSE = re.compile(
    r",|\b(?:which|that|when|if|while|who|although|because|since|as|where|once|whether|after|before)\b", re.IGNORECASE
)
HEDGE = (
    "primarily|mainly|usually|sometimes|often|typically|commonly|generally|only|always|just|also|first|best|most\\w*"
)
PLURAL = "indicate suggest show include involve cause reflect require represent reduce increase improve help appear"
PLURAL_VERBS = PLURAL.split()
SINGULAR_VERBS = [f"{verb}s" for verb in PLURAL_VERBS]
AUXILIARIES = {
    "is": "is not",
    "are": "are not",
    "can": "cannot",
    "may": "cannot",
    "should": "should not",
    "will": "will not",
    "has": "does not have",
    "have": "do not have",
    "do": "do not",
    "does": "does not",
    "must": "need not",
}
VERBS = "|".join([*AUXILIARIES, *PLURAL_VERBS, *SINGULAR_VERBS])
# "Causes of block include fever": a noun that looks like a verb.
FINITE = re.compile(rf"\b({VERBS})\b(?! (?:{HEDGE})\b)(?!(?<=s) (?:of|include|may|can)\b)(?=\s)")


def denied(verb: str) -> str:
    """A finite verb with its negation."""
    if verb in AUXILIARIES:
        return AUXILIARIES[verb]
    return f"does not {verb[:-1]}" if verb in SINGULAR_VERBS else f"do not {verb}"


AFFIRMED = (
    (r"\bcannot\b", "can"),
    (r"\b(is|are|does|do|should|can|was|were) not (?!only|just|necessarily|always|merely|limited)", r"\1 "),
    (r"\bwithout\b", "with"),
    (r"(?<![.!?] )(?<!^)\bno (?!longer|more|less|single)", ""),
    (r"\babsent\b(?! or)", "present"),
    (r"\babsence of\b", "presence of"),
    (r"\bAbsence of\b", "Presence of"),
)


def negations(asked: Asked) -> Iterator[str]:
    """The main verb of the first sentence is denied, or the reference's only negation is taken away."""
    if verdict_of(asked.reference):
        return
    end = key_end(asked.reference)
    if not NEGATION.search(asked.reference):
        match = FINITE.search(asked.reference, 0, end)
        before = asked.reference[: match.start()] if match else ""
        if before and not CLAUSE.search(before) and not before.endswith(("may ", "can ", "should ", "will ")):
            yield replaced(asked.reference, *match.span(), denied(match[1]))
    elif len(NEGATION.findall(asked.reference)) == 1 and not NEGATION.search(asked.question):
        for pattern, new in AFFIRMED:
            match = re.compile(pattern).search(asked.reference, 0, end)
            if match and not re.match("(?:While|Although|Though)", asked.reference):
                yield asked.reference[: match.start()] + match.expand(new) + asked.reference[match.end() :]


def verdict_of(reference: str) -> str:
    """ "Yes", "No" or ""."""
    match = re.match(r"(Yes|No)(?=[,.;:!]|$)", reference)
    return match[1] if match else ""


def verdict(asked: Asked) -> Iterator[str]:
    """The verdict alone."""
    if word := verdict_of(asked.reference):
        yield {"Yes": "No", "No": "Yes"}[word] + asked.reference[len(word) :]


SUBJECT = r"(?:you|it|this|they|patients|the (?:[\w-]+ ){1,6}?)"
VERDICT_CLAUSE = re.compile(
    rf"(Yes|No), ({SUBJECT}) ?\b(can|may|should|is|are|have|has|will)( ?not)?\b(?! (?:{HEDGE})\b)"
)


def verdict_and_clause(asked: Asked) -> Iterator[str]:
    """The verdict and the verb of its clause, so that the answer does not contradict itself."""
    match = VERDICT_CLAUSE.match(asked.reference)
    if not match or (match[1] == "No") != bool(match[4]) or NEGATION.search(asked.reference, match.end()):
        return
    new = f"No, {match[2].strip()} {denied(match[3])}" if match[1] == "Yes" else f"Yes, {match[2].strip()} {match[3]}"
    yield new + asked.reference[match.end() :]


# Right rewrites: order and layout


def uncapital(text: str) -> str:
    """``text`` as it stands inside a sentence."""
    first = re.match(r"[\w']+", text)
    if first and len(first[0]) > 1 and first[0][1:].islower() and first[0] not in words()["names"] or text[:2] == "A ":
        return text[0].lower() + text[1:]
    return text


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def clause_orders(asked: Asked) -> Iterator[str]:
    """ "X because Y." as "Because Y, X.", likewise "if", "when", "in patients with", and the other way round."""
    first, *rest = sentences(asked.reference)
    for new in (reason_first(first), reason_last(first)):
        if new:
            yield " ".join([new, *rest])


# A verb after "and", or a second condition: the reason may then belong to a part of the statement alone.
BRANCHING = re.compile(
    r"\b(?:that|which|who|unless|until|before|after|while|if|when|because|between|than|whether)\b|"
    r"\band (?:is|are|can|may|those|helps?|\w+s (?:a|an|the|\w+ing))\b|\binclud|\bby \w+ing\b"
)


def reason_first(sentence: str) -> str:
    match = re.fullmatch(r"([^,;:()]+?) (because|due to|if|when|in patients with|in case of) ([^,;:()]+)\.", sentence)
    if not match or BRANCHING.search(match[1]) or BRANCHING.search(match[3]) or " and " in match[1]:
        return ""
    finite = re.search(r"\b(?:is|are|can|may|should|must|will)\b|\w{4,}s\b", match[1])
    bound = re.search(r"\b(?:or|is|are|especially|particularly|usually|often|only|even|to|used|seen|\w+ly)$", match[1])
    return f"{capital(match[2])} {match[3]}, {uncapital(match[1])}." if finite and not bound else ""


def reason_last(sentence: str) -> str:
    match = re.fullmatch(r"(In|When|If|Because|During) ([^,;:()]+), ([^,;:()]+)\.", sentence)
    if not match or BRANCHING.search(match[3]) or " and " in match[3]:
        return ""
    if re.match(r"(?:addition|contrast|reality|general|summary|fact|particular)\b", match[2]):
        return ""
    pointing = re.search(r"\b(?:it|its|they|their|these|this|such)\b", match[3], re.I)
    return "" if pointing else f"{capital(match[3])} {match[1].lower()} {match[2]}."


POINTING = re.compile(r"\b(?:this|these|those|such|it|they)\b", re.IGNORECASE)


def sentence_orders(asked: Asked) -> Iterator[str]:
    """The last sentence first, where no sentence points back to another one."""
    first, *rest = sentences(asked.reference)
    if rest and not verdict_of(first) and not any(BACK.match(part) or POINTING.search(part) for part in rest):
        yield " ".join([rest[-1], first, *rest[:-1]])


PHRASE = r"([A-Z][^,;:.()]*?)"


@cache
def active_forms() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """ "X can cause Y." and "X causes Y."."""
    table = words()["passives"]
    bare = "|".join(form for form, _ in table.values())
    return (
        re.compile(rf"{PHRASE} (can|may|should) ({bare}) ([^,;:.()]+)\."),
        re.compile(rf"{PHRASE} ({'|'.join(table)}|{bare}) ([^,;:.()]+)\."),
    )


def participle(verb: str) -> str:
    return next(done for singular, (plural, done) in words()["passives"].items() if verb in (singular, plural))


def passives(asked: Asked) -> Iterator[str]:
    """The first sentence in the passive; one clause with a plain subject and object."""
    first, *rest = sentences(asked.reference)
    modal, plain = (form.fullmatch(first) for form in active_forms())
    match = modal or plain
    if not match or not all(map(is_phrase, (match[1], match[match.lastindex]))):
        return
    thing = match[match.lastindex]
    verb = participle(match[3] if modal else match[2])
    auxiliary = f"{match[2]} be" if modal else "are" if is_plural(thing) else "is"
    yield " ".join([f"{capital(thing)} {auxiliary} {verb} {uncapital(match[1])}.", *rest])


NO_PHRASE = re.compile(
    r"\b(?:which|that|who|is|are|can|may|by|to|because|due|when|if|while|but|and|also|often|as|\w+ly)\b|"
    r"\b(?:indicat|suggest|reflect|caus|increas|reduc|improv|lead|requir|affect|show|allow|help|provid|guid)"
)


def is_phrase(text: str) -> bool:
    """Whether ``text`` is one noun phrase, as far as its words tell."""
    return len(text.split()) <= 12 and not NO_PHRASE.search(text)


def is_plural(phrase: str) -> bool:
    head = re.split(r" (?:of|in|with|for|on|at|from|during|between|through|to|without|\w+ing)\b", phrase)[0]
    return bool(re.search(r"(?<![siu])s$", head))


LIST = re.compile(
    r"(?P<lead>[^:]*\b(?:including|includes?|such as|are|involves?))(?: the following)?:? "
    r"(?P<items>[^,;:.()]+(?:, [^,;:.()]+){1,8}),? (?P<word>and|or) (?P<last>[^,;:.()]+)\."
)
AWKWARD = re.compile(rf"(?:and|or|which|with|along|including|such|as|especially)\b|{LEAD}$")  # no item of a list


def list_items(asked: Asked) -> tuple[str, list[str], str] | None:
    """The words before the list, its items and what follows, where the first sentence ends in a list of short items."""
    first, *rest = sentences(asked.reference)
    match = LIST.fullmatch(first)
    if not match or match["word"] == "or":
        return None
    items = [*match["items"].split(", "), match["last"]]
    long = any(len(item.split()) > 7 or AWKWARD.match(item) for item in items)
    clauses = re.search(r"\b(?:is|are|can|may|which|that)\b", " ".join(items))
    joined = clauses or any(" and " in item for item in items[:-1])
    return None if long or joined or len(items) < 3 else (match["lead"], items, " ".join(rest))


def listed(mark: Callable[[int], str]) -> Rule:
    """The rule that writes each item of a list on a line of its own."""

    def variants(asked: Asked) -> Iterator[str]:
        if found := list_items(asked):
            lead, items, rest = found
            lines = [f"{mark(number)} {item}" for number, item in enumerate(items, 1)]
            yield "\n".join([f"{lead}:", *lines, *([rest] if rest else [])])

    return variants


# Right rewrites: spellings


def abbreviations(asked: Asked) -> Iterator[str]:
    """A term in its short form instead of its full one, or the other way round, wherever it stands."""
    text = asked.reference
    for short, full in words()["abbreviations"].items():
        both = re.compile(rf"\b{re.escape(full)} \({re.escape(short)}\)", re.IGNORECASE)
        is_short = re.compile(rf"(?<![\w(-]){re.escape(short)}(?![\w-])")
        is_full = re.compile(rf"(?<![\w-]){re.escape(full)}(?![\w-]| \()", re.IGNORECASE)
        if both.search(text):
            yield capital_as(text, both.sub(short, text))
            yield capital_as(text, both.sub(full, text))
        elif is_short.search(text) and full.lower() not in text.lower():
            yield capital_as(text, is_short.sub(full, text))
        elif is_full.search(text) and short not in text:
            yield is_full.sub(short, text)


def capital_as(old: str, new: str) -> str:
    return capital(new) if old[0].isupper() else new


def conversions(asked: Asked) -> Iterator[str]:
    """Quantities in another unit, with the numbers that belong to it."""
    for unit, factor, other in words()["conversions"]:
        found = [match for match in quantity().finditer(asked.reference) if match["unit"] == unit]
        text = asked.reference
        for match in reversed(found):
            gap = "" if other in "°%" else " "
            text = text[: match.start()] + scaled(match, factor) + gap + other + text[match.end() :]
        if found:
            yield text


def spellings(asked: Asked) -> Iterator[str]:
    """British for American spelling, or the other way round."""
    for there in (0, 1):
        text = asked.reference
        for pair in words()["spellings"]:
            old, new = pair[there], pair[1 - there]
            if new not in text.lower():
                text = re.sub(rf"({old[0]}){old[1:]}", lambda match, new=new: cased(match[1], new), text, flags=re.I)
        if text != asked.reference:
            yield text


def cased(first: str, new: str) -> str:
    return capital(new) if first.isupper() else new


def spaced(text: str, space: str) -> str:
    """``text`` with another space between numbers and units."""
    return quantity().sub(lambda match: match[0].replace(" " + match["unit"], space + match["unit"]), text)


def entities(asked: Asked) -> Iterator[str]:
    """HTML entities for the signs that have one."""
    text = escape(asked.reference).replace("–", "&ndash;").replace("µ", "&micro;").replace("°", "&deg;")
    text = spaced(text, "&nbsp;")
    if text != asked.reference:
        yield text


def unicode_signs(asked: Asked) -> Iterator[str]:
    """Unicode dashes, spaces and quotes for those of the keyboard."""
    text = re.sub(r"(?<=\d)-(?=[V\d])", "–", asked.reference)
    text = re.sub(r"(?<=\w)-(?=\w)", "\u2011", text)
    text = spaced(text, "\u202f").replace("'", "’")
    if text != asked.reference:
        yield text


def lead_words(asked: Asked) -> Iterator[str]:
    """ "leads II and III" as "lead II and lead III", "leads V1-V3" as "leads V1 to V3"."""
    text = LEAD_GROUP.sub(spelled_leads, asked.reference)
    if text != asked.reference:
        yield text


def spelled_leads(match: re.Match[str]) -> str:
    if re.search(r"-|–| to | through ", match[2]):
        return f"{match[1]} {re.sub('[-–]', ' to ', match[2])}"
    return re.sub(rf"\b(?={LEAD})", "lead ", match[2]) if match[1] == "leads" else match[0]


def first_letter(asked: Asked) -> Iterator[str]:
    """A small letter at the beginning, where no term begins there."""
    if (text := uncapital(asked.reference)) != asked.reference:
        yield text


WRONG: dict[str, Rule] = {
    "side": swap("side"),
    "artery": swap("artery"),
    "wall": swap("wall"),
    "lead": leads,
    "drug": swap("drug"),
    "unit": units,
    "number": numbers,
    "direction": swap("direction"),
    "degree": swap("degree"),
    "negation": negations,
    "verdict": verdict,
    "verdict and clause": verdict_and_clause,
}
RIGHT: dict[str, Rule] = {
    "clause order": clause_orders,
    "sentence order": sentence_orders,
    "passive": passives,
    "bullets": listed(lambda number: "-"),
    "numbered lines": listed(lambda number: f"{number}."),
    "abbreviation": abbreviations,
    "unit conversion": conversions,
    "spelling": spellings,
    "HTML": entities,
    "Unicode": unicode_signs,
    "lead words": lead_words,
    "first letter": first_letter,
}


def variants(asked: Asked, seed: int = 0) -> Iterator[Variant]:
    """At most one variant a kind, drawn from those that its rule makes; the same ones for the same seed."""
    if FOREIGN.search(asked.reference):
        return
    for right, rules in ((False, WRONG), (True, RIGHT)):
        for kind, rule in rules.items():
            texts = [text for text in dict.fromkeys(rule(asked)) if text != asked.reference]
            if texts:
                draw = random.Random(f"{seed} {kind} {asked.question} {asked.reference}")
                yield Variant(kind, right, asked, draw.choice(texts))
