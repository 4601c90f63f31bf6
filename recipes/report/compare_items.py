"""The questions of compared runs as the page shows them: plain dictionaries, the same shape for every recipe."""

from typing import Any

from recipes.evaluation.results import Run
from recipes.tasks.registry import TASKS


def page_items(runs: dict[str, Run]) -> list[dict[str, Any]]:
    """One dictionary a question, for runs on the same questions.

    ``id``, ``category``, ``template`` ("" where there is none), ``question``; ``texts``: what belongs to the question,
    as ``recipes.report.page_text`` makes them; ``answers``, one a run; ``winner``, the position of the run that scores
    highest, -1 where several do; ``change``: the last run's score less the first's. An answer has ``score`` (0 to 100),
    ``verdict`` (``good``, ``bad`` or ``partly``), ``outcome`` (the recipe's word for it), ``grade`` (the same in fewer
    words, for the filter by change; it is the outcome where the recipe gives none), ``kinds`` (what is wrong with it),
    ``note``, ``texts`` as above, ``facts`` (pairs of text and state, see ``recipes.tasks.ecg.fact_states``) and
    ``problems``.

    Raises:
        InputError: a reference of an ECG run is not what the grader reads.
    """
    first, *_ = runs.values()
    page = TASKS[first.recipe].page
    items = [page.page_item(samples) for samples in zip(*(run.samples for run in runs.values()), strict=True)]
    for item in items:
        scores = [answer["score"] for answer in item["answers"]]
        best = [position for position, score in enumerate(scores) if score == max(scores)]
        for answer in item["answers"]:
            answer.setdefault("grade", answer["outcome"])
        item["winner"] = best[0] if len(best) == 1 else -1
        item["change"] = scores[-1] - scores[0]
    return items
