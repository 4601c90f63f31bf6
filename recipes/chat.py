"""Chats with a recipe's models in the terminal, or in a browser on this machine (``--ui``).

``python -m recipes.chat --recipe ecg --models base grpo`` asks both models each question and shows the answers one
after the other, as they are written. A model is a folder, a hub id, or a stage of the recipe's output folder:
``base`` (what training started from), ``sft`` or ``grpo``. ``clear`` forgets the conversation, ``quit`` or Ctrl-D ends,
Ctrl-C stops the answer that is being written. ECG is a dialogue; EHRSQL's questions stand alone, and its queries are
executed in the sandbox.
"""

import argparse
import os
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.common.errors import InputError, run_main
from recipes.chat_app.conversation import Conversation
from recipes.chat_app.models import ChatModel, ChatOptions, find_model, forbid_network
from recipes.chat_app.text import Piece
from recipes.pipeline.settings import load_environment
from recipes.tasks.registry import TASKS, add_recipe_option
from recipes.trained_models import last_stage

HOST = "127.0.0.1"  # of the page: this machine only

STYLES = {"reasoning": "dim", "note": "italic", "error": "red", "answer": "bold"}


class Screen:
    """Prints pieces to a terminal, those of kind ``text`` and ``reasoning`` one behind the other."""

    def __init__(self, console: Console):
        self._console = console
        self._in_line = False

    def show(self, piece: Piece) -> None:
        if piece.kind in ("text", "reasoning"):
            self._console.out(piece.text, style=STYLES.get(piece.kind), highlight=False, end="")
            self._in_line = not piece.text.endswith("\n")
            return
        self.end_line()
        self._console.out(piece.text, style=STYLES.get(piece.kind), highlight=False)
        if piece.rows:
            table = Table(show_header=False)
            for row in piece.rows:
                table.add_row(*map(Text, row))
            self._console.print(table)

    def end_line(self) -> None:
        if self._in_line:
            self._console.out()
        self._in_line = False


def answer(conversation: Conversation, question: str, console: Console) -> None:
    """Show one model's reply; Ctrl-C stops it."""
    screen = Screen(console)
    try:
        with closing(conversation.ask(question)) as pieces:
            for piece in pieces:
                screen.show(piece)
    except KeyboardInterrupt:
        screen.show(Piece("note", "(stopped)"))
    except InputError as error:
        screen.show(Piece("error", str(error)))
    screen.end_line()


def talk(conversations: list[Conversation], console: Console) -> None:
    """Ask, and show the answers, until ``quit`` or the end of the input."""
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            console.out()
            return
        except KeyboardInterrupt:
            console.out("\n(quit or Ctrl-D ends the chat)")
            continue
        if question == "quit":
            return
        if question == "clear":
            for conversation in conversations:
                conversation.turns = []
            console.out("(the conversation is forgotten)")
        elif question:
            for conversation in conversations:
                if len(conversations) > 1:
                    console.out(f"[{conversation.model.name}]", style="bold cyan", highlight=False)
                answer(conversation, question, console)


def check_port(port: int) -> None:
    """Raise ``InputError`` unless the page can be served at ``port``."""
    if not 1 <= port <= 65535:
        raise InputError(f"--port is {port}; give 1 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port whose last user has just ended is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise InputError(f"cannot use port {port}: {error.strerror}; choose another --port") from error


def find_models(args: argparse.Namespace) -> dict[str, str]:
    """The folder or hub id of each of ``--models`` by its name, in order.

    Raises:
        InputError: a model is missing.
    """
    names = args.models or [last_stage(args.output_dir)]
    return {name: find_model(name, args.output_dir) for name in names}


def load_models(args: argparse.Namespace, paths: dict[str, str]) -> list[ChatModel]:
    """The models of ``find_models``; all are checked before the first is loaded.

    Raises:
        InputError: a model cannot be used.
    """
    options = ChatOptions(args.max_response_length, args.temperature)
    models = [ChatModel(name, path, options) for name, path in paths.items()]
    for model in models:
        model.load()
    return models


def parser() -> argparse.ArgumentParser:
    """The command line of the chat."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.chat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_recipe_option(parser, "whose models")
    parser.add_argument("--models", nargs="+", help="stages, folders or hub ids; default: the recipe's last stage")
    parser.add_argument(
        "--output_dir", type=Path, help="that of a run; default: by OUTPUT_DIR and PRESET, as for a run"
    )
    for task in TASKS.values():
        task.chat.add_options(parser)
    parser.add_argument(
        "--think", action="store_true", help="with the prompt of models trained with THINK=1; default: by THINK"
    )
    parser.add_argument("--max_response_length", type=int, default=512, help="in tokens; default: 512")
    parser.add_argument("--temperature", type=float, default=0.0, help="default: 0, greedy")
    parser.add_argument("--seed", type=int, default=0, help="of sampling; default: 0")
    parser.add_argument("--ui", action="store_true", help="in a browser, at 127.0.0.1 only")
    parser.add_argument("--port", type=int, default=7860, help="of --ui; default: 7860")
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.max_response_length < 1:
        raise InputError(f"--max_response_length is {args.max_response_length}; give at least 1 token")
    if not 0 <= args.temperature < float("inf"):
        raise InputError(f"--temperature is {args.temperature:g}; give 0 (greedy) or more")
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}; give 0 or more")
    load_environment(os.environ)
    recipe = TASKS[args.recipe]
    run = recipe.pipeline(os.environ, [])
    run.config  # noqa: B018  composed here, so that an unknown PRESET ends the chat before anything is loaded
    args.output_dir = args.output_dir or run.folder
    if args.ui:
        check_port(args.port)
    task = recipe.chat.make_task(args, run)
    paths = find_models(args)
    forbid_network(list(paths.values()))  # before Gradio, too, imports what reads it
    console = Console(markup=False, highlight=False, emoji=False)
    with console.status("loading"):
        models = load_models(args, paths)
    import torch  # takes seconds to import

    torch.manual_seed(args.seed)
    if args.ui:
        from recipes.chat_app import ui

        ui.serve(models, task, HOST, args.port)
        return
    # A character that the terminal's encoding lacks must end neither an answer nor the chat.
    sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdin.reconfigure(errors="replace")
    with suppress(ImportError):  # not in every build of Python
        import readline  # noqa: F401  line editing and history in input()
    names = ", ".join(model.name for model in models)
    console.out(f"Chat with {names} ({args.recipe}); not for patients. clear forgets, quit ends.")
    talk([Conversation(model, task) for model in models], console)


if __name__ == "__main__":
    run_main(main)
