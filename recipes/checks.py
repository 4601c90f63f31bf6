"""A line of the doctor's report."""

from collections.abc import Iterable
from dataclasses import dataclass

DEMO = "demo (synthetic, made by the recipe)"


@dataclass(frozen=True)
class Check:
    """One line of the report; ``status`` is ok, warn (may go wrong) or fail (the recipe can't run)."""

    name: str
    found: str
    status: str = "ok"
    remedy: str = ""


def problems(checks: Iterable[Check], status: str) -> str:
    """The checks with this status, in one line; empty where there are none."""
    return " | ".join(f"{check.name}: {check.found}; {check.remedy}" for check in checks if check.status == status)
