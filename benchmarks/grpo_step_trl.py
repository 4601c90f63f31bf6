"""TRL's side of ``benchmarks.grpo_step``: some steps of TRL's GRPOTrainer on the CPU, and the seconds of their parts.

``python benchmarks/grpo_step_trl.py SETTINGS.json STEPS.json`` runs in TRL's own environment, with the repository on
``PYTHONPATH`` for the reward. ``benchmarks.grpo_step`` writes the settings and reads the steps.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from reward_fns.ehrsql import compute_score

POOL = ThreadPoolExecutor(os.cpu_count())  # verl, too, grades rollouts in threads


class TimedTrainer(GRPOTrainer):
    """Notes the seconds of a step's generation and reward, when both are done, and the mean length of the rollouts."""

    def __init__(self, *args, **kwargs) -> None:
        self.parts: dict[str, float] = {}
        self.scored_at = 0.0
        super().__init__(*args, **kwargs)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.parts[part] = time.perf_counter() - start

    def _generate(self, prompts):
        with self.timed("generation"):
            output = super()._generate(prompts)
        self.parts["response_tokens"] = fmean(map(len, output[1]))
        return output

    def _calculate_rewards(self, *args, **kwargs):
        with self.timed("reward"):
            return super()._calculate_rewards(*args, **kwargs)

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        self.scored_at = time.perf_counter()
        return output


class StepClock(TrainerCallback):
    """Collects a trainer's steps, each from the end of the step before to its own."""

    def __init__(self) -> None:
        self.trainer: TimedTrainer | None = None
        self.steps: list[dict[str, float]] = []
        self.last_end = 0.0

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.last_end = time.perf_counter()

    def on_optimizer_step(self, args, state, control, **kwargs) -> None:
        self.trainer.parts["update"] = time.perf_counter() - self.trainer.scored_at

    def on_step_end(self, args, state, control, **kwargs) -> None:
        end = time.perf_counter()
        self.steps.append({"seconds": end - self.last_end, **self.trainer.parts})
        self.last_end = end


def reward(completions, ground_truth, extra_info, data_source, **_) -> list[float]:
    """The scores of a batch: what verl calls once a rollout."""
    texts = [completion[0]["content"] for completion in completions]
    results = POOL.map(compute_score, data_source, texts, ground_truth, extra_info)
    return [result["score"] for result in results]


def main(settings_file: Path, out_file: Path) -> None:
    settings = json.loads(settings_file.read_text())
    torch.set_num_threads(os.cpu_count())
    rows = Dataset.from_list(
        [
            {
                "data_source": row["data_source"],
                "prompt": row["prompt"],
                "ground_truth": row["reward_model"]["ground_truth"],
                "extra_info": row["extra_info"],
            }
            for row in pq.read_table(settings["rows"]).to_pylist()
        ]
    )
    config = GRPOConfig(
        output_dir=str(out_file.parent / "trl"),
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": "float32"},
        gradient_checkpointing=False,
        # The rollouts of one step are one batch of generation and one update, on-policy.
        per_device_train_batch_size=settings["micro_batch"],
        gradient_accumulation_steps=settings["prompts"] * settings["rollouts"] // settings["micro_batch"],
        num_generations=settings["rollouts"],
        max_steps=settings["steps"],
        shuffle_dataset=False,
        max_completion_length=settings["max_response_length"],
        temperature=settings["temperature"],
        chat_template_kwargs=settings["chat_template_kwargs"],
        beta=0.0,
        loss_type="dapo",  # the mean over all tokens of the step, as verl's token-mean
        scale_rewards="none",
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        adam_beta1=settings["betas"][0],
        adam_beta2=settings["betas"][1],
        weight_decay=settings["weight_decay"],
        max_grad_norm=settings["clip_grad"],
        seed=settings["seed"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    )
    clock = StepClock()
    trainer = TimedTrainer(settings["model"], reward, config, train_dataset=rows, callbacks=[clock])
    clock.trainer = trainer
    trainer.train()
    versions = {name: version(name) for name in ("trl", "torch", "transformers")}
    out_file.write_text(json.dumps({"versions": versions, "steps": clock.steps}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
