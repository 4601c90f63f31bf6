"""Where a query differs from the gold query, token by token."""

import re
from collections.abc import Sequence

from rapidfuzz.distance import Indel

from recipes.report.page_text import Edit

# Models write open quotes, of which sqlglot's tokenizer reads nothing: here such a quote ends with the text.
_TOKEN = re.compile(r"""'[^']*'?|"[^"]*"?|`[^`]*`?|\w+(?:\.\d+)?|[<>=!|]+|\S""")


def sql_edits(gold_sql: str, predicted_sql: str) -> list[Edit]:
    """The places of ``predicted_sql`` where ``gold_sql`` has something else, and what it has there.

    Spaces do not count, nor does upper or lower case outside of quotes.

    >>> sql_edits("SELECT max(age) FROM a", "select min( age ) FROM a WHERE 0")
    [(7, 10, 'max'), (25, 32, '')]
    """
    gold, predicted = [*_TOKEN.finditer(gold_sql)], [*_TOKEN.finditer(predicted_sql)]
    edits, gold_at, at = [], 0, 0
    for block in Indel.opcodes(_keys(gold), _keys(predicted)).as_matching_blocks():  # an empty one is the last
        missing, written = gold[gold_at : block.a], predicted[at : block.b]
        if missing or written:
            start = predicted[at].start() if at < len(predicted) else len(predicted_sql)
            end = written[-1].end() if written else start
            edits.append((start, end, gold_sql[missing[0].start() : missing[-1].end()] if missing else ""))
        gold_at, at = block.a + block.size, block.b + block.size
    return edits


def _keys(tokens: Sequence[re.Match]) -> list[str]:
    return [token[0] if token[0][0] in "'\"`" else token[0].lower() for token in tokens]
