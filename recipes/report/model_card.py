"""The model card of an exported model: the ``README.md`` that the Hugging Face Hub shows."""

import json
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, try_to_load_from_cache

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError
from data_prep.common.json_file import read_json
from recipes.models import EXPORT_FIGURES, MARKER
from recipes.report.model_results import evaluation_results, results_markdown
from recipes.report.training_history import Training, training_history
from recipes.tasks.registry import TASKS
from recipes.trained_models import CARD, CARD_RESULTS, trained_prompt, trained_to_think

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
BEGIN, END = "<!-- results: recipes.card writes what follows -->", "<!-- end of results -->"
LICENSE_KEYS = ("license", "license_name", "license_link")


def new_card(model: Path) -> ModelCard:
    """The card of a model that ``recipes.export`` has written to ``model``, without results.

    Raises:
        InputError: ``model`` is no such folder.
    """
    base, trainings = training_history(model)
    if not trainings:
        raise InputError(f"no {EXPORT_FIGURES} in {model}; name a folder that recipes.export has written")
    last, name, license, prompt = trainings[-1], base_name(base), base_license(base), trained_prompt(str(model))
    synthetic = all_synthetic(trainings)
    tags = ["clinical-rl-recipes", "verl", *filter(None, [last.recipe]), *(t.method.lower() for t in trainings)]
    data = ModelCardData(
        model_name="-".join(filter(None, [name.rpartition("/")[2], last.recipe, last.method.lower()])),
        base_model=base if name == base else None,
        library_name="transformers",
        pipeline_tag="text-generation",
        language="en",
        tags=[*tags, *(["synthetic-data"] if synthetic else [])],
        **license,
    )
    return ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=f"{name}, {last.recipe or 'unknown recipe'}, after {last.method}",
        base=f"`{name}`",
        rows=[_row(training) for training in trainings],
        synthetic=synthetic,
        reward=last.reward,
        reward_options=", ".join(f"`{name}={value}`" for name, value in last.reward_options.items()),
        difference=read_json(model / EXPORT_FIGURES).get("logprob_difference_mean"),
        results=results_section("Not evaluated yet."),
        recipe=last.recipe,
        prompt=prompt and Path(prompt).name,
        think=trained_to_think(str(model)),
        test_file=last.recipe and TASKS[last.recipe].test_file,
        max_response_length=last.max_response_length or 1024,
        license=license.get("license_name") or license.get("license"),
    )


def all_synthetic(trainings: Sequence[Training]) -> bool | None:
    """Whether all data of the training runs are the demo's; None where some may be and nobody has noted it."""
    kinds = [data.synthetic for training in trainings for data in training.data]
    if False in kinds:
        return False
    return None if None in kinds or not all(training.data for training in trainings) else True


def _row(training: Training) -> list[str]:
    """Of the card's table: method, steps, data, settings."""
    data = (f"`{data.file}`" if data.rows is None else f"`{data.file}`, {data.rows:,} rows" for data in training.data)
    settings = (f"{name} {value}" for name, value in training.settings.items())
    return [training.method, training.steps, "; ".join(data) or "not recorded", ", ".join(settings) or "not recorded"]


def base_name(base: str) -> str:
    """The hub id, what ``recipes.models`` calls a model that it has made, or the name of a folder: no path."""
    folder = Path(base)
    if (folder / MARKER).is_file():
        return read_json(folder / MARKER)["model"]
    return folder.name if folder.is_dir() or not re.fullmatch(r"[\w.-]+/[\w.-]+", base) else base


def base_license(base: str) -> dict[str, str]:
    """What the base model's own card says, in its folder or in the Hugging Face cache; empty where there is none."""
    if Path(base).is_dir():
        file = str(Path(base) / CARD)
    else:
        file = try_to_load_from_cache(base, CARD) if base_name(base) == base else None
    if not isinstance(file, str) or not Path(file).is_file():
        return {}
    try:
        data = ModelCard.load(file, ignore_metadata_errors=True).data
    except (ValueError, yaml.YAMLError):
        return {}
    return {key: data[key] for key in LICENSE_KEYS if data.get(key)}


def results_section(text: str) -> str:
    return f"{BEGIN}\n{text}\n{END}"


def write_results(model: Path, results: dict[str, Any]) -> None:
    """Fill ``model_results`` into the card of ``model``, made where there is none, and write them beside it.

    What else the card says stays, such as what its user has added.

    Raises:
        InputError: there is no such model, or its ``README.md`` is no card with results.
    """
    file = model / CARD
    if file.is_file():
        try:
            card = ModelCard.load(file)
        except (ValueError, yaml.YAMLError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"cannot read the metadata of {file}: {reason}; move it away for a new card") from error
    else:
        card = new_card(model)
    before, begin, rest = card.text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(f"{file} has no place for results ({BEGIN}); move it away for a new card")
    card.text = before + results_section(results_markdown(results)) + after
    card.data.model_name = card.data.model_name or model.resolve().name
    card.data.eval_results = evaluation_results(results)
    with ExitStack() as stack:
        partial_card, partial_results = (
            stack.enter_context(atomic_output(model / name)) for name in (CARD, CARD_RESULTS)
        )
        partial_card.write_text(str(card), encoding="utf-8")
        partial_results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
