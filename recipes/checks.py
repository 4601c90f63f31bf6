"""A line of the doctor's report."""

from dataclasses import dataclass

DEMO = "demo (synthetic, made by the recipe)"


@dataclass(frozen=True)
class Check:
    """One line of the report; ``status`` is ok, warn (may go wrong) or fail (the recipe can't run)."""

    name: str
    found: str
    status: str = "ok"
    remedy: str = ""
