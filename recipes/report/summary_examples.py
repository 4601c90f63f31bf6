"""Three test questions with the answers of two runs: what got better, what is still wrong, what got worse."""

from collections.abc import Callable, Iterator
from typing import Any

from recipes.evaluation.results import Run
from recipes.report.compare_items import page_items

Item = dict[str, Any]  # as recipes.report.compare_items.page_items makes it

KINDS: dict[str, Callable[[Item], bool]] = {
    "better": lambda item: item["change"] > 0 and item["answers"][-1]["verdict"] == "good",
    "still wrong": lambda item: all(answer["verdict"] == "bad" for answer in item["answers"]),
    "worse": lambda item: item["change"] < 0,
}


def examples(runs: dict[str, Run]) -> dict[str, Item]:
    """One question of each kind that there is, by the kind; of the first run and the second.

    Of several questions, the one with the largest change is taken, and of these the first by its id.
    """
    first, second, *_ = runs
    items = page_items({label: runs[label] for label in (first, second)})
    chosen = {}
    for kind, belongs in KINDS.items():
        if found := [item for item in items if belongs(item)]:
            chosen[kind] = max(found, key=lambda item: abs(item["change"]))
    return chosen


def examples_markdown(chosen: dict[str, Item], labels: list[str]) -> Iterator[str]:
    """The lines of a section for ``summary.md``. Texts stand in code blocks: they are data, and may hold any markup."""
    yield from ["", "## Test questions"]
    for kind, item in chosen.items():
        yield from ["", f"### {kind.capitalize()}", ""]
        texts = [{"label": "question", "text": item["question"]}, *item["texts"]]
        for label, answer in zip(labels, item["answers"], strict=False):
            texts += [{"label": f"{label}, {answer['note']}", "text": answer["texts"][0]["text"]}]
        for text in texts:
            yield from [f"{text['label']}:", "", *_code_block(text["text"]), ""]


def _code_block(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines() or [""]]
