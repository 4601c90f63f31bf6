"""Where the answers of an evaluation come from: vLLM on this machine, a server, or a file. The options of each."""

import argparse
from pathlib import Path
from typing import Any

from data_prep.common.errors import InputError
from recipes.evaluation.chat_reply import one_line
from recipes.evaluation.generation import GenerationOptions
from recipes.evaluation.server_connection import SHOWN_MODELS, Server

# The parser leaves these out where they are not given, so that ``check_source`` can tell; ``with_defaults`` adds them.
DEFAULTS = {
    "max_response_length": GenerationOptions.max_response_length,
    "temperature": GenerationOptions.temperature,
    "further_temperature": GenerationOptions.further_temperature,
    "gpu_memory_utilization": GenerationOptions.gpu_memory_utilization,
    "tensor_parallel_size": GenerationOptions.tensor_parallel_size,
    "data_parallel_size": GenerationOptions.data_parallel_size,
    "server_concurrency": Server.concurrency,
    "server_timeout": Server.timeout_s,
    "allow_remote": Server.allow_remote,
}
GENERATION = ("prompt", "max_response_length", "temperature", "further_answers", "further_temperature")
SELECTION = ("select", "select_penalty")
OFFLINE = ("dtype", "gpu_memory_utilization", "tensor_parallel_size", "data_parallel_size")
SERVER = ("server_concurrency", "server_timeout", "allow_remote")


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """The options of a server and of a file."""
    parser.add_argument(
        "--server", metavar="URL", help="ask a server that speaks the OpenAI chat protocol: http://127.0.0.1:8000/v1"
    )
    parser.add_argument(
        "--server_concurrency", type=int, default=argparse.SUPPRESS, metavar="N",
        help=f"requests at a time (default: {DEFAULTS['server_concurrency']})",
    )  # fmt: skip
    parser.add_argument(
        "--server_timeout", type=float, default=argparse.SUPPRESS, metavar="S",
        help=f"seconds for a request (default: {DEFAULTS['server_timeout']:g})",
    )  # fmt: skip
    parser.add_argument(
        "--allow_remote", action="store_true", default=argparse.SUPPRESS,
        help="--server may be outside this machine and its private networks: the questions leave it",
    )  # fmt: skip
    parser.add_argument(
        "--predictions", type=Path, metavar="FILE",
        help="grade the answers in a file: EHRSQL-2024's prediction.json, lines of {id, response}, or a results.json",
    )  # fmt: skip


def check_source(args: argparse.Namespace) -> None:
    """Raise an ``InputError`` for an option that would have no effect, and for a missing file.

    To call before ``with_defaults``.
    """
    source, unused = _unused(args)
    for option in unused:
        if getattr(args, option, None) is not None:
            raise InputError(f"--{option} has no effect {source}; leave it out")
    if getattr(args, "further_temperature", None) is not None and args.further_answers is None:
        raise InputError("--further_temperature has no effect without --further_answers; leave it out, or give both")
    if args.predictions and len(args.model_name or ()) > 1:
        raise InputError("--predictions holds the answers of one model; give one --model_name")
    if args.predictions and (args.predictions.is_dir() or not args.predictions.exists()):
        found = "is a folder" if args.predictions.is_dir() else "does not exist"
        raise InputError(f"--predictions {args.predictions} {found}; give the file of the predictions")


def with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    """``args`` with the defaults of the options that were not given."""
    return argparse.Namespace(**DEFAULTS | vars(args))


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options for the record: those that had an effect."""
    _, unused = _unused(args)
    return {name: value for name, value in vars(args).items() if name not in unused}


def _unused(args: argparse.Namespace) -> tuple[str, tuple[str, ...]]:
    """Where the answers come from, and the options that have no effect there."""
    if args.predictions:
        return "with --predictions", (*GENERATION, *SELECTION, *OFFLINE, "server", *SERVER)
    return ("with --server", OFFLINE) if args.server else ("without --server", SERVER)


def server_of(args: argparse.Namespace) -> Server | None:
    """The server of ``--server``; None without.

    Raises:
        InputError: an option of it is bad, or the address leads out of the private networks.
    """
    if not args.server:
        return None
    args = with_defaults(args)
    if args.server_concurrency < 1:
        raise InputError(f"--server_concurrency is {args.server_concurrency}; give at least 1 request")
    if not 0 < args.server_timeout < float("inf"):
        raise InputError(f"--server_timeout is {args.server_timeout:g}; give seconds above 0")
    return Server(args.server, args.server_concurrency, args.server_timeout, args.allow_remote)


def models_of(args: argparse.Namespace) -> list[str] | None:
    """The models of ``--model_name``; without it the file's name, or the one model of the server. None for vLLM here.

    Raises:
        InputError: the server has none, or several.
    """
    if args.model_name:
        return args.model_name
    if args.predictions:
        return [args.predictions.stem]
    if not (server := server_of(args)):
        return None
    models = server.models()
    if len(models) == 1:
        return models
    listed = f"{len(models)} models ({one_line(', '.join(models[:SHOWN_MODELS]))})" if models else "no model"
    raise InputError(f"{server.url} lists {listed}; name one with --model_name")
