"""The parts of a recipe: what each module of ``recipes.tasks.<name>`` defines."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from rich.console import RenderableType

from recipes.chat_app.tasks import ChatTask
from recipes.checks import Check
from recipes.evaluation.answer_kinds import AnswerKinds
from recipes.evaluation.figure import Figure
from recipes.evaluation.generation import Response
from recipes.evaluation.rows import Row
from recipes.evaluation.selector import Selection
from recipes.pipeline.recipe import Recipe


class Sample(Protocol):
    """A question, the model's response and its grade. A recipe's own class is a dataclass with more fields."""

    id: str
    question: str
    ground_truth: str
    response: str
    response_tokens: int
    finish_reason: str


class EvaluationPart(Protocol):
    """``evaluation``: rows, grading and figures.

    ``TITLE`` heads tables and charts. ``VALIDATION`` is the pattern of verl's metric of greedy validation, and
    ``VALIDATION_LABEL`` says what it is. ``FIGURES`` are what runs are compared by, ``ANSWER_KINDS`` what a summary
    counts wrong answers by. A recipe with the option ``write_predictions`` also has a function of this name: it writes
    the predictions of samples to a path.
    """

    TITLE: str
    VALIDATION: str
    VALIDATION_LABEL: str
    FIGURES: Mapping[str, Figure]
    ANSWER_KINDS: Sequence[AnswerKinds]
    Sample: type

    def load_rows(self, args: argparse.Namespace) -> list[Row]:
        """The rows of ``--dataset_path``. Raises an ``InputError`` for a bad file."""

    def grade_responses(self, rows: Sequence[Row], responses: Sequence[Response]) -> list[Sample]:
        """One graded sample for each row."""

    def graded(self, samples: Sequence[Any]) -> list[Any]:
        """The samples that count: those that could be graded."""

    def identity(self, sample: Any) -> tuple:
        """What two runs on the same questions agree on."""

    def summarize(self, samples: Sequence[Any], seed: int = 0) -> dict[str, Any]:
        """All figures of a run, for ``results.json``."""

    def canaries(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What degenerate policies would earn on these rows, by their names."""

    def log_lines(self, sample: Any) -> Iterator[str]:
        """A sample as ``evaluation.log`` shows it."""

    def summary_table(self, summary: dict[str, Any], title: str) -> RenderableType:
        """The figures of ``summarize`` and, under ``canaries``, of ``canaries``."""


class SelectionPart(Protocol):
    """``selection``, of recipes whose evaluation has the option ``select``: which answers to withhold."""

    def load_valid(self, args: argparse.Namespace, test: Sequence[Row]) -> list[Row]:
        """The questions of ``--select`` to choose on. Raises an ``InputError`` for a bad file, or one of ``test``."""

    def select(self, samples: Sequence[Any], valid: Sequence[Any], penalty: float | None, seed: int) -> Selection:
        """Choose on the samples ``valid`` what to withhold, and measure the choice on ``samples``."""


class PagePart(Protocol):
    """``page``: what a page shows."""

    def page_item(self, samples: Sequence[Any]) -> dict[str, Any]:
        """A question with the samples of all runs; see ``recipes.report.compare_items.page_items``."""


class ChatPart(Protocol):
    """``chat``: what a chat is about."""

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """The chat's options for this recipe alone."""

    def make_task(self, args: argparse.Namespace, run: Recipe) -> ChatTask:
        """The task, with the settings of ``run`` where an option is not given."""


class ChecksPart(Protocol):
    """``checks``: what the doctor looks at for this recipe."""

    def check_data(self, environ: Mapping[str, str]) -> Check:
        """Whether the data that the variables name are there."""
