"""What commands on EHRSQL-2024's own ``data.json`` take where an option is left out: database and prompt."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep.common.errors import InputError
from recipes.evaluation.rows import Row
from recipes.trained_models import is_trained, trained_prompt, trained_to_think

DATABASE = "mimic_iv.sqlite"  # what EHRSQL-2024 publishes beside its splits
DEFAULT_PROMPT = "full_schema"


def database_of(data_file: Path) -> Path:
    """``DEFAULT_DB_PATH``, or else ``mimic_iv.sqlite`` in the folder that holds the split of ``data_file``.

    Raises:
        InputError: it does not exist.
    """
    database = Path(os.environ.get("DEFAULT_DB_PATH") or data_file.resolve().parent.parent / DATABASE)
    if not database.is_file():
        raise InputError(f"{data_file} names no database, and there is no {database}; give --db_path")
    return database


def prompt_of(models: Sequence[str], given: str | None) -> tuple[str, bool]:
    """The prompt that the models were trained with, if none is ``given``, and whether they were trained to think.

    The prompt is ``full_schema`` for models of which that is not known.

    Raises:
        InputError: they were trained with different prompts, or some to think and others not.
    """
    prompts = sorted({given or trained_prompt(model) or DEFAULT_PROMPT for model in models} or {DEFAULT_PROMPT})
    if len(prompts) > 1:
        raise InputError(
            f"the models were trained with different prompts ({', '.join(prompts)}); evaluate one after the other, or "
            "give --prompt"
        )
    thinking = {trained_to_think(model) for model in models} or {False}
    if len(thinking) > 1:
        raise InputError("some of the models were trained to think, others not; evaluate one after the other")
    return prompts[0], thinking.pop()


def warn_of_bare_questions(rows: Sequence[Row], models: Sequence[str]) -> None:
    """A model that was not trained on bare questions can know neither the tables nor that SQL is wanted."""
    bare = all([message["content"] for message in row["prompt"]] == [row["extra_info"]["question"]] for row in rows)
    if bare and (untrained := [model for model in models if not is_trained(model)]):
        print(
            f"warning: the prompts hold the questions alone, without a schema, and no recipe here has trained "
            f"{', '.join(untrained)}; give --prompt full_schema for a data.json, or prepare a parquet file with it",
            file=sys.stderr,
        )
