import pytest
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from recipes.config import compose_config
from recipes.monitor import TrainingFailed
from recipes.monitored_trainer import MAX_DRAWN, POLL_S, MonitoredTrainer


@pytest.fixture
def trainer(tmp_path):
    paths = [f"actor_rollout_ref.model.path={tmp_path}", f"trainer.default_local_dir={tmp_path}"]
    return MonitoredTrainer(compose_config("ehrsql_grpo", ["algo=dapo", *paths]))


def test_verl_takes_it_for_a_synchronous_trainer(trainer):
    """verl's buffer for asynchronous trainers would let DAPO's surplus of one step wait for the next."""
    assert trainer.trainer_mode == "sync"
    assert type(trainer.replay_buffer) is ReplayBuffer


def test_it_looks_for_complete_rollouts_more_often_than_verl(trainer, monkeypatch):
    waits = []
    monkeypatch.setattr("verl.trainer.ppo.v1.replay_buffer.time.sleep", waits.append)
    trainer.replay_buffer._wait_for_next_poll("train", 0.0)
    assert waits == [POLL_S]


@pytest.mark.parametrize(
    ("prompts", "val_prompts", "message"),
    [
        (1, 1, "1 prompts .* batch of 32"),
        (0, 1, "no prompt of data.train_files is short enough"),
        (32, 0, "no prompt of data.val_files is short enough"),
    ],
)
def test_prompts_too_few_for_a_batch_end_the_run(trainer, monkeypatch, prompts, val_prompts, message):
    """``max_prompt_length`` may leave out most prompts, or all."""
    datasets = iter([["a prompt"] * prompts, ["a prompt"] * val_prompts])
    monkeypatch.setattr("verl.trainer.ppo.v1.trainer_base.create_rl_dataset", lambda *_, **__: next(datasets))
    trainer.tokenizer = trainer.processor = None
    with pytest.raises(TrainingFailed, match=message):
        trainer._init_dataloader()


def test_a_validation_that_could_not_be_graded_ends_the_run(trainer):
    trainer.global_steps = 3
    columns = {"reward": [0.0, 1.0], "grader_failed": [1.0, 0.0], "pred": ["no database", "ab12"]}
    with pytest.raises(TrainingFailed, match=r"1 of 2 answers of the validation at step 3 .*\(no database\)"):
        trainer._val_metrics_update(["ehrsql"] * 2, ["a", "b"], columns, [])
    metrics = trainer._val_metrics_update(["ehrsql"] * 2, ["a", "b"], columns | {"grader_failed": [0.0, 0.0]}, [])
    assert metrics["val-core/ehrsql/reward/mean@1"] == 0.5


def test_dapo_gives_up_where_all_answers_earn_the_same(trainer, monkeypatch):
    submitted = []
    monkeypatch.setattr(trainer, "_next_train_batch", lambda number: number)
    monkeypatch.setattr(trainer, "_submit_batch_to_rollout", submitted.append)
    trainer.global_steps = 3
    with pytest.raises(TrainingFailed, match="step 3 found too few prompts"):
        for _ in range(1000):
            trainer.replay_buffer.refill_fn(32)
    assert len(submitted) == MAX_DRAWN
    trainer.global_steps = 4
    trainer.replay_buffer.refill_fn(32)
    assert len(submitted) == MAX_DRAWN + 1
