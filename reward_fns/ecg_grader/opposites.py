"""Words that stand against each other. The ontology lists them, and the prefixes that make them."""

from collections.abc import Collection, Iterator

from reward_fns.ecg_grader.ontology import ontology
from reward_fns.ecg_grader.text import plain


def opposite(words: Collection[str], others: Collection[str]) -> bool:
    """Whether one of ``words`` stands against one of ``others``, such as left and right."""
    return any(_antonyms(word, other) for word in _plain(words) for other in _plain(others))


def _plain(words: Collection[str]) -> Iterator[str]:
    return (plain(word.lower()) for word in words)


def _antonyms(word: str, other: str) -> bool:
    """Stable and unstable, hyper- and hypotension, anterior and posterior."""
    opposites = ontology()["opposites"]
    if any({word, other} <= set(group) for group in opposites["words"]):
        return True
    shorter, longer = sorted((word, other), key=len)
    if any(longer == f"{prefix}{shorter}" for prefix in opposites["prefixes"]):
        return True
    heads = [(head, group) for group in opposites["heads"] for head in group if word.startswith(head)]
    return any(
        other == f"{instead}{word.removeprefix(head)}" for head, group in heads for instead in group if instead != head
    )
