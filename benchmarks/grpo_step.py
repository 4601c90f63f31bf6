"""How long a step of this repository's GRPO takes (verl: Ray, FSDP2, vLLM), beside TRL's GRPOTrainer on the same work.

    python -m benchmarks.grpo_step --run outputs/ehrsql_tiny [preset=tiny ...]

Both sides train on the CPU from the run's SFT model, on the same prompts of its parquet in the same order, with the
same number of rollouts, limits of length, temperature, learning rate, precision (float32) and reward. They take turns,
each time in processes of their own. TRL generates with transformers, all rollouts of a step at once, and lives in an
environment of its own. Hydra overrides choose the preset and its sizes; TRL does not follow another ``algo``.

verl's side leaves the answers of equal rewards out of the update, since their gradient is zero
(recipes/trainer/monitored.py); TRL's computes it. The learning rate is constant on both sides.

A step lasts from the end of the step before to its own end, on both sides. The first one, which warms up, is left out.
A run's figure is the mean over its steps; the table shows the median over the repetitions and their range.

``--sft`` measures a step of SFT instead (verl, ``recipes.launch ehrsql_sft``), beside a plain loop in one process:
transformers, padded batches, AdamW.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple

import psutil
import pyarrow.parquet as pq
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from benchmarks.ecg_grader_speed import cpu_name
from data_prep.common.errors import InputError, run_main
from recipes.config import compose_config, override

REPO = Path(__file__).resolve().parent.parent
TRL = "1.16.0"
TRL_VENV = Path("~/.cache/clinical_rl_recipes/trl")
# Of verl's metrics, what they are here. A part of several metrics is their sum.
GRPO_METRICS = {
    "generation": ("timing_s/gen",),
    "update": ("timing_s/old_log_prob", "timing_s/update_actor"),
    "weight sync": ("timing_s/update_weights",),
    "longest wait for a reward": ("timing_s/reward/max",),
    "response_tokens": ("response_length/mean",),
    "updated": ("actor/answers_with_advantage",),
}
SFT_METRICS = {"tokens": ("train/global_tokens",)}
PARTS = ("generation", "reward", "update", "weight sync")  # those that add up, with "other", to a step
ROWS = {
    "seconds": "a step, s",
    "generation": "  generation",
    "reward": "  reward",
    "update": "  update: forward, backward, optimizer",
    "weight sync": "  weight sync",
    "other": "  other",
    "longest wait for a reward": "longest wait for a reward, s (in generation)",
    "response_tokens": "tokens of a rollout, mean",
    "updated": "share of the rollouts in the update",
    "tokens": "tokens of a batch",
}
Step = dict[str, float]  # by the keys of ROWS


class Figure(NamedTuple):
    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 1 if self.median >= 10 else 2
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def read_verl(folder: Path, metrics: dict[str, tuple[str, ...]]) -> list[Step]:
    """A run's steps without the first, from its TensorBoard log, which knows when each was logged.

    Raises ``KeyError`` if the run did not log a metric.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = EventAccumulator(str(folder)).Reload()
    logged = {tag: {event.step: event for event in log.Scalars(tag)} for tag in log.Tags()["scalars"]}
    clock = logged[next(iter(metrics.values()))[0]]
    steps = []
    for before, step in pairwise(sorted(clock)):
        values = {name: sum(logged[tag][step].value for tag in tags) for name, tags in metrics.items()}
        steps.append({"seconds": clock[step].wall_time - clock[before].wall_time, **values})
    return steps


def with_other(step: Step) -> Step:
    """The step with what its parts leave of it."""
    return {**step, "other": step["seconds"] - sum(step.get(part, 0.0) for part in PARTS)}


def summarise(runs: list[list[Step]]) -> dict[str, Figure]:
    """Median and range, over the repetitions, of the runs' means."""
    means = [{key: fmean(step[key] for step in steps) for key in steps[0]} for steps in runs]
    columns = {key: [mean[key] for mean in means] for key in means[0]}
    return {key: Figure(median(values), min(values), max(values)) for key, values in columns.items()}


def make_table(sides: dict[str, dict[str, Figure]]) -> Table:
    """A row for each figure, a column for each of the two sides, and the second side's medians over the first's."""
    (one, ours), (other, theirs) = sides.items()
    table = Table("", one, other, f"{other} / {one}")
    for column in table.columns[1:]:
        column.justify = "right"
    for key, label in ROWS.items():
        if key in ours or key in theirs:
            ratio = f"{theirs[key].median / ours[key].median:.2f}" if key in ours and key in theirs else ""
            cells = [str(side[key]) if key in side else "" for side in (ours, theirs)]
            table.add_row(label, *cells, ratio if key != "other" else "")
    return table


def draw_rows(file: Path, count: int, out_file: Path) -> None:
    """Write ``count`` rows of a parquet file, the same in each call.

    Raises:
        InputError: the file is missing or has fewer rows.
    """
    if not file.is_file():
        raise InputError(f"no such file: {file}; give the output folder of a run of scripts/run_grpo_ehrsql.sh")
    rows = pq.read_table(file)
    if len(rows) < count:
        raise InputError(f"{file} has {len(rows)} rows, but the steps need {count}; lower --steps")
    pq.write_table(rows.take(random.Random(0).sample(range(len(rows)), count)), out_file)


def run_process(name: str, command: list[str], env: dict[str, str], log: Path) -> None:
    """Run a process to its end. Raises ``InputError``, and keeps its output, if it fails."""
    with log.open("wb") as file:
        code = subprocess.run(command, cwd=REPO, env=env, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        kept = shutil.copy(log, tempfile.mkdtemp(prefix="grpo_step_"))
        raise InputError(f"{name} ended with code {code}; its output is in {kept}")


def run_verl(name: str, overrides: list[str], steps: int, folder: Path) -> None:
    """``steps`` steps of a trainer without validation; its logs are in ``folder``."""
    folder.mkdir()
    options = [override("trainer.default_local_dir", folder), f"trainer.total_training_steps={steps}"]
    options += ["trainer.total_epochs=1", "trainer.save_freq=-1", "trainer.test_freq=-1", "trainer.resume_mode=disable"]
    command = [sys.executable, "-m", "recipes.launch", name, *overrides, *options]
    run_process("verl", command, dict(os.environ), folder / "output.log")


def trl_python(python: Path | None, venv: Path) -> Path:
    """The Python of an environment with TRL: ``python``, or that of ``venv``, which is made if need be.

    Raises:
        InputError: there is no such Python or no TRL in it, or it cannot be installed.
    """

    def has_trl(path: Path) -> bool:
        check = f"from importlib.metadata import version; assert version('trl') == '{TRL}'"
        return path.is_file() and subprocess.run([path, "-c", check], stderr=subprocess.DEVNULL).returncode == 0

    if python:
        if not has_trl(python):
            raise InputError(f"no TRL {TRL} at {python}; install trl=={TRL} there, or leave --trl_python out")
        return python.absolute()
    path = venv.expanduser().absolute() / "bin" / "python"
    if not has_trl(path):
        torch = version("torch").split("+")[0]
        print(f"installing TRL {TRL} and torch {torch} into {venv}", flush=True)
        for command in (
            [sys.executable, "-m", "venv", str(path.parents[1])],
            [str(path), "-m", "pip", "install", "--quiet", f"torch=={torch}", f"trl=={TRL}"],
        ):
            if subprocess.run(command).returncode:
                raise InputError(f"cannot install TRL into {venv}; see the lines above, or give --trl_python")
    return path


def plain_sft(settings: dict) -> list[Step]:
    """The steps of a plain loop on the rows of a file, ``settings["batch"]`` at a time, the first included."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, utils

    utils.logging.disable_progress_bar()
    torch.set_num_threads(os.cpu_count())
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), settings["learning_rate"], settings["betas"], weight_decay=settings["weight_decay"]
    )

    def encode(messages: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids, and the same with those before the answer as -100."""
        options = {"return_dict": False, **settings["chat_template_kwargs"]}
        ids = torch.tensor(tokenizer.apply_chat_template(messages, **options)[: settings["max_length"]])
        prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, **options)
        return ids, torch.cat([torch.full_like(ids[: len(prompt)], -100), ids[len(prompt) :]])

    def pad(sequences: list[torch.Tensor], value: int) -> torch.Tensor:
        return torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=value)

    rows, batch = pq.read_table(settings["rows"]).column("messages").to_pylist(), settings["batch"]
    steps = []
    for first in range(0, len(rows), batch):
        started = time.perf_counter()
        ids, labels = zip(*map(encode, rows[first : first + batch]), strict=True)
        mask = pad([torch.ones_like(one) for one in ids], 0)
        loss = model(pad(ids, tokenizer.pad_token_id), attention_mask=mask, labels=pad(labels, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip_grad"])
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        steps.append({"seconds": time.perf_counter() - started, "tokens": int(mask.sum())})
    return steps


def optimizer_settings(optim: DictConfig) -> dict:
    return {
        "learning_rate": optim.lr,
        "betas": list(optim.betas),
        "weight_decay": optim.weight_decay,
        "clip_grad": optim.clip_grad,
    }


def measure_grpo(args: argparse.Namespace, folder: Path) -> tuple[dict, dict, dict[str, list[list[Step]]]]:
    """The settings of both sides, TRL's versions, and each side's runs."""
    overrides = ["hardware=cpu", *args.overrides]
    config = compose_config("ehrsql_grpo", overrides)
    python = trl_python(args.trl_python, args.trl_venv)
    prompts, rows = folder / "prompts.parquet", config.data.train_batch_size
    draw_rows(args.run / "data" / "parquet" / "train.parquet", args.steps * rows, prompts)
    rollouts = config.actor_rollout_ref.rollout.n
    if args.trl_micro_batch < 1 or rows * rollouts % args.trl_micro_batch:
        raise InputError(f"--trl_micro_batch is {args.trl_micro_batch}; give a divisor of {rows} x {rollouts}")
    settings = {
        "model": str(args.model),
        "rows": str(prompts),
        "prompts": rows,
        "rollouts": rollouts,
        "steps": args.steps,
        "micro_batch": args.trl_micro_batch,
        "max_response_length": config.data.max_response_length,
        "temperature": config.actor_rollout_ref.rollout.temperature,
        "chat_template_kwargs": OmegaConf.to_container(config.data.apply_chat_template_kwargs),
        **optimizer_settings(config.actor_rollout_ref.actor.optim),
    }
    overrides += ["recipe.grpo.warmup_steps=0", "recipe.grpo.lr_scheduler=constant"]
    overrides += ["data.shuffle=False", "trainer.val_before_train=False"]
    overrides += [override(f"data.{key}_files", prompts) for key in ("train", "val")]
    overrides += [override("actor_rollout_ref.model.path", args.model)]
    versions: dict[str, str] = {}

    def verl(number: int) -> list[Step]:
        out = folder / f"verl_{number}"
        run_verl("ehrsql_grpo", overrides, args.steps, out)
        return list(map(with_other, read_verl(out / "tensorboard", GRPO_METRICS)))

    def trl(number: int) -> list[Step]:
        given, written = folder / f"trl_{number}.json", folder / f"trl_{number}_steps.json"
        given.write_text(json.dumps(settings | {"seed": number}))
        command = [str(python), str(REPO / "benchmarks" / "grpo_step_trl.py"), str(given), str(written)]
        run_process("TRL", command, os.environ | {"PYTHONPATH": str(REPO)}, folder / f"trl_{number}.log")
        result = json.loads(written.read_text())
        versions.update(result["versions"])
        return list(map(with_other, result["steps"][1:]))

    return settings, versions, take_turns({"verl": verl, "TRL": trl}, args)


def measure_sft(args: argparse.Namespace, folder: Path) -> tuple[dict, dict, dict[str, list[list[Step]]]]:
    """The settings of both sides, no further versions, and each side's runs."""
    overrides = ["sft_hardware=cpu", *args.overrides]
    config = compose_config("ehrsql_sft", overrides)
    pairs, rows = folder / "pairs.parquet", config.data.train_batch_size
    draw_rows(args.run / "data" / "parquet" / "sft_train.parquet", args.steps * rows, pairs)
    settings = {
        "model": str(args.model),
        "rows": str(pairs),
        "batch": rows,
        "steps": args.steps,
        "max_length": config.data.max_length,
        "chat_template_kwargs": OmegaConf.to_container(config.data.apply_chat_template_kwargs),
        **optimizer_settings(config.optim),
    }
    overrides += [override("data.train_files", pairs), "data.val_files=null", override("model.path", args.model)]

    def verl(number: int) -> list[Step]:
        out = folder / f"verl_{number}"
        run_verl("ehrsql_sft", overrides, args.steps, out)
        return read_verl(out / "tensorboard", SFT_METRICS)

    def plain(number: int) -> list[Step]:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(plain_sft, settings).result()[1:]

    return settings, {}, take_turns({"verl": verl, "one process": plain}, args)


def take_turns(sides: dict[str, Callable[[int], list[Step]]], args: argparse.Namespace) -> dict[str, list[list[Step]]]:
    """The runs of each side. Raises ``InputError`` if one made fewer steps than it was to make."""
    runs: dict[str, list[list[Step]]] = {name: [] for name in sides}
    for number in range(1, args.repetitions + 1):
        for name, side in sides.items():
            steps = side(number)
            if len(steps) != args.steps - 1:
                made = f"{name} made {len(steps) + 1} steps of {args.steps}"
                raise InputError(f"{made}, since it left long prompts out; raise recipe.max_prompt_length")
            runs[name].append(steps)
            print(f"{name}, run {number}: {fmean(step['seconds'] for step in steps):.2f} s a step", flush=True)
    return runs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grpo_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="Hydra overrides of configs/ehrsql_grpo.yaml or ehrsql_sft.yaml")
    parser.add_argument("--run", type=Path, required=True, help="output folder of a run: data/parquet and models")
    parser.add_argument(
        "--model", type=Path, help="start model (default: models/sft of the run, models/tiny for --sft)"
    )
    parser.add_argument("--sft", action="store_true", help="measure a step of SFT, not of GRPO")
    parser.add_argument("--steps", type=int, help="of a run, the first included (default: 6 of GRPO, 60 of SFT)")
    parser.add_argument("--repetitions", type=int, default=3, help="runs of each side (default: 3)")
    parser.add_argument("--trl_micro_batch", type=int, default=64, help="rows of TRL's backward pass (default: 64)")
    parser.add_argument("--trl_python", type=Path, help=f"the Python of an environment with TRL {TRL}")
    parser.add_argument("--trl_venv", type=Path, default=TRL_VENV, help=f"where TRL is installed (default: {TRL_VENV})")
    parser.add_argument("--out_file", type=Path, help="JSON with all steps")
    args = parser.parse_args(argv)
    args.steps = args.steps or (60 if args.sft else 6)
    args.model = (args.model or args.run / "models" / ("tiny" if args.sft else "sft")).absolute()
    if args.steps < 2:
        raise InputError(f"--steps is {args.steps}; give at least 2, since the first step is left out")
    if not (args.model / "config.json").is_file():
        raise InputError(f"no model in {args.model}; give --model")

    with tempfile.TemporaryDirectory(prefix="grpo_step_") as folder:
        settings, versions, runs = (measure_sft if args.sft else measure_grpo)(args, Path(folder))
    sides = {name: summarise(steps) for name, steps in runs.items()}
    report = {
        "hardware": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "ram_gib": round(psutil.virtual_memory().total / 2**30, 1),
        },
        "versions": {name: version(name) for name in ("verl", "torch", "transformers")},
        "trl_versions": versions,
        "settings": settings,
        "figures": {name: {key: figure._asdict() for key, figure in side.items()} for name, side in sides.items()},
        "runs": runs,
    }
    if args.out_file:
        args.out_file.parent.mkdir(parents=True, exist_ok=True)
        args.out_file.write_text(json.dumps(report, indent=1) + "\n")

    console = Console(width=120)
    console.print("{cpu}, {cores} cores, {ram_gib} GiB of memory".format(**report["hardware"]))
    for installed in filter(None, (report["versions"], versions)):
        console.print("; ".join(f"{name} {number}" for name, number in installed.items()))
    if args.sft:
        work = f"SFT, {settings['batch']} pairs"
    else:
        work = "GRPO, {prompts} prompts x {rollouts} rollouts of at most {max_response_length} tokens".format(
            **settings
        )
    console.print(f"A step of {work}. Runs of each side: {args.repetitions}, steps timed in each: {args.steps - 1}")
    console.print(make_table(sides))
    console.print("Median over the runs [lowest, highest]")


if __name__ == "__main__":
    run_main(main)
