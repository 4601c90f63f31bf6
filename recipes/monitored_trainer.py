"""verl's synchronous GRPO trainer with the metrics and alarms of ``recipes.monitor``; what ``recipes.launch`` starts.

Registered with verl as ``trainer.v1.trainer_mode: monitored``. verl itself logs the reward function's score, but none
of the other values that it returns.

``python -m recipes.monitored_trainer --config-dir configs --config-name ehrsql_grpo`` is ``verl.trainer.main_ppo`` with
a task runner that knows this trainer, the way verl means recipes to add one.
"""

from pathlib import Path

import hydra
import ray
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer
from verl.utils.config import validate_config

from recipes.monitor import Drift, rollout_metrics

FIELDS = ("uid", "responses", "data_source", "extra_fields")
# Of the run's folder.
BASELINE_FILE = "monitor_baseline.json"


@register_trainer("monitored")
class MonitoredTrainer(PPOTrainerSync):
    def __init__(self, config: DictConfig):
        super().__init__(config)
        monitor = OmegaConf.to_container(config.monitor)
        self.drift = Drift(**monitor, file=Path(config.trainer.default_local_dir) / BASELINE_FILE)

    def _compute_metrics(self, batch, metrics, timing_raw, global_steps, epoch):
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        keys = [key for key, tag in zip(batch.keys, batch.tags, strict=True) if not tag.get("is_padding", False)]
        data = tq.kv_batch_get(keys=keys, partition_id=batch.partition_id, select_fields=list(FIELDS))
        rewards = [fields["reward_extra_info"] for fields in data["extra_fields"].tolist()]
        responses = [response.tolist() for response in data["responses"].unbind()]
        metrics |= rollout_metrics(data["uid"].tolist(), responses, data["data_source"].tolist(), rewards)
        alarms = self.drift.check(global_steps, metrics)
        metrics["monitor/alarms"] = len(alarms)
        for line in alarms:
            print(line, flush=True)


@ray.remote
class TaskRunner(TaskRunnerV1.__ray_actor_class__):
    """verl's task runner. Ray imports this module in the runner's process, which registers the trainer there."""


@hydra.main(config_path=None, version_base=None)
def main(config: DictConfig) -> None:
    validate_config(config, need_reference_policy(config), need_critic(config))
    run_ppo(config, task_runner_class=TaskRunner)


if __name__ == "__main__":
    main()
