import pytest

from recipes.config import compose_config


@pytest.fixture
def trainer(tmp_path):
    from recipes.monitored_trainer import MonitoredTrainer

    paths = [f"actor_rollout_ref.model.path={tmp_path}", f"trainer.default_local_dir={tmp_path}"]
    return MonitoredTrainer(compose_config("ehrsql_grpo", ["algo=dapo", *paths]))


def test_verl_takes_it_for_a_synchronous_trainer(trainer):
    """verl's buffer for asynchronous trainers would let DAPO's surplus of one step wait for the next."""
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

    assert trainer.trainer_mode == "sync"
    assert type(trainer.replay_buffer) is ReplayBuffer


def test_it_looks_for_complete_rollouts_more_often_than_verl(trainer, monkeypatch):
    from recipes.monitored_trainer import POLL_S

    waits = []
    monkeypatch.setattr("verl.trainer.ppo.v1.replay_buffer.time.sleep", waits.append)
    trainer.replay_buffer._wait_for_next_poll("train", 0.0)
    assert waits == [POLL_S]


def test_prompts_too_few_for_a_batch_end_the_run(trainer, monkeypatch):
    from recipes.monitor import TrainingFailed

    def init_dataloader(self):
        self.train_dataset, self.steps_per_epoch = ["one prompt"], 0

    monkeypatch.setattr("verl.trainer.ppo.v1.PPOTrainerSync._init_dataloader", init_dataloader)
    with pytest.raises(TrainingFailed, match="1 prompts .* batch of 32"):
        trainer._init_dataloader()
