"""The recipes by name. Programs ask a ``Task`` for all that differs between recipes."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from recipes.pipeline.recipe import Recipe
    from recipes.tasks.protocols import ChatPart, ChecksPart, EvaluationPart, PagePart, SelectionPart


@dataclass(frozen=True)
class Task:
    """A recipe. Its parts are modules of ``recipes.tasks.<name>``, imported when needed: graders take seconds.

    ``name`` begins the names of its configs. ``data_program`` writes its parquet files, whose names begin with
    ``file_prefix``. ``preset_folder`` is below ``configs/preset``, with a slash at its end. ``gpu_preset`` is the
    preset for a model that no preset names, on a GPU. ``token_split`` is a regular expression: what the tokenizer of
    the tiny model keeps together before BPE. ``evaluation_options`` are options of ``evaluate`` for this recipe alone.
    """

    name: str
    data_program: str
    file_prefix: str
    preset_folder: str
    gpu_preset: str
    token_split: str
    evaluation_options: tuple[str, ...] = ()

    @property
    def evaluation(self) -> EvaluationPart:
        """Rows, grading, figures."""
        return cast("EvaluationPart", self._part("evaluation"))

    @property
    def selection(self) -> SelectionPart:
        """Which answers to withhold, of recipes whose evaluation has the option ``select``."""
        return cast("SelectionPart", self._part("selection"))

    @property
    def page(self) -> PagePart:
        """What a page shows of a question."""
        return cast("PagePart", self._part("page"))

    @property
    def chat(self) -> ChatPart:
        """Prompts and answers of a chat."""
        return cast("ChatPart", self._part("chat"))

    @property
    def checks(self) -> ChecksPart:
        """What the doctor checks."""
        return cast("ChecksPart", self._part("checks"))

    @property
    def pipeline(self) -> type[Recipe]:
        """Its stages: ``RECIPE`` of the part."""
        return self._part("pipeline").RECIPE

    @property
    def train_file(self) -> str:
        return f"{self.file_prefix}train.parquet"

    @property
    def valid_file(self) -> str:
        return f"{self.file_prefix}valid.parquet"

    @property
    def test_file(self) -> str:
        return f"{self.file_prefix}test.parquet"

    def _part(self, name: str) -> ModuleType:
        return importlib.import_module(f"recipes.tasks.{self.name}.{name}")


_TASKS = (
    Task(
        name="ehrsql",
        data_program="data_prep.ehrsql",
        file_prefix="",
        preset_folder="",
        gpu_preset="sql_r1_3b",
        # Figures by fours: a tiny model learns to copy a number of 8 figures from the question sooner in 2 to 4 tokens
        # than in 8. A date format and 'start of month' stay in one piece, so that BPE can make them one token. So do
        # the tags and fences around reasoning: they would be over a third of the tokens that THINK=1 adds.
        token_split=r"</?think>|\n?```(?:sql\n)?|'%[^']*'|'start of [a-z]+'|\d{1,4}| ?[()=<>]+| ?[^\W\d]+|[^\w\s]|\s",
        evaluation_options=(
            *("db_path", "variants", "prompt", "further_answers", "select", "select_penalty", "write_predictions"),
        ),
    ),
    Task(
        name="ecg",
        data_program="data_prep.ecg_expert_qa",
        file_prefix="grpo_",
        preset_folder="ecg/",
        gpu_preset="llama3_2_3b",
        # Digits stand alone, so that the model sees the figures of a measurement.
        token_split=r"\d| ?[^\W\d]+|[^\w\s]|\s",
    ),
)
TASKS = {task.name: task for task in _TASKS}
DEFAULT = "ehrsql"


def add_recipe_option(parser: argparse.ArgumentParser, what_for: str) -> None:
    """``--recipe``, the same in every program."""
    parser.add_argument("--recipe", choices=tuple(TASKS), default=DEFAULT, help=f"{what_for} (default: {DEFAULT})")
