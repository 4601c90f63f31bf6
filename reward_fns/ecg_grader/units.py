"""Units of clinical texts. pint carries prefixes and dimensions; ``units.txt`` lists the units."""

import functools
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pint

NUMBER = "number"  # the dimension of a number without a unit, or with a word that is no unit
# Units in which people leave the unit out: "a QRS duration of 120" is in milliseconds.
EVERYDAY = (
    *("us", "ms", "s", "min", "hour", "day", "week", "month", "year", "mm", "cm", "m", "uv", "mv", "v", "hz", "bpm"),
    *("mcg", "mg", "g", "kg", "ml", "l", "unit", "mmhg", "kpa", "j", "degree", "percent", "celsius", "fahrenheit"),
    *("mmol", "mmol/l", "mg/dl", "g/dl", "mcg/l", "ng/ml", "pg/ml", "mg/kg", "mcg/kg/min", "ml/min", "mm/s"),
)
_WORD = r"(?:[a-zμ_]+|°[cf]?|%)"
_PER = r"(?:\s*/\s*|\s+(?:per|an?|each|every)\s+)"
_RECIPROCAL = r"\s*(?:\^\s*)?-\s?1(?!\d)"
_FACTOR = rf"{_WORD}(?:{_RECIPROCAL})?"
_EXPRESSION = re.compile(rf"\s*-?\s*(?P<per>/\s*|per\s+)?(?P<units>{_FACTOR}(?:{_PER}{_WORD}|\s{_WORD}{_RECIPROCAL})*)")
_SPELLINGS = (
    (re.compile(r"\bmm\s+hg\b"), "mmhg"),
    (re.compile(r"(?:°|\bdeg(?:rees?)?)\s*(c|f)(?:elsius|ahrenheit)?\b"), r"°\1"),
    (re.compile(r"\bper\s+cent\b"), "percent"),
    (re.compile(r"\binternational\s+units?\b"), "iu"),
    (re.compile(r"\b(?:small|little)\s+(?:squares?|box(?:es)?)\b"), "small_square"),
    (re.compile(r"\b(?:large|big)\s+(?:squares?|box(?:es)?)\b"), "large_square"),
)
_NAMES = {"°": "degree", "%": "percent", "°c": "celsius", "°f": "fahrenheit"}
# "pm" and "am" are times of the day, "as" and "do" are words.
_NO_UNITS = frozenset(("pm", "am", "as", "do", "per", "a", "an", "in", "at", "is"))
# How often, not how much: "300 mg a day" is compared with "300 mg daily".
_FREQUENCIES = frozenset(("day", "week", "month", "year"))


@dataclass(frozen=True)
class Unit:
    """``dimension`` is what pint reduces the unit to, such as ``second``; ``factor`` converts a number to that."""

    name: str
    dimension: str
    factor: float


def spelled_alike(text: str) -> str:
    """``text`` in lower case with units of several words as one word."""
    text = text.lower()
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    return text


def unit_at(text: str, position: int) -> tuple[Unit | None, int]:
    """The unit that begins at ``position`` of a text from ``spelled_alike``, and where it ends."""
    match = _EXPRESSION.match(text, position)
    if not match:
        return None, position
    name, end = match["units"], match.end()
    while name:  # "mg a patient" is "mg"
        if found := unit(("1/" if match["per"] else "") + name):
            return found, end
        shorter = re.sub(rf"(?:{_PER}|\s){_WORD}(?:{_RECIPROCAL})?$", "", name)
        if shorter == name:
            break
        end -= len(name) - len(shorter)
        name = shorter
    return None, position


@functools.lru_cache(maxsize=4096)
def unit(name: str) -> Unit | None:
    """The unit that an expression such as ``mcg/kg/min`` names, or None."""
    below = re.sub(rf"^({_WORD}){_RECIPROCAL}", r"1/\1", name)
    parts = re.split(_PER, re.sub(rf"\s({_WORD}){_RECIPROCAL}", r"/\1", below))
    reciprocal = parts[0].strip() == "1"
    known = [_registered(part.strip(), below=reciprocal or place > 0) for place, part in enumerate(parts[reciprocal:])]
    if None in known or not known:
        return None
    if not reciprocal:
        known = known[:1] + [each for each in known[1:] if str(each) not in _FREQUENCIES]
    product = 1 / known[0] if reciprocal else known[0]
    for each in known[1:]:
        product = product / each
    factor, base = _registry().get_base_units(product)
    return Unit(name, str(base), float(factor))


def usual_factors(dimension: str) -> list[float]:
    """The factors of the everyday units of a dimension."""
    return _everyday().get(dimension, [])


@functools.cache
def _everyday() -> dict[str, list[float]]:
    factors: dict[str, list[float]] = {}
    for each in filter(None, map(unit, EVERYDAY)):
        factors.setdefault(each.dimension, []).append(each.factor)
    return factors


@functools.lru_cache(maxsize=4096)
def _registered(word: str, below: bool) -> pint.Unit | None:
    """A single unit; ``below`` tells whether it stands below the line, where a kilogram is the patient's."""
    word = _NAMES.get(word, word)
    if word in _NO_UNITS:
        return None
    if below and word in ("kg", "kilogram"):
        word = "body_kilogram"
    for spelling in (word, word.removesuffix("s")):  # mls
        with suppress(pint.UndefinedUnitError, ValueError):  # ValueError: a word with a number in it, such as "2s"
            return _registry().parse_units(spelling)
    return None


@functools.cache
def _registry() -> pint.UnitRegistry:
    return pint.UnitRegistry(Path(__file__).with_name("units.txt"))
