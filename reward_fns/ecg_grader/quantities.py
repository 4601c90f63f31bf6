"""The quantities that a text names, and whether two of them agree."""

import math
import re
from collections.abc import Sequence

from spacy.lang.en.lex_attrs import like_num

from reward_fns.ecg_grader.facts import Quantity
from reward_fns.ecg_grader.negation import before, denies_next
from reward_fns.ecg_grader.parameters import OVERLAP, TOLERANCE

NUMBER = "number"  # the dimension of a number without a unit
_NUMERAL = r"\d+(?:\.\d+)?"
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
    rf"(?<![\w.])(?P<low>{_SIGN}{_NUMERAL})(?:\s*(?:{_UNIT})?s?\s*(?:-|to|and)\s*(?P<high>{_SIGN}{_NUMERAL}))?\s*"
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
_SIGNED = ("angle", "voltage", NUMBER)
DIMENSIONS = frozenset({dimension for dimension, _ in _UNITS.values()} | {NUMBER})
_FACTORS = {name: sorted({factor for other, factor in _UNITS.values() if other == name}) for name in DIMENSIONS}


def quantities(text: str) -> list[Quantity]:
    """The quantities in a clean text: times in seconds, masses in mg, lengths in mm."""
    found = []
    for match in _QUANTITY.finditer(text):
        dimension, factor = _UNITS.get((match["unit"] or "").lower(), (NUMBER, 1.0))
        ends = [_signed(match[name], dimension) * factor for name in ("low", "high") if match[name]]
        low, high = min(ends), max(ends)
        preceding = before(text, match.start())
        if _MOST.search(preceding) or _OR_LESS.match(text, match.end()):
            low = -math.inf
        elif _LEAST.search(preceding) or _OR_MORE.match(text, match.end()):
            high = math.inf
        found.append(Quantity(dimension, _rounded(low), _rounded(high), negated=denies_next(preceding)))
    return found


def is_measure(word: str) -> bool:
    """Whether a word is a number, in digits or not, or one of a unit."""
    return like_num(word) or word.lower() in _UNIT_WORDS or word.lower().removesuffix("s") in _UNIT_WORDS


def agree(quantity: Quantity, other: Quantity) -> bool:
    """Whether two quantities agree; one without a unit may be in any unit of the other's dimension.

    Their negation does not count.
    """
    if quantity.dimension == other.dimension:
        return _near((quantity.low, quantity.high), (other.low, other.high))
    if NUMBER not in (quantity.dimension, other.dimension):
        return False
    bare, full = (quantity, other) if quantity.dimension == NUMBER else (other, quantity)
    return any(
        _near((bare.low * factor, bare.high * factor), (full.low, full.high)) for factor in _FACTORS[full.dimension]
    )


def _rounded(value: float) -> float:
    """Six digits, so that 400 ms and 0.4 s are one number."""
    return float(f"{value:g}")


def _signed(number: str, dimension: str) -> float:
    """A depression of -2 mm and one of 2 mm are the same; an axis of -30 degrees is none of 30."""
    value = float(re.sub(r"plus\s|\+", "", re.sub(r"minus\s", "-", number.lower())))
    return value if dimension in _SIGNED else abs(value)


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
