"""A figure that runs are compared by."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """The mean of ``value`` over the questions that ``belongs`` takes.

    ``settings``: the options of ``evaluate`` that the figure depends on. Runs that differ in one of them are not
    compared by the figure.
    """

    belongs: Callable[[Any], bool]
    value: Callable[[Any], float]
    settings: tuple[str, ...] = ()
