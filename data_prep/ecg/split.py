"""Which records belong together, and a split that keeps them so.

Records are of one group if they share a subject, disease or case, if they ask the same question about the same context,
or if their questions are near-duplicates; groups are the connected components of these links. Questions about a
subject are not compared by their text: "What is the diagnosis?" is another question for every patient.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from datasketch import MinHash, MinHashLSH
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from data_prep.ecg.source import SUBJECT, Record

SHINGLE = 5  # characters
NEAR = 0.8  # Jaccard similarity of near-duplicates
# 32 bands of 4 rows overlook one in 20 million of the pairs at the threshold, 1 - (1 - 0.8^4)^32. Pairs that are less
# similar than it may come out as candidates: their exact similarity decides.
BANDS, ROWS = 32, 4


def normalise(text: str) -> str:
    """``text`` in lower case with single spaces for everything that is no letter or digit."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def shingles(text: str) -> frozenset[str]:
    """The character 5-grams of normalised text; the text itself if it is shorter."""
    return frozenset(text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection by size of the union of two sets that are not both empty."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """The pairs of positions whose normalised texts have a Jaccard similarity of at least ``NEAR``."""
    sets = [shingles(text) for text in texts]
    encoded = ([shingle.encode() for shingle in members] for members in sets)
    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    pairs = []
    for position, sketch in enumerate(MinHash.generator(encoded, num_perm=BANDS * ROWS)):
        pairs += [(p, position) for p in index.query(sketch) if jaccard(sets[p], sets[position]) >= NEAR]
        index.insert(position, sketch)
    return pairs


def group_records(records: Sequence[Record]) -> list[int]:
    """The number of each record's group, ``0 .. groups - 1``."""
    # A graph of records (the first nodes) and of what they share (the others).
    nodes: dict[tuple, int] = {}
    links = []
    for position, record in enumerate(records):
        shared: list[tuple] = [("group", record.group)] if record.group else []
        for number in record.asked:
            question = normalise(record.turns[number].question)
            about_subject = record.schema.group == SUBJECT
            shared.append(("asked", question, record.context) if about_subject else ("text", question))
        links += [(position, nodes.setdefault(key, len(records) + len(nodes))) for key in shared]
    texts = [key for key in nodes if key[0] == "text"]
    links += [(nodes[texts[a]], nodes[texts[b]]) for a, b in near_duplicates([text for _, text in texts])]
    size = len(records) + len(nodes)
    graph = coo_matrix((np.ones(len(links)), np.array(links).T), shape=(size, size))
    _, components = connected_components(graph, directed=False)
    return components[: len(records)].tolist()


def assign_groups(
    records: Sequence[Record], groups: Sequence[int], shares: Mapping[str, float], seed: int
) -> list[str]:
    """The name in ``shares`` that each record falls to: whole groups, the shares held within each category.

    Large groups are placed first, each where its categories are then filled least, so that the small ones even out
    what the large ones leave.
    """
    sizes: dict[int, Counter[str]] = defaultdict(Counter)
    for record, group in zip(records, groups, strict=True):
        sizes[group][record.schema.id] += len(record.asked)
    totals = sum(sizes.values(), Counter())
    order = list(sizes)
    random.Random(seed).shuffle(order)
    filled = {name: Counter() for name, share in shares.items() if share}
    place = {}
    for group in sorted(order, key=lambda group: -sizes[group].total()):
        fill = {name: _fill(filled[name], sizes[group], totals) / shares[name] for name in filled}
        place[group] = min(fill, key=fill.__getitem__)
        filled[place[group]] += sizes[group]
    return [place[group] for group in groups]


def _fill(filled: Counter[str], added: Counter[str], totals: Counter[str]) -> float:
    """How full a part is once ``added`` is in it: a mean over its categories, weighted by their sizes in it."""
    return sum(n * (filled[category] + n) / totals[category] for category, n in added.items()) / added.total()
