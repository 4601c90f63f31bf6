"""verl's synchronous GRPO trainer, with metrics, alarms, and reward workers that restart.

Importing this module registers it with verl as ``trainer.v1.trainer_mode: monitored``. verl's own trainer

* logs the score of the reward function, but none of the other values that it returns;
* ends when a reward worker dies;
* goes on training when the grader fails;
* computes gradients that are zero;
* never stops to draw prompts whose answers earn different rewards (DAPO), if there are none.
"""

from collections import Counter
from pathlib import Path
from statistics import fmean

import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from verl.experimental.reward_loop import RewardLoopWorker
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer

from recipes.trainer.monitor import Drift, TrainingFailed, check_graded, rollout_metrics

FIELDS = ("uid", "responses", "data_source", "extra_fields", "metrics")
# Of the run's folder.
BASELINE_FILE = "monitor_baseline.json"
POLL_S = 0.2  # how often a step looks whether its rollouts are complete; verl's 2 s are a good part of a short step
ROUNDING = 1e-6  # of the mean of equal rewards, which an advantage of zero may differ by
MAX_DRAWN = 20  # batches of prompts that one step may draw in place of those that DAPO drops
LONGER_PROMPTS = "raise recipe.max_prompt_length and recipe.max_length"
MAX_RESTARTS = 10  # of a reward worker; one that dies more often has a cause that a restart does not mend


@register_trainer("monitored")
class MonitoredTrainer(PPOTrainerSync):
    def __init__(self, config: DictConfig):
        # verl tells a synchronous trainer from the others by this name, e.g. to choose the replay buffer.
        config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)
        self.replay_buffer.poll_interval = POLL_S
        self.drawn: Counter[int] = Counter()  # prompts by step
        monitor = OmegaConf.to_container(config.monitor)
        self.drift = Drift(**monitor, file=Path(config.trainer.default_local_dir) / BASELINE_FILE)

    def _init_dataloader(self) -> None:
        try:
            super()._init_dataloader()
        except ValueError as error:  # torch's, of a data set without a prompt
            if len(self.train_dataset) and len(self.val_dataset):
                raise
            empty = "data.val_files" if len(self.train_dataset) else "data.train_files"
            raise TrainingFailed(f"no prompt of {empty} is short enough; {LONGER_PROMPTS}") from error
        if self.steps_per_epoch == 0:
            raise TrainingFailed(
                f"{len(self.train_dataset)} prompts of data.train_files are left, too few for a batch of "
                f"{self.config.data.train_batch_size}; lower the batch size, or {LONGER_PROMPTS}"
            )

    def _add_prompts_to_generate(self, num_prompts: int) -> int:
        """Called where DAPO has dropped groups of equal rewards. verl would go on for ever."""
        self.drawn[self.global_steps] += num_prompts
        if self.drawn[self.global_steps] > MAX_DRAWN * self.config.data.train_batch_size:
            raise TrainingFailed(
                f"step {self.global_steps} found too few prompts whose answers earn different rewards, in "
                f"{MAX_DRAWN} times as many as it needs; use algo=grpo or other data, or see whether the grader fails"
            )
        return super()._add_prompts_to_generate(num_prompts)

    def get_reward_handles(self) -> list[ray.actor.ActorHandle] | None:
        """Reward workers as verl starts them, but that Ray restarts when they die, and whose calls it repeats then."""
        workers = super().get_reward_handles()
        if workers is None:
            return None
        restarting = ray.remote(max_restarts=MAX_RESTARTS, max_task_retries=MAX_RESTARTS)(RewardLoopWorker)
        manager = self.reward_loop_manager
        manager.reward_loop_workers = [
            restarting.options(scheduling_strategy="SPREAD").remote(self.config, manager.reward_router_address)
            for _ in workers
        ]
        for worker in workers:
            ray.kill(worker)
        return manager.reward_loop_workers

    def _compute_advantage(self, batch, metrics):
        """Checked here, the last call before the update: Adam's momentum moves the weights without a reward, too."""
        extra = _rollouts(batch, ["extra_fields"]).pop("extra_fields").tolist()
        check_graded(f"step {self.global_steps}", [fields.get("reward_extra_info", {}) for fields in extra])
        return super()._compute_advantage(batch, metrics=metrics)

    def _update_actor(self, batch, metrics):
        """verl's update, without the answers whose gradient is known to be zero: those of groups of equal rewards.

        ``actor/entropy_loss``, ``actor/ppo_kl`` and ``actor/pg_clipfrac`` are then means over the answers left.
        """
        actor = self.config.actor_rollout_ref.actor
        one_update = actor.ppo_mini_batch_size == self.config.data.train_batch_size
        plain = actor.policy_loss.loss_mode == "vanilla" and actor.loss_agg_mode == "token-mean"
        if actor.use_kl_loss or actor.entropy_coeff or not plain or not one_update:
            return super()._update_actor(batch, metrics=metrics)
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["advantages", "response_mask"]
        )
        advantages, masks = data["advantages"].unbind(), data["response_mask"].unbind()
        kept = [row for row, advantage in enumerate(advantages) if advantage.abs().max() > ROUNDING]
        metrics["actor/answers_with_advantage"] = len(kept) / len(advantages)
        if len(kept) in (0, len(advantages)):
            return super()._update_actor(batch, metrics=metrics)

        # verl divides the loss by the number of answer tokens, which are fewer now. PPO's clipped loss is proportional
        # to the advantage, so this factor keeps loss and gradient those of the whole batch.
        factor = float(sum(masks[row].sum() for row in kept) / sum(mask.sum() for mask in masks))
        keys = [batch.keys[row] for row in kept]
        self._put_advantages(batch.partition_id, keys, [factor * advantages[row] for row in kept])
        padded = self._balance_batch(batch.select_keys(keys), metrics={})
        super()._update_actor(padded, metrics=metrics)
        self._put_advantages(batch.partition_id, keys, [advantages[row] for row in kept])  # which verl logs
        if padding := [key for key in padded.keys if key not in {*keys}]:
            tq.kv_clear(keys=padding, partition_id=batch.partition_id)
        return batch

    def _put_advantages(self, partition: str, keys: list[str], advantages: list[torch.Tensor]) -> None:
        nested = torch.nested.as_nested_tensor(advantages, layout=torch.jagged)
        tq.kv_batch_put(keys=keys, partition_id=partition, fields=TensorDict({"advantages": nested}, len(keys)))

    def _val_metrics_update(self, data_sources, sample_uids, reward_extra_infos_dict, sample_turns):
        keys, columns = reward_extra_infos_dict.keys(), reward_extra_infos_dict.values()
        rewards = [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
        check_graded(f"the validation at step {self.global_steps}", rewards)
        return super()._val_metrics_update(data_sources, sample_uids, reward_extra_infos_dict, sample_turns)

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        data = _rollouts(batch, list(FIELDS))
        responses = [response.tolist() for response in data["responses"].unbind()]
        uids, sources, extra, timings = (data.pop(field).tolist() for field in FIELDS if field != "responses")
        rewards = [fields["reward_extra_info"] for fields in extra]
        metrics |= rollout_metrics(uids, responses, sources, rewards)
        # Rewards are computed while other rollouts are generated: a step waits for the longest at most.
        seconds = [timing["compute_score"] for timing in timings]
        metrics |= {"timing_s/reward/mean": fmean(seconds), "timing_s/reward/max": max(seconds)}
        alarms = self.drift.check(global_steps, metrics)
        metrics["monitor/alarms"] = len(alarms)
        for line in alarms:
            print(line, flush=True)


def _rollouts(batch, fields: list[str]) -> TensorDict:
    """These fields of a step's rollouts, without those that pad the batch."""
    keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
    return tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=fields)
