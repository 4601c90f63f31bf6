"""Evaluates models on the questions of a recipe, with the grader of their training.

``evaluate --recipe R --model_name M --dataset_path test.parquet`` generates one response a question with vLLM, grades
it, prints the figures and writes ``<output_dir>/<model>/run_<timestamp>/``: ``results.json`` (``summary``, ``config``
and every sample under ``samples``) and ``evaluation.log`` (the same for reading). Several models are evaluated one
after the other. ``--server`` asks a server instead, and ``--predictions`` reads the responses from a file. With
``--select``, answers are withheld by a threshold that is chosen on validation questions.
``recipes/defaults.py`` says what ``evaluate`` alone does. What is particular to a recipe stands in
``recipes/tasks/<recipe>``.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from data_prep.common.errors import InputError, run_main
from recipes import hardware
from recipes.defaults import fill_evaluation
from recipes.evaluation.data_parallel import gpus_of_engines
from recipes.evaluation.folders import run_folders
from recipes.evaluation.generation import TOO_LONG, GenerationOptions, Generator, Response
from recipes.evaluation.predictions import predicted_responses
from recipes.evaluation.results import write_results
from recipes.evaluation.rows import Row, choose_rows
from recipes.evaluation.selector import save_selector, weights_digest
from recipes.evaluation.server import ServerGenerator
from recipes.evaluation.sources import (
    DEFAULTS,
    add_source_options,
    check_source,
    models_of,
    server_of,
    settings_of,
    with_defaults,
)
from recipes.pipeline.settings import load_environment
from recipes.report.training_history import trained_recipe
from recipes.tasks.registry import TASKS, Task, add_recipe_option
from recipes.trained_models import exported_model

Generate = Callable[[Sequence[list[dict[str, str]]]], list[Response]]


def evaluate(args: argparse.Namespace, make_engine: Callable[[GenerationOptions], Generate] = Generator) -> list[Path]:
    """Do what the command line asks for; return the folder of each model, as it was written.

    Raises:
        InputError: an option, the dataset, a database, a model or an output folder is bad; nothing is written then.
    """
    check_source(args)
    args, server = with_defaults(args), server_of(args)
    names = args.model_name = models_of(args)
    check_options(args)
    if not (server or args.predictions):
        args.dtype = args.dtype or hardware.rollout_dtype()
        args.model_name = [exported_model(name) for name in names]
        for model in args.model_name:
            check_recipe(model, args.recipe)
    task = TASKS[args.recipe]
    everything = task.evaluation.load_rows(args)
    rows = choose_rows(everything, args.num_samples, args.seed)
    valid = task.selection.load_valid(args, everything) if args.select else []
    folders = run_folders(args.output_dir, names, args.model_name, args.run_name)

    def make_generator(model: str, folder: Path) -> Generate:
        if args.predictions:
            responses = predicted_responses(args.predictions, _ids(rows), _ids(everything))
            return lambda prompts: responses
        if server:
            return ServerGenerator(generation_options(args, model), server, folder.parent)
        return make_engine(generation_options(args, model))

    generators = list(map(make_generator, args.model_name, folders))
    written = []
    for model, folder, generate in zip(args.model_name, folders, generators, strict=True):
        config = settings_of(args) | {"model_name": model, "output_dir": folder.parent.parent}
        written.append(evaluate_model(task, rows, valid, generate, folder, config))
    return written


def check_recipe(model: str, recipe: str) -> None:
    """Warn of a model that another recipe has trained."""
    if (trained := trained_recipe(model)) not in (recipe, None):
        print(f"warning: recipe {trained} has trained {model}; did you mean --recipe {trained}?", file=sys.stderr)


def _ids(rows: Sequence[Row]) -> list[str]:
    return [row["extra_info"]["id"] for row in rows]


def generation_options(args: argparse.Namespace, model: str) -> GenerationOptions:
    return GenerationOptions(
        model_name=model,
        max_response_length=args.max_response_length,
        temperature=args.temperature,
        further=args.further_answers or 0,
        further_temperature=args.further_temperature,
        seed=args.seed,
        dtype=args.dtype,
        gpu_memory_utilization=args.gpu_memory_utilization,
        tensor_parallel_size=args.tensor_parallel_size,
        data_parallel_size=args.data_parallel_size,
    )


def evaluate_model(
    task: Task, rows: Sequence[Row], valid: Sequence[Row], generate: Generate, folder: Path, settings: dict[str, Any]
) -> Path:
    """Generate, grade, write ``folder`` and print the figures. ``settings``: the command line's, for this model.

    ``valid`` are the questions that selection chooses on, none without selection. The chat finds what is chosen in the
    model's folder. Returns the folder: its name has a number if another evaluation has made ``folder`` in the meantime.
    """
    recipe = task.evaluation
    started = time.monotonic()
    responses = generate([row["prompt"] for row in (*rows, *valid)])  # in one call: an engine takes long to start
    generated = time.monotonic()
    responses, valid_responses = responses[: len(rows)], responses[len(rows) :]
    samples = recipe.grade_responses(rows, responses)
    summary = recipe.summarize(samples, settings["seed"]) | {"canaries": recipe.canaries(rows)}
    selection = None
    if valid:
        valid_samples = recipe.grade_responses(valid, valid_responses)
        selection = task.selection.select(samples, valid_samples, settings["select_penalty"], settings["seed"])
        samples, summary["selection"] = selection.samples, selection.summary
    config = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    if not (settings.get("server") or settings.get("predictions")):
        config["weights_digest"] = weights_digest(Path(settings["model_name"]))  # recipes.card asks for it
    config["prompts_too_long"] = sum(response.finish_reason == TOO_LONG for response in responses)
    config["generation_seconds"] = round(generated - started, 1)
    config["grading_seconds"] = round(time.monotonic() - generated, 1)
    if isinstance(generate, ServerGenerator):
        config["server_cost"] = generate.cost
    further = dict(selection.charts) if selection else {}
    if settings["write_predictions"]:
        further["prediction.json"] = partial(recipe.write_predictions, samples)
    folder = write_results(folder, summary, config, samples, further)
    if isinstance(generate, ServerGenerator):
        generate.finish()
    title = f"{settings['model_name']} on {settings['dataset_path'].name}"
    Console().print(recipe.summary_table(summary, title))
    if selection and not settings.get("server"):
        file = save_selector(selection.chat, settings["model_name"], selection.facts)
        unsaved = (
            f"{settings['model_name']} is no folder of weights that can be written to: the chat will withhold nothing"
        )
        print(f"Wrote {file}, which the chat reads" if file else unsaved)
    return folder


def check_options(args: argparse.Namespace) -> None:
    """Raise an ``InputError`` for the first bad option, before anything is read."""
    if args.max_response_length < 1:
        raise InputError(f"--max_response_length is {args.max_response_length}; give at least 1 token")
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}; give 0 or more")
    if args.temperature < 0:
        raise InputError(f"--temperature is {args.temperature:g}; give 0 (greedy) or more")
    if args.further_answers is not None and args.further_answers < 1:
        raise InputError(f"--further_answers is {args.further_answers}; give 1 or more, or leave it out")
    if not 0 < args.further_temperature < float("inf"):
        raise InputError(f"--further_temperature is {args.further_temperature:g}; give a number above 0")
    if args.select_penalty is not None and not args.select:
        raise InputError("--select_penalty is of --select; give both, or neither")
    if args.select_penalty is not None and not 0 <= args.select_penalty < float("inf"):
        raise InputError(f"--select_penalty is {args.select_penalty:g}; give 0 or more")
    if not 0 < args.gpu_memory_utilization <= 1:
        raise InputError(f"--gpu_memory_utilization is {args.gpu_memory_utilization:g}; give a share in (0, 1]")
    if not (args.server or args.predictions):
        gpus_of_engines(args.tensor_parallel_size, args.data_parallel_size)
    if len(args.output_dir) not in (1, len(args.model_name)):
        count = f"{len(args.output_dir)} folders for {len(args.model_name)} models"
        raise InputError(f"--output_dir names {count}; name one for all, or one for each")
    if len(set(args.model_name)) < len(args.model_name):
        raise InputError("--model_name names a model twice; name each once")
    for task in TASKS.values():
        for option in task.evaluation_options:
            if task.name != args.recipe and getattr(args, option) is not None:
                raise InputError(f"--{option} is of --recipe {task.name}; leave it out with --recipe {args.recipe}")


def parser() -> argparse.ArgumentParser:
    """The command line of ``evaluate``."""
    parser = argparse.ArgumentParser(
        prog="evaluate",
        description=__doc__.splitlines()[0],
    )
    add_recipe_option(parser, "whose questions and grader")
    parser.add_argument(
        "--model_name", nargs="+",
        help="Hugging Face folders, hub ids or runs' output folders, if not DEFAULT_MODEL_NAME or else the newest run; "
        "with --server the model's name there, with --predictions a label",
    )  # fmt: skip
    add_source_options(parser)
    parser.add_argument(
        "--dataset_path", type=Path,
        help="parquet file of data_prep.ehrsql or data_prep.ecg_expert_qa, or EHRSQL's data.json, if not "
        "DEFAULT_DATASET_PATH or else the test set of the run",
    )  # fmt: skip
    parser.add_argument(
        "--db_path", type=Path,
        help="EHRSQL: database, if not the one that the parquet file names, or that lies beside a data.json's split",
    )  # fmt: skip
    parser.add_argument(
        "--variants", nargs="+", metavar="DB",
        help="EHRSQL: databases of build_ehr_db --variants; an answer that is wrong there is right by luck",
    )  # fmt: skip
    parser.add_argument(
        "--num_samples",
        type=int,
        help="evaluate on that many questions, drawn at random; --select still takes all of its own",
    )
    parser.add_argument(
        "--prompt",
        help="EHRSQL: template in configs/prompts/ehrsql, or a .jinja file, for data.json; if not that of the model's "
        "training, or else full_schema",
    )
    parser.add_argument(
        "--output_dir", type=Path, nargs="+",
        help="where <model>/<run> is made: one folder for all models, or one for each; if not DEFAULT_OUTPUT_DIR or "
        "else results",
    )  # fmt: skip
    parser.add_argument("--run_name", help="name of the run's folder, if not run_<timestamp>")
    parser.add_argument(
        "--max_response_length", "--max_length", type=int, default=argparse.SUPPRESS,
        help=f"in tokens (default: {DEFAULTS['max_response_length']})",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, default=argparse.SUPPRESS,
        help=f"0 is greedy (default: {DEFAULTS['temperature']:g})",
    )  # fmt: skip
    parser.add_argument(
        "--further_answers", type=int, metavar="K",
        help="EHRSQL: K more answers to each question, for pass@k, a majority vote and agreement as a confidence",
    )  # fmt: skip
    parser.add_argument(
        "--select", type=Path, nargs="?", const=True, metavar="VALID",
        help="EHRSQL: choose on the validation questions VALID (without it, those beside the dataset) how certain an "
        "answer must be, and say what withholding the others comes to",
    )  # fmt: skip
    parser.add_argument(
        "--select_penalty", type=float, metavar="C", help="EHRSQL: --select chooses by RS(C), if not by RS(10)"
    )
    parser.add_argument(
        "--further_temperature", type=float, default=argparse.SUPPRESS,
        help=f"of the further answers (default: {DEFAULTS['further_temperature']})",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="if not that of training: float32 on a CPU, bfloat16 on a GPU"
    )
    parser.add_argument(
        "--gpu_memory_utilization", type=float, default=argparse.SUPPRESS,
        help=f"share of the GPU that vLLM takes (default: {DEFAULTS['gpu_memory_utilization']})",
    )  # fmt: skip
    parser.add_argument(
        "--tensor_parallel_size", type=int, default=argparse.SUPPRESS,
        help=f"GPUs that share one copy of the model (default: {DEFAULTS['tensor_parallel_size']})",
    )  # fmt: skip
    parser.add_argument(
        "--data_parallel_size", type=int, default=argparse.SUPPRESS,
        help=f"engines that share the questions (default: {DEFAULTS['data_parallel_size']})",
    )  # fmt: skip
    parser.add_argument(
        "--write_predictions", action="store_true", default=None, help="EHRSQL: write prediction.json too"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draw of questions, of sampling and the intervals (default: 0)"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    load_environment(os.environ)
    check_source(args)
    args.model_name = models_of(args)
    fill_evaluation(args, os.environ)
    for folder in evaluate(args):
        print(f"Wrote {folder}/results.json and {folder}/evaluation.log")


def command() -> None:
    """What ``evaluate`` runs."""
    run_main(main)


if __name__ == "__main__":
    command()
