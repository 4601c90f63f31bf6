"""The quantities that a text names, and whether two of them agree."""

import functools
import math
import re
from collections.abc import Sequence

from spacy.lang.en.lex_attrs import like_num
from spacy.lang.en.stop_words import STOP_WORDS

from reward_fns.ecg_grader.facts import AFFIRMED, DENIED, Quantity
from reward_fns.ecg_grader.negation import before, denies_next
from reward_fns.ecg_grader.ontology import stem
from reward_fns.ecg_grader.parameters import OVERLAP, TOLERANCE
from reward_fns.ecg_grader.units import NUMBER, spelled_alike, unit, unit_at, usual_factors

# 1,200 has a comma between thousands, 0,12 a decimal comma. The list 1,2,3 has three numbers.
_NUMERAL = r"(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?![\d,]\d)|\d+\.\d+|(?<!\d,)\d+,\d+(?!,?\d)|\d+|\.\d+)"
_POWER = r"(?:\s*[x×]\s*10\s*\^?\s*[-+]?\d+)?"
_SIGN = r"(?:[-+]|(?:minus|plus)\s)?"
_NUMBER = re.compile(rf"(?<![\w.])(?<![a-z]-)(?!(?:19|20)\d0s\b){_SIGN}{_NUMERAL}{_POWER}(?![a-z]*\d)")
_TO = re.compile(rf"\s*(?:-|to|and)\s*(?={_SIGN}{_NUMERAL})")
_NOUN = re.compile(r"\s*-?\s*([a-z]{3,})")
# What stands before and after a number makes it a bound.
_MOST = re.compile(
    r"(?:(?:less|lower|shorter|smaller|fewer|(?:no|not) (?:more|longer|greater|higher)) than|below|under|up to|at most"
    r"|not exceed(?:ing)?|(?:never|not) (?:above|over)|≤|<=?)(?: or equal to)?(?: about| a| an)?\s*$"
)
_LEAST = re.compile(
    r"(?:(?:more|greater|longer|higher|larger|wider|(?:no|not) (?:less|shorter|lower)) than|above|over|beyond|at least"
    r"|exceed(?:s|ing)?|(?:never|not) (?:below|under)|≥|>=?)(?: or equal to)?(?: about| a| an)?\s*$"
)
_OR_MORE = re.compile(r"\s*(?:or|and) (?:more|longer|greater|higher|above|over)\b")
_OR_LESS = re.compile(r"\s*(?:or|and) (?:less|shorter|lower|below|under)\b")
_SIGNED = ("degree", "volt", NUMBER)
# The dimensions in which a dose is given. One in place of another is a wrong dose.
DOSES = frozenset(("gram", "liter", "unit", "mole", "gram / body_kilogram", "unit / body_kilogram"))


def quantities(text: str) -> list[Quantity]:
    """The quantities in a clean text, in the base units of ``units.txt``."""
    text = spelled_alike(text)
    found: list[Quantity] = []
    end = 0
    while match := _NUMBER.search(text, end):
        start, end = match.span()
        numbers = [match[0]]
        of_number, end = unit_at(text, end)
        if (to := _TO.match(text, end)) and (second := _NUMBER.match(text, to.end())):
            of_second, after = unit_at(text, second.end())
            between = to[0].strip() == "and" and "between" not in before(text, start)[-10:]
            if not between or of_number is None:  # "75 bpm and 90 mmHg" are two quantities
                numbers.append(second[0])
                of_number, end = of_second or of_number, after
        found.append(_quantity(text, start, end, numbers, of_number.name if of_number else ""))
    return found


def _quantity(text: str, start: int, end: int, numbers: list[str], name: str) -> Quantity:
    of = unit(name) if name else None
    dimension, factor = (of.dimension, of.factor) if of else (NUMBER, 1.0)
    ends = [_signed(number, dimension) * factor for number in numbers]
    low, high = min(ends), max(ends)
    preceding = before(text, start)
    if _MOST.search(preceding) or _OR_LESS.match(text, end):
        low = -math.inf
    elif _LEAST.search(preceding) or _OR_MORE.match(text, end):
        high = math.inf
    if not of and (noun := _NOUN.match(text, end)) and not _says_no_unit(noun[1]):
        name = stem(noun[1])
    state = DENIED if denies_next(preceding) else AFFIRMED
    return Quantity(dimension, _rounded(low), _rounded(high), name, state)


def _says_no_unit(word: str) -> bool:
    """Whether a word after a number tells how or when, not what is counted."""
    return word in STOP_WORDS or word.endswith("ly") or word in ("bolus", "infusion", "push", "then", "dose", "daily")


def is_measure(word: str) -> bool:
    """Whether a word is a number, in digits or not, or one of a unit."""
    return like_num(word) or unit(word.lower()) is not None


def agree(quantity: Quantity, other: Quantity) -> bool:
    """Whether two quantities agree, whatever their negation.

    A number without a unit may be in any usual unit of the other's dimension. A number of things that are no unit, such
    as "3 beats" or "2 tablets", agrees with numbers alone.
    """
    if quantity.dimension == other.dimension:
        return _near((quantity.low, quantity.high), (other.low, other.high))
    if NUMBER not in (quantity.dimension, other.dimension):
        return False
    bare, full = (quantity, other) if quantity.dimension == NUMBER else (other, quantity)
    if bare.unit:
        return full.dimension == "dimensionless" and _near((bare.low, bare.high), (full.low, full.high))
    factors = usual_factors(full.dimension)
    return any(_near((bare.low * factor, bare.high * factor), (full.low, full.high)) for factor in factors)


def other_unit(quantity: Quantity, other: Quantity) -> bool:
    """Whether ``other`` has the number of ``quantity``, but a unit that is none of its dimension: 300 mL for 300 mg."""
    if quantity.dimension in (NUMBER, other.dimension) or not other.unit:
        return False
    if other.dimension == NUMBER and quantity.dimension not in DOSES:
        return False  # "100 times" counts what a rate counts
    return _near(_as_written(quantity), _as_written(other))


def _as_written(quantity: Quantity) -> tuple[float, float]:
    of = unit(quantity.unit) if quantity.dimension != NUMBER else None
    factor = of.factor if of else 1.0
    return quantity.low / factor, quantity.high / factor


def _rounded(value: float) -> float:
    """Six digits, so that 400 ms and 0.4 s are one number."""
    return float(f"{value:.6g}")


@functools.lru_cache(maxsize=4096)
def _value(number: str) -> float:
    """The value of a numeral in one of the spellings of ``_NUMBER``, without its sign."""
    mantissa, _, exponent = re.sub(r"[\s^]", "", number).replace("×", "x").partition("x10")
    if re.fullmatch(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?", mantissa):
        mantissa = mantissa.replace(",", "")
    return float(mantissa.replace(",", ".")) * 10.0 ** int(exponent or 0)


def _signed(number: str, dimension: str) -> float:
    """A depression of -2 mm and one of 2 mm are the same; an axis of -30 degrees is none of 30."""
    number = re.sub(r"plus\s|^\+", "", re.sub(r"minus\s", "-", number))
    value = _value(number.lstrip("-"))
    return -value if number.startswith("-") and dimension in _SIGNED else value


def _near(ends: Sequence[float], other_ends: Sequence[float]) -> bool:
    """Whether two ranges (least, most) agree within the tolerance, or overlap nearly all.

    A bound such as "over 120 ms" agrees with the same bound, and with a number or range that ends there.
    """
    (low, high), (other_low, other_high) = ends, other_ends
    same_low, same_high = _close(low, other_low), _close(high, other_high)
    if not all(map(math.isfinite, (*ends, *other_ends))):
        return same_low and math.isfinite(low) or same_high and math.isfinite(high)
    if same_low and same_high:
        return True
    widest = max(high - low, other_high - other_low)
    return widest > 0 and min(high, other_high) - max(low, other_low) >= OVERLAP * widest


def _close(value: float, other: float) -> bool:
    return value == other or abs(value - other) <= TOLERANCE * min(abs(value), abs(other))
