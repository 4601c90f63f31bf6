"""``prediction.json``, the form in which the EHRSQL-2024 shared task takes predictions."""

import json
from collections.abc import Sequence
from pathlib import Path

from recipes.tasks.ehrsql.figures import Sample, shown
from reward_fns.sql.answers import ABSTAIN
from reward_fns.sql.text import strip_comments

NO_ANSWER = "no answer"  # no SQL: wrong for the official scorer, whatever the gold query gives


def write_predictions(samples: Sequence[Sample], path: Path) -> None:
    """Write ``{id: query, or "null"}``: what the official scorer gives the verdict ``acc``.

    What selection withholds is ``null``. A query stands without its comments: the official scorer joins lines first, so
    that a comment would swallow the rest of the query. A query that did not run here is replaced. The official scorer
    opens the database for writing, without a deadline: it would execute DELETE, or a query that never ends.
    """
    predictions = {sample.id: _prediction(sample) for sample in samples}
    path.write_text(json.dumps(predictions, indent=1) + "\n", encoding="utf-8")


def _prediction(sample: Sample) -> str:
    if shown(sample).abstained:
        return ABSTAIN
    return strip_comments(sample.sql) if sample.executed and sample.sql else NO_ANSWER
