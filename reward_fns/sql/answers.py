"""The one comparator: an answer becomes a canonical string, and two answers are equal if their strings are.

Training, evaluation and data preparation all use it. A ground truth is one of ``ABSTAIN`` (the question cannot
be answered from the database), ``GOLD_FAILED`` (the gold query did not execute: never rewarded) and the
canonical answer of the gold query, a JSON list. These three never collide, since a JSON list starts with ``[``.

The rule is that of the EHRSQL-2024 shared task's scorer (version 1.1.1): each cell that ``float()`` accepts is
rounded to 3 decimals, every cell becomes ``str(cell)``, rows are sorted as lists of strings, and the first 100 are
compared. So row order is ignored, column order and duplicates count. What follows from it:

===============================  ==================================================================
cell                             text compared
===============================  ==================================================================
``1``, ``1.0``, ``'1'``          ``1.0``
``' 1 '``, ``'1_0'``, ``'١'``    ``1.0``, ``10.0``, ``1.0`` (``float()`` reads them)
NULL and the text ``None``       ``None``
``inf``, ``nan``, ``'1e999'``    ``inf``, ``nan``, ``inf`` (as text, so ``nan`` equals ``nan``)
integers beyond 2**53            those of the nearest double, so neighbours may be equal
BLOB                             the number if ``float()`` reads it, else ``str(bytes)``: ``b'...'``
===============================  ==================================================================

The scorer compares ``str()`` of the sorted list, this module its JSON: both are one-to-one on text decoded from
UTF-8, so the verdict is the same.
"""

import heapq
import json
import re
from collections.abc import Iterable, Sequence

ABSTAIN = "null"
GOLD_FAILED = "error"
COMPARED_ROWS = 100
_ONLY_NULL = re.compile(r'\[(?:[\[\], ]|"None")*\]')


def canonical_answer(rows: Iterable[Sequence]) -> str:
    """Return the canonical JSON of a query's rows: a list of at most 100 lists of strings, pure ASCII.

    ``rows`` is consumed as a stream: no more than 100 of them are held. Text cells must already be ``str``
    (SQLite's bytes decoded with errors ignored, as the scorer's ``text_factory`` does).
    """
    return json.dumps(heapq.nsmallest(COMPARED_ROWS, ([_cell_text(cell) for cell in row] for row in rows)))


def _cell_text(cell: object) -> str:
    try:
        return str(round(float(cell), 3))
    except (TypeError, ValueError):
        return str(cell)


def says_nothing(ground_truth: str) -> bool:
    """Whether a gold answer has no row, or no cell but NULL: a query that no row fits gives the same answer.

    A cell with the text ``None`` counts as NULL.

    >>> says_nothing(canonical_answer([])), says_nothing(canonical_answer([(None,)])), says_nothing(ABSTAIN)
    (True, True, False)
    """
    return bool(_ONLY_NULL.fullmatch(ground_truth))


EMPTY = canonical_answer([])
SELECT_1 = canonical_answer([(1,)])  # what the constant query earns: the floor to print beside every accuracy
