"""Runs a recipe from nothing to its results. Run it again to go on where it stopped: finished stages are skipped.

``python -m recipes.run ehrsql [override...]`` makes or takes data, trains and evaluates; ``scripts/run_*.sh`` set
everything up and call it. Environment variables (``.env.sample`` lists them) and Hydra overrides say what to run.
What the programs print goes to ``OUTPUT_DIR/logs``.
"""

import argparse
import fcntl
import os
import shlex
import shutil
import signal
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig
from pyarrow.parquet import read_metadata

from data_prep.common.atomic import DISK_ERRORS
from data_prep.common.errors import InputError, run_main
from data_prep.common.printable import printable
from recipes import doctor, launch
from recipes.checks import Check, problems
from recipes.compare import write_comparison
from recipes.config import compose_config
from recipes.pipeline.console import RunConsole
from recipes.pipeline.process import ProgramFailed, adopt_orphans, run_program
from recipes.pipeline.progress import TrainingProgress
from recipes.pipeline.recipe import Recipe
from recipes.pipeline.settings import REPO, load_environment
from recipes.pipeline.sft_options import add_sft_options, check_sft_options, sft_overrides
from recipes.pipeline.stages import DryRun, Execute, Stages
from recipes.report.summary import write_summary
from recipes.tasks.registry import TASKS

# Variables that say what a run is, besides OUTPUT_DIR.
SETTINGS = ("PRESET", "SEED", "EHRSQL_DATA", "EHR_DB", "EHRSQL_TEACHER", "ECG_DATA", "ECG_TEACHER", "ADAPTER", "THINK")
FULL = 64 * 2**20  # bytes; with less, the disk counts as full


def run(recipe: Recipe, console: RunConsole) -> None:
    """All stages, then the summary.

    Raises:
        InputError: a check or a stage failed, or another run is using the folder.
    """
    with session(recipe, console) as stages:
        if recipe.sft_only:
            recipe.run_sft(stages)
            console.rich.print(f"model: {recipe.start_model}")
            return
        recipe.run(stages)
        finish(recipe, console)


@contextmanager
def session(recipe: Recipe, console: RunConsole) -> Iterator[Stages]:
    """The stages of the recipe's folder, for this run alone, after a look at the machine.

    Raises:
        InputError: the recipe cannot run here, or another run is using the folder.
    """
    checks = checks_of(recipe)
    if failed := problems(checks, "fail"):
        raise InputError("the recipe can't run here: " + failed)
    with locked(recipe.folder) as lock:
        console.header(f"{recipe.task.name}, preset {recipe.preset}", header_rows(recipe, checks))
        yield Stages(recipe.folder, executor(recipe, console, lock), console.skipped)


def header_rows(recipe: Recipe, checks: Sequence[Check]) -> dict[str, str]:
    """What the run works with, and what may go wrong."""
    found = {check.name: check.found for check in checks}
    rows = {
        "model": str(recipe.block.model),
        "data": str(recipe.prepared or recipe.task.checks.check_data(os.environ).found),
        "hardware": f"{found['hardware']}, {found['CPU cores']} cores, {found['memory']}",
        "folder": str(recipe.folder),
    }
    warnings = problems(checks, "warn")
    return rows | ({"warning": warnings} if warnings else {})


def checks_of(recipe: Recipe) -> list[Check]:
    """A look at the machine and at the recipe's data."""
    return doctor.run_checks(recipe.folder, recipe.task.name, recipe.block.model)


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """One run at a time in ``folder``: yields the descriptor of the lock, which lasts as long as a process has it open.

    Raises:
        InputError: another run is there, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another run is using {folder}; wait for it, or choose another OUTPUT_DIR") from None
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}; choose another OUTPUT_DIR") from error
    with lock:
        yield lock.fileno()


def executor(recipe: Recipe, console: RunConsole, lock: int) -> Execute:
    """What runs the program of a stage. The programs keep the lock: they may outlive a run that is killed."""

    def execute(name: str, program: Sequence[str], meanwhile: Callable[[], None]) -> None:
        log = recipe.folder / "logs" / f"{name}.log"
        progress = training_progress(program) if "recipes.launch" in program else None
        with console.stage(name, log) as show:

            def tick() -> None:
                meanwhile()
                if progress:
                    progress.read()
                    show(progress.text(), progress.share())
                else:
                    show("", 0)

            try:
                run_program(program, log, program_environment(), REPO, tick, (lock,))
                if progress:
                    progress.read()
                    show(progress.summary(), 1)
            except ProgramFailed as failure:
                fail(recipe, name, log, failure)

    return execute


def fail(recipe: Recipe, name: str, log: Path, failure: ProgramFailed) -> NoReturn:
    """verl, torch and Ray tell of a full disk in many ways and many lines."""
    for line in failure.last_lines:
        print(f"  | {printable(line)[:200]}", file=sys.stderr)
    cause = f"{printable(failure.cause)[:500]}; log: {log}"
    if shutil.disk_usage(recipe.folder).free < FULL:
        cause = f"the disk of {recipe.folder} is full; free space"
    raise InputError(f"stage {name} failed: {cause}; then the same command goes on from here")


def program_environment() -> dict[str, str]:
    """Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each program compiles torch and vLLM anew: 20 s."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def training_progress(program: Sequence[str]) -> TrainingProgress:
    """Of ``python -m recipes.launch CONFIG [override...]``."""
    config = compose_config(program[3], list(program[4:]))
    return TrainingProgress(Path(config.trainer.default_local_dir) / "metrics", total_steps(config))


def total_steps(config: DictConfig) -> int | None:
    """None where nobody knows: verl takes other files than one of parquet, too."""
    file = str(config.data.train_files)
    if config.trainer.total_training_steps or not file.endswith(".parquet") or not Path(file).is_file():
        return config.trainer.total_training_steps
    rows, most = read_metadata(file).num_rows, config.data.train_max_samples
    return (min(rows, most) if most > 0 else rows) // config.data.train_batch_size * config.trainer.total_epochs


def finish(recipe: Recipe, console: RunConsole) -> None:
    """The tables, the page, and what to do next."""
    runs = {label: recipe.results / label for label in recipe.evaluated_models()}
    two = {label: runs[label] for label in (recipe.start_label, "grpo")}
    commands = next_commands(recipe)
    page = write_summary(two, [recipe.folder / "grpo" / "metrics"], recipe.folder / "summary", console.rich, commands)
    *_, answers = write_comparison(runs, recipe.folder / "comparison")
    places = {"page": page, "answers": answers, "model": recipe.models / "grpo", "logs": recipe.folder / "logs"}
    for name, place in places.items():
        console.rich.print(f"  {name:9}{place}")
    for what, command in commands.items():
        console.rich.print(f"# {what}\n{command}")
    if sys.stdout.isatty() and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        webbrowser.open(page.as_uri())


def next_commands(recipe: Recipe) -> dict[str, str]:
    """Command lines to go on with, by what for."""
    settings = {name: recipe.environ[name] for name in SETTINGS if recipe.environ.get(name)}
    again = ["env", *(f"{name}={value}" for name, value in settings.items()), f"OUTPUT_DIR={recipe.folder}"]
    script = ["bash", f"scripts/run_grpo_{recipe.task.name}.sh"]
    chat = ["bash", "scripts/chat_with_model.sh", "--recipe", recipe.task.name, "--output_dir", str(recipe.folder)]
    evaluate = [f"{sys.prefix}/bin/evaluate", *recipe.dataset(), "--model_name", str(recipe.models / "grpo")]
    commands = {
        "talk to the model": [*chat, *recipe.chat_options()],
        "evaluate it again": [*evaluate, "--max_response_length", str(recipe.block.max_response_length)],
    }
    if steps := recipe.config.trainer.total_training_steps:
        longer = [*again, *script, *recipe.given, f"trainer.total_training_steps={2 * steps}"]
        commands["train for twice as many steps"] = longer
    if real := recipe.real_data():
        commands["train on real data (see the README)"] = ["env", *real, f"OUTPUT_DIR={recipe.folder}_real", *script]
    return {what: shlex.join(command) for what, command in commands.items()}


def show_programs(recipe: Recipe, run_stages: Callable[[Stages], None]) -> None:
    """Print the programs of the stages, ready to copy; of verl's trainers, their own command lines.

    What would keep the run from starting goes to stderr.
    """
    if failed := problems(checks_of(recipe), "fail"):
        print(f"warning: the recipe can't run here: {failed}", file=sys.stderr)

    def show(name: str, program: Sequence[str]) -> None:
        print(f"# {name}")
        if "recipes.launch" not in program:
            print(shlex.join(program))
            return
        trainer, environ = launch.command(program[3], list(program[4:]), check=False)
        added = [f"{key}={value}" for key, value in environ.items() if before.get(key) != value]
        print(shlex.join(["mkdir", "-p", str(Path(environ["VERL_FILE_LOGGER_PATH"]).parent)]))
        print(shlex.join(["env", *added, "python", *trainer[1:]]))

    before = dict(os.environ)
    run_stages(DryRun(show))


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="recipes.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("recipe", choices=tuple(TASKS), help="what to run")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. preset=tiny recipe.grpo.steps=60 algo=dapo")
    parser.add_argument("--sft_only", action="store_true", help="end after SFT; overrides are those of SFT's config")
    parser.add_argument("--dry_run", action="store_true", help="print the programs of all stages, and run nothing")
    parser.add_argument("--verbose", action="store_true", help="show what the programs print, too")
    add_sft_options(parser)
    args = parser.parse_intermixed_args(argv)
    if problem := check_sft_options(args):
        parser.error(problem)
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    load_environment(os.environ)
    overrides = [*sft_overrides(args, os.environ, TASKS[args.recipe].pipeline), *args.overrides]
    recipe = TASKS[args.recipe].pipeline(os.environ, overrides, args.sft_only)
    recipe.check()
    if args.dry_run:
        show_programs(recipe, recipe.run_sft if recipe.sft_only else recipe.run)
        return
    with interruptible(recipe.folder):
        run(recipe, RunConsole(args.verbose))


@contextmanager
def interruptible(folder: Path) -> Iterator[None]:
    """Ctrl-C and requests to end stop all programs of the run in ``folder``; a full disk is one line."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    adopt_orphans()
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from here ({folder})", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise InputError(f"cannot write below {folder}: {error.strerror}; free space") from error


if __name__ == "__main__":
    run_main(main)
