"""What GRPO's steps did to greedy validation and to the training reward, from the files of verl's file logger."""

import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean

from data_prep.common.errors import InputError
from recipes.evaluation.results import read_text
from recipes.tasks.protocols import EvaluationPart

TRAINING = "critic/score/mean"  # the mean reward of the training rollouts, as verl names it


def read_curves(paths: Sequence[Path], validation: str) -> dict[str, dict[int, float]]:
    """Step -> value of ``validation`` and ``TRAINING``, from the files of verl's file logger.

    ``validation`` is a pattern such as ``val-core/ecg/*/acc/mean@1``: the metrics of a step that match it are averaged.
    verl truncates its file when a run resumes, so a resumed run has one for each start: of a step that stands in
    several, the last file wins. The files of a folder (``*.jsonl``) are read in the order of their names.

    Raises:
        InputError: a file is missing or malformed, or no step was validated.
    """
    curves: dict[str, dict[int, float]] = {validation: {}, TRAINING: {}}
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    for file in files:
        for number, line in enumerate(read_text(file).split("\n")[:-1], 1):  # a kill leaves a last line without its end
            try:
                record = json.loads(line)
                step, metrics = int(record["step"]), record["data"]
                for pattern, curve in curves.items():
                    # verl writes NaN as null
                    found = [v for name, v in metrics.items() if v is not None and fnmatchcase(name, pattern)]
                    if found:
                        curve[step] = fmean(map(float, found))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(f"{file}, line {number}: no record of verl's file logger; remove the file") from error
    if not curves[validation]:
        raise InputError(f"no {validation} in {', '.join(map(str, paths))}; train with trainer.test_freq above 0")
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def draw_curves(curves: dict[str, dict[int, float]], recipe: EvaluationPart, path: Path) -> None:
    """Write a PNG: greedy validation results over steps, and the training reward as a faint second line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    validation, training = curves[recipe.VALIDATION], curves[TRAINING]
    percents = [100 * value for value in validation.values()]
    lines = axes.plot(list(validation), percents, marker="o", label="validation, greedy")
    axes.set(xlabel="training step", ylabel=recipe.VALIDATION_LABEL, title=f"GRPO on {recipe.TITLE}")
    if training:
        right = axes.twinx()
        style = {"color": "tab:gray", "alpha": 0.4, "linewidth": 1}
        lines += right.plot(list(training), list(training.values()), label="training reward, sampled", **style)
        right.set_ylabel("mean training reward")
    axes.legend(handles=lines, loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)
