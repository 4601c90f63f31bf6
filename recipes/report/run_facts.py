"""What was evaluated: for each run its model, its questions, and which answers were withheld."""

from collections.abc import Iterator
from pathlib import Path

from recipes.evaluation.results import Run
from recipes.evaluation.selector import in_words

Facts = dict[str, dict[str, str]]  # label of a run -> name -> text


def run_facts(runs: dict[str, Run]) -> Facts:
    """What a results file does not say is left out."""
    return {label: {name: text for name, text in _facts(run).items() if text} for label, run in runs.items()}


def _facts(run: Run) -> dict[str, str | None]:
    return {
        "model": run.config.get("model_name"),
        "answers of": run.config.get("server") or run.config.get("predictions"),
        "data set": run.config.get("dataset_path"),
        "results": str(run.file),
        "questions": f"{len(run.samples):,}",
        "variants": ", ".join(Path(path).name for path in run.config.get("variants") or ()),
        "selection": _selection(run),
    }


def _selection(run: Run) -> str:
    if not (chosen := run.summary.get("selection")):
        return ""
    return f"{in_words(chosen)}, chosen by RS({chosen['penalty']:g})"


def runs_markdown(facts: Facts) -> Iterator[str]:
    """The lines of a section for ``summary.md``."""
    yield from ["", "## Runs", ""]
    for label, texts in facts.items():
        yield f"- {label}"
        yield from (f"  - {name}: {text}" for name, text in texts.items())


def abstaining_always(runs: dict[str, Run]) -> list[str]:
    """A line that says what selected answers must beat; none where nothing was selected.

    A model that always abstains is right on the unanswerable questions and never wrong: its RS is their share.
    """
    shares = [run.summary["selection"]["abstaining"] for run in runs.values() if "selection" in run.summary]
    return [f"abstaining always: RS(10) {shares[0]:.1f}"] if shares else []
