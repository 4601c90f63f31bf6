"""GRPO beside what it is compared with, from the same start and for about the same time, for RESULTS.md.

Continued SFT goes on with the pairs of SFT. Rejection-sampling fine-tuning takes the right ones of the start model's
own answers to questions of GRPO. The recipe runs first, where it has not run.

``SEED=0 python -m benchmarks.baselines ehrsql [the overrides that the recipe ran with ...]``
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from pyarrow.parquet import read_metadata

from data_prep.common.errors import InputError, run_main
from recipes import run
from recipes.pipeline.console import RunConsole
from recipes.pipeline.recipe import Recipe
from recipes.pipeline.settings import load_environment
from recipes.pipeline.stages import MARKER, Stages
from recipes.report.summary import write_summary
from recipes.tasks.registry import TASKS

BASELINES = ("continued_sft", "rejection_sampling")
# The score from which an own answer is right. ECG answers that are half right count as correct elsewhere
# (data_prep/ecg/teacher.py), but are nothing to imitate.
THRESHOLD = {"ehrsql": "1", "ecg": "0.8"}


def fine_tune(recipe: Recipe, stages: Stages, name: str, pairs: Path, seconds: int) -> None:
    """SFT from the start model on ``pairs`` for about ``seconds``, its export and its evaluation."""
    size = recipe.block.sft.batch_size
    if not (batches := read_metadata(pairs).num_rows // size):
        raise InputError(f"{pairs} has fewer pairs than a batch ({size}); nothing to train on")
    # A tenth more, since the trainer's start-up weighs more in a shorter run.
    steps = steps_of(recipe, "sft") * seconds * 11 // stages.seconds("sft") // 10
    if steps < 1:
        raise InputError(f"{name}: sampling took as long as GRPO; no time is left to train")
    length = [f"trainer.total_training_steps={steps}", f"trainer.total_epochs={steps // batches + 1}"]
    model = recipe.train_sft(stages, name, [*length, f"trainer.save_freq={steps}", "trainer.test_freq=-1"], pairs)
    recipe.evaluate(stages, f"evaluate_{name}", {name: str(model)})


def baselines(recipe: Recipe, stages: Stages) -> None:
    """Both of them; they do not depend on each other."""
    seconds = stages.seconds("grpo")
    with stages.branch():
        fine_tune(recipe, stages, "continued_sft", recipe.parquet / "sft_train.parquet", seconds)
    pairs = recipe.folder / "data" / "right_answers.parquet"
    sample = [
        *("python", "-m", "benchmarks.rejection_sampling", "--recipe", recipe.task.name),
        *("--model_name", recipe.start_model, "--dataset_path", str(recipe.parquet / recipe.task.train_file)),
        *("--questions", str(steps_of(recipe, "grpo") * recipe.block.grpo.batch_size)),
        *("--samples", str(recipe.block.grpo.rollouts)),
        *("--max_response_length", str(recipe.block.max_response_length), "--threshold", THRESHOLD[recipe.task.name]),
        *("--seed", str(recipe.seed), "--out_file", str(pairs)),
    ]
    stages.stage("right_answers", pairs, sample)
    fine_tune(recipe, stages, "rejection_sampling", pairs, seconds - stages.seconds("right_answers"))


def steps_of(recipe: Recipe, training: str) -> int:
    return int((recipe.folder / training / MARKER).read_text())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=tuple(TASKS))
    parser.add_argument("overrides", nargs="*", help="those that the recipe ran with")
    args = parser.parse_args(argv)
    load_environment(os.environ)
    os.environ.setdefault("OUTPUT_DIR", f"outputs/{args.recipe}_seed_{os.environ.get('SEED') or 0}")
    recipe = TASKS[args.recipe].pipeline(os.environ, args.overrides)
    recipe.check()
    if not recipe.trains_sft():
        raise InputError("these baselines start from SFT; leave out recipe.sft.enabled=False")
    console = RunConsole()
    with run.interruptible(recipe.folder):
        with run.session(recipe, console) as stages:
            recipe.run(stages)
        with run.session(recipe, console) as stages:  # the baselines depend on SFT alone, which has run
            recipe.prepare_data(stages)
            recipe.start_model = str(recipe.train_sft(stages))
            baselines(recipe, stages)
        runs = {label: recipe.results / label for label in (recipe.start_label, "grpo", *BASELINES)}
        write_summary(runs, [recipe.folder / "grpo" / "metrics"], recipe.folder / "baselines", console.rich, {})
    times = ", ".join(f"{name} {stages.seconds(name)} s" for name in ("grpo", "continued_sft", "right_answers"))
    print(f"{times}, rejection_sampling {stages.seconds('rejection_sampling')} s")


if __name__ == "__main__":
    run_main(main)
