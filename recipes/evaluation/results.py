"""Evaluations on disk: ``evaluate`` writes them, ``recipes.compare`` reads them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from rich.console import Console

from data_prep.common.atomic import atomic_output
from data_prep.common.errors import InputError
from data_prep.common.printable import printable
from recipes.tasks.registry import DEFAULT, TASKS


@dataclass(frozen=True)
class Run:
    """A ``results.json``: which recipe it is of, its graded samples (that recipe's ``Sample``), sorted by id, what
    ``evaluate`` was asked for, and its figures."""

    file: Path
    recipe: str
    samples: list[Any]
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


def write_results(
    folder: Path,
    summary: dict[str, Any],
    config: dict[str, Any],
    samples: Sequence[Any],
    further: Mapping[str, Callable[[Path], None]],
) -> Path:
    """Write ``results.json``, ``evaluation.log`` and ``further`` files to the new ``folder``: all or none.

    ``further`` has for each name of a file what writes it. Returns the folder: where another evaluation has made
    ``folder`` meanwhile, one with a number behind the name.
    """
    taken = (folder.with_name(f"{folder.name}_{number}") for number in count(2))
    folder = next(place for place in chain([folder], taken) if not place.exists())
    recipe = TASKS[config["recipe"]].evaluation
    results = {"summary": summary, "config": config, "samples": [asdict(sample) for sample in samples]}
    with atomic_output(folder, "results.json") as partial:
        partial.mkdir()
        (partial / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        with (partial / "evaluation.log").open("w", encoding="utf-8", errors="backslashreplace") as log:
            for name, value in config.items():
                print(f"{name}: {value}", file=log)
            Console(file=log, width=100).print(recipe.summary_table(summary, "Summary"))
            for sample in samples:
                print(file=log)
                for line in recipe.log_lines(sample):
                    print(printable(line), file=log)
        for name, write in further.items():
            write(partial / name)
    return folder


def results_file(path: Path) -> Path:
    """``path`` itself or, if it is a folder, the ``results.json`` in or under it that was written last.

    Raises:
        InputError: there is no such file or folder, or the folder holds none.
    """
    if not path.exists():
        raise InputError(f"no such file or folder: {path}; check the path, or evaluate first")
    if not path.is_dir():
        return path
    if not (files := sorted(path.rglob("results.json"))):
        raise InputError(f"{path} holds no results.json; evaluate first")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def read_run(path: Path) -> Run:
    """The run in the ``results.json`` that ``path`` is or holds. Files that name no recipe are EHRSQL's.

    Raises:
        InputError: there is no such file, or it is not what ``evaluate`` writes.
    """
    path = results_file(path)
    content = read_text(path)
    try:
        results = json.loads(content)
        name = results["config"].get("recipe", DEFAULT)
        recipe = TASKS[name].evaluation
        samples = recipe.graded([recipe.Sample(**record) for record in results["samples"]])
        summary = dict(results["summary"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no results.json of evaluate ({error}); evaluate again") from error
    if not samples:
        raise InputError(f"{path} has no graded samples; evaluate again")
    return Run(path, name, sorted(samples, key=lambda sample: sample.id), results["config"], summary)


def check_same_questions(runs: dict[str, Run]) -> None:
    """Compare label -> run.

    Raises:
        InputError: the runs are of different recipes, or not about the same questions and right answers.
    """
    first, *others = runs
    identity = TASKS[runs[first].recipe].evaluation.identity
    expected = [identity(sample) for sample in runs[first].samples]
    for label in others:
        if runs[label].recipe != runs[first].recipe:
            raise InputError(f"{label} is of recipe {runs[label].recipe}, {first} of {runs[first].recipe}")
        found = [identity(sample) for sample in runs[label].samples]
        if found != expected:
            differing = len({key[0] for key in {*found} ^ {*expected}})
            raise InputError(
                f"{label} and {first} are not about the same questions and gold answers ({differing:,} differ); "
                "evaluate both on the same dataset with the same --num_samples and --seed"
            )


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}; check the path, or run that stage first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error
