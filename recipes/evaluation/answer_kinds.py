"""A way to sort wrong answers by what is wrong with them, for tables and charts of several runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AnswerKinds:
    """What a recipe's wrong answers are counted by.

    ``name`` is that of files and of keys in JSON, ``title`` that of tables and charts. ``count`` gives, for the samples
    of a run, kind -> ``wrong``, the number of answers of that kind, and ``whole``, the number that it is a share of:
    ``share_of`` says of what. It gives {} where nothing is counted.
    """

    name: str
    title: str
    whole: str
    share_of: str
    count: Callable[[Sequence[Any]], dict[str, dict[str, int]]]
