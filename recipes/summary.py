"""Compares evaluations of one recipe's stages, and draws the training curve.

``python -m recipes.summary --runs start=RESULTS grpo=RESULTS --metrics grpo.jsonl --out_dir D`` prints a table of
the runs with paired differences to the first one and writes ``summary.json``, ``summary.md`` and
``validation_accuracy.png`` to ``D``. RESULTS is a ``results.json`` of ``evaluate``, or a folder; of the files in a
folder the newest is taken.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.atomic import atomic_output
from data_prep.errors import InputError
from recipes.evaluation_metrics import GROUPS, Sample, graded, percent
from recipes.statistics import paired_bootstrap
from reward_fns.reliability import reliability_score

# Greedy validation, as verl names it, and the mean reward of the training rollouts.
VALIDATION = "val-core/ehrsql/acc/mean@1"
TRAINING = "critic/score/mean"

Value = Callable[[Sample], float]
# name -> (which questions, the value of one question in percent); a figure is the mean of the values.
FIGURES: dict[str, tuple[Callable[[Sample], bool], Value]] = {
    **{name: (GROUPS[name], lambda sample: 100 * sample.acc) for name in GROUPS if name != "all questions"},
    "RS(0)": (GROUPS["all questions"], lambda sample: 100 * reliability_score([sample], 0)),
    "RS(10)": (GROUPS["all questions"], lambda sample: 100 * reliability_score([sample], 10)),
}


def results_file(path: Path) -> Path:
    """``path`` itself or, if it is a folder, the ``results.json`` in or under it that was written last.

    Raises:
        InputError: the folder holds none.
    """
    if not path.is_dir():
        return path
    if not (files := sorted(path.rglob("results.json"))):
        raise InputError(f"{path} holds no results.json; evaluate first")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def read_run(path: Path) -> list[Sample]:
    """The graded samples of a ``results.json``, sorted by question id.

    Raises:
        InputError: there is no such file, or it is not what ``evaluate`` writes.
    """
    content = _read(path)
    try:
        samples = graded([Sample(**record) for record in json.loads(content)["samples"]])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no results.json of evaluate ({error}); evaluate again") from error
    if not samples:
        raise InputError(f"{path} has no graded samples; evaluate again")
    return sorted(samples, key=lambda sample: sample.id)


def compare(runs: dict[str, list[Sample]], seed: int = 0) -> dict[str, dict[str, Any]]:
    """For each run and each of ``FIGURES``: ``questions``, ``percent`` and, but for the first run, ``difference``.

    ``difference`` (in points) is to the first run, with the paired bootstrap interval ``low`` and ``high``. Figures
    of no question are None.

    Raises:
        InputError: the runs are not about the same questions.
    """
    first, *_ = runs
    questions = {label: [(s.id, s.ground_truth, s.seen_template) for s in samples] for label, samples in runs.items()}
    for label in runs:
        if questions[label] != questions[first]:
            differing = len({*questions[label]} ^ {*questions[first]})
            raise InputError(
                f"{label} and {first} are not about the same questions and gold answers ({differing} records differ); "
                "evaluate both on the same dataset with the same --num_samples and --seed"
            )
    return {
        label: {
            name: _figure(belongs, value, samples, None if label == first else runs[first], seed)
            for name, (belongs, value) in FIGURES.items()
        }
        for label, samples in runs.items()
    }


def _figure(
    belongs: Callable[[Sample], bool], value: Value, samples: list[Sample], start: list[Sample] | None, seed: int
) -> dict[str, Any]:
    values = [value(sample) for sample in samples if belongs(sample)]
    figure = {"questions": len(values), "percent": percent(values)}
    if start is not None:
        before = [value(sample) for sample in start if belongs(sample)]
        difference = paired_bootstrap(before, values, seed) if values else (None, None, None)
        figure |= zip(("difference", "low", "high"), difference, strict=True)
    return figure


def read_curves(paths: Sequence[Path]) -> dict[str, dict[int, float]]:
    """Step -> value of ``VALIDATION`` and ``TRAINING``, from the files of verl's file logger.

    verl truncates its file when a run resumes, so a resumed run has one for each start: of a step that stands in
    several, the last file wins. The files of a folder (``*.jsonl``) are read in the order of their names.

    Raises:
        InputError: a file is missing or malformed, or no step was validated.
    """
    curves: dict[str, dict[int, float]] = {VALIDATION: {}, TRAINING: {}}
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    for file in files:
        for number, line in enumerate(_read(file).split("\n")[:-1], 1):  # a kill leaves a last line without its end
            try:
                record = json.loads(line)
                step, metrics = int(record["step"]), record["data"]
                for name, curve in curves.items():
                    if metrics.get(name) is not None:  # verl writes NaN as null
                        curve[step] = float(metrics[name])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{file}, line {number}: no record of verl's file logger; remove the file") from error
    if not curves[VALIDATION]:
        raise InputError(f"no {VALIDATION} in {', '.join(map(str, paths))}; train with trainer.test_freq above 0")
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def draw_curves(curves: dict[str, dict[int, float]], path: Path) -> None:
    """Write a PNG: greedy validation accuracy over steps, and the training reward as a faint second line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    validation, training = curves[VALIDATION], curves[TRAINING]
    accuracies = [100 * value for value in validation.values()]
    lines = axes.plot(list(validation), accuracies, marker="o", label="validation accuracy, greedy")
    axes.set(xlabel="training step", ylabel="accuracy on all validation questions (%)", title="GRPO on EHRSQL")
    if training:
        right = axes.twinx()
        style = {"color": "tab:gray", "alpha": 0.4, "linewidth": 1}
        lines += right.plot(list(training), list(training.values()), label="training reward, sampled", **style)
        right.set_ylabel("mean training reward")
    axes.legend(handles=lines, loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)


def cells(figure: dict[str, Any]) -> tuple[str, str]:
    """A figure's value and its difference to the first run, as text."""
    if figure["percent"] is None:
        return "", ""
    value = f"{figure['percent']:.1f}"
    if "difference" not in figure:
        return value, ""
    return value, f"{figure['difference']:+.1f} [{figure['low']:+.1f}, {figure['high']:+.1f}]"


def print_table(comparison: dict[str, dict[str, Any]], console: Console) -> None:
    """One column a run; under each value the difference to the first run."""
    first, *_ = comparison
    table = Table(title="Test results in percent", caption=f"below: difference to {first}, paired 95 % interval")
    for column in ("", "questions", *comparison):
        table.add_column(column, justify="right" if column else "left")
    for name, figure in comparison[first].items():
        values = ("\n".join(filter(None, cells(run[name]))) for run in comparison.values())
        table.add_row(name, f"{figure['questions']:,}", *values)
    console.print(table)


def markdown(comparison: dict[str, dict[str, Any]], curves: dict[str, dict[int, float]]) -> str:
    """The table, the first and last validation and the chart, for ``summary.md``."""
    first, *_ = comparison
    lines = ["# Test results", "", f"In percent; after each value the difference to {first}, paired 95 % interval.", ""]
    lines += [f"| | questions | {' | '.join(comparison)} |", f"| --- |{' ---: |' * (1 + len(comparison))}"]
    for name, figure in comparison[first].items():
        values = (" ".join(filter(None, cells(run[name]))) for run in comparison.values())
        lines.append(f"| {name} | {figure['questions']:,} | {' | '.join(values)} |")
    validation = curves[VALIDATION]
    ends = [f"{100 * validation[step]:.1f} % at step {step}" for step in (min(validation), max(validation))]
    lines += ["", f"Greedy validation accuracy: {' and '.join(ends)}.", ""]
    lines += ["![validation accuracy over training steps](validation_accuracy.png)"]
    return "\n".join(lines) + "\n"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"no such file: {path}; check the path, or run that stage first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def parse_runs(texts: Sequence[str]) -> dict[str, Path]:
    """``["start=A", "grpo=B"]`` as label -> path.

    Raises:
        InputError: a text has no label or no path, or a label occurs twice.
    """
    runs = {}
    for text in texts:
        label, _, path = text.partition("=")
        if not label or not path:
            raise InputError(f"--runs {text}: write LABEL=PATH, e.g. start=results/model/run_1")
        if label in runs:
            raise InputError(f"--runs names {label} twice; give each run its own label")
        runs[label] = Path(path)
    return runs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.summary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", nargs="+", required=True, metavar="LABEL=PATH", help="the first is compared with")
    parser.add_argument(
        "--metrics", nargs="+", type=Path, required=True, help="jsonl files of verl's file logger, or their folder"
    )
    parser.add_argument("--out_dir", type=Path, required=True, help="folder for the summary, made if need be")
    args = parser.parse_args(argv)

    files = {label: results_file(path) for label, path in parse_runs(args.runs).items()}
    comparison = compare({label: read_run(file) for label, file in files.items()})
    print_table(comparison, Console())
    curves = read_curves(args.metrics)
    results, text, chart = (args.out_dir / name for name in ("summary.json", "summary.md", "validation_accuracy.png"))
    with atomic_output(results) as partial:
        sources = {label: str(file) for label, file in files.items()}
        content = json.dumps({"files": sources, "runs": comparison, "curves": curves}, indent=1)
        partial.write_text(content + "\n", encoding="utf-8")
    with atomic_output(text) as partial:
        partial.write_text(markdown(comparison, curves), encoding="utf-8")
    with atomic_output(chart) as partial:
        draw_curves(curves, partial)
    print(f"Wrote {results}, {text} and {chart}")


if __name__ == "__main__":
    main()
