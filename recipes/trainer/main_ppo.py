"""``verl.trainer.main_ppo`` with a task runner that knows ``recipes.trainer.monitored``; ``recipes.launch`` starts it.

``python -m recipes.trainer.main_ppo --config-dir configs --config-name ehrsql_grpo hydra.searchpath=[...]``.
Subclassing the task runner is how verl means recipes to add to it (``run_ppo``).
"""

import sys

import hydra
import ray
from omegaconf import DictConfig
from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import validate_config

from data_prep.common.errors import InputError
from recipes.trainer.monitor import TrainingFailed


@ray.remote
class TaskRunner(TaskRunnerV1.__ray_actor_class__):
    def run(self, config: DictConfig) -> None:
        import recipes.trainer.monitored  # noqa: F401  registers the trainer in this process of Ray's

        super().run(config)


@hydra.main(config_path=None, version_base=None)
def main(config: DictConfig) -> None:
    validate_config(config, need_reference_policy(config), need_critic(config))
    try:
        run_ppo(config, task_runner_class=TaskRunner)
    except (InputError, TrainingFailed) as error:  # with Ray's traceback around its cause
        sys.exit(str(error.cause))  # Hydra would print a traceback of anything else


if __name__ == "__main__":
    main()
