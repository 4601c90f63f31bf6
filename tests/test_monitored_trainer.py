import pytest
import torch
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.workers.config import ActorConfig

from recipes.config import compose_config
from recipes.trainer.monitor import TrainingFailed
from recipes.trainer.monitored import MAX_DRAWN, POLL_S, MonitoredTrainer


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


LENGTHS = [3, 5, 2, 4]  # tokens of four answers
ADVANTAGES = [0.75, 0.0, 3e-8, -0.75]  # the third is zero but for the rounding of a mean


class Queue:
    """The transfer queue's rows of one step, in this process."""

    def __init__(self):
        self.rows = {
            f"{number}": {"advantages": torch.full((length,), advantage), "response_mask": torch.ones(length)}
            for number, (length, advantage) in enumerate(zip(LENGTHS, ADVANTAGES, strict=True))
        }

    def kv_batch_get(self, keys, partition_id, select_fields):
        columns = {
            field: torch.nested.as_nested_tensor([self.rows[key][field] for key in keys], layout=torch.jagged)
            for field in select_fields
        }
        return TensorDict(columns, len(keys))

    def kv_batch_put(self, keys, partition_id, fields):
        for key, advantages in zip(keys, fields["advantages"].unbind(), strict=True):
            self.rows[key]["advantages"] = advantages.clone()

    def kv_clear(self, keys, partition_id):
        for key in keys:
            del self.rows[key]


def updated(monkeypatch, tmp_path, *overrides: str):
    """What ``_update_actor`` hands to verl's: rows by key; and the queue, the metrics and the result after it."""
    paths = [f"actor_rollout_ref.model.path={tmp_path}", f"trainer.default_local_dir={tmp_path}"]
    trainer = MonitoredTrainer(compose_config("ehrsql_grpo", [*paths, *overrides]))
    queue, handed = Queue(), {}
    monkeypatch.setattr("recipes.trainer.monitored.tq", queue)

    def balance(batch, metrics):  # as verl's: rows that fill the mini-batch
        queue.rows["padding"] = {"advantages": torch.zeros(1), "response_mask": torch.zeros(1)}
        return KVBatchMeta(keys=[*batch.keys, "padding"], tags=[*batch.tags, {}], partition_id=batch.partition_id)

    def update(self, batch, metrics):
        handed.update({key: {name: value.clone() for name, value in queue.rows[key].items()} for key in batch.keys})
        metrics["actor/pg_loss"] = 1.0
        return batch

    monkeypatch.setattr(trainer, "_balance_batch", balance)
    monkeypatch.setattr(PPOTrainerSync, "_update_actor", update)
    batch, metrics = KVBatchMeta(keys=list(queue.rows), tags=[{}] * len(queue.rows), partition_id="train"), {}
    result = trainer._update_actor(batch, metrics)
    return handed, queue, metrics, result


def gradients(rows: list[dict[str, torch.Tensor]]) -> dict[int, torch.Tensor]:
    """Of verl's own PPO loss over ``rows``, by the position of a row, with respect to its log-probabilities."""
    longest = max(LENGTHS)

    def padded(name):
        return torch.stack([torch.nn.functional.pad(row[name].float(), (0, longest - len(row[name]))) for row in rows])

    mask = padded("response_mask")
    log_prob = (torch.arange(mask.numel()).reshape(mask.shape) * -0.01).requires_grad_()
    config = ActorConfig(strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1)
    config.global_batch_info.update(dp_size=1, batch_num_tokens=mask.sum().item(), global_batch_size=len(rows))
    loss, _ = compute_policy_loss_vanilla(log_prob.detach(), log_prob, padded("advantages"), mask, config=config)
    loss.backward()
    return dict(enumerate(log_prob.grad))


def test_answers_without_an_advantage_are_left_out_of_the_update_with_the_same_gradient(monkeypatch, tmp_path):
    handed, queue, metrics, result = updated(monkeypatch, tmp_path)
    assert list(handed) == ["0", "3", "padding"]
    whole = gradients(list(Queue().rows.values()))
    kept = gradients([handed["0"], handed["3"]])
    assert torch.allclose(kept[0], whole[0]) and torch.allclose(kept[1], whole[3])
    assert whole[1].count_nonzero() == 0 and whole[2].abs().max() < 1e-6
    # What verl logs afterwards is as before, and the padding is gone.
    assert [row["advantages"][0].item() for row in queue.rows.values()] == pytest.approx(ADVANTAGES)
    assert list(queue.rows) == result.keys == ["0", "1", "2", "3"]
    assert metrics == {"actor/answers_with_advantage": 0.5, "actor/pg_loss": 1.0}


@pytest.mark.parametrize(
    "override",
    [
        "algo=grpo_kl",
        "actor_rollout_ref.actor.entropy_coeff=0.01",
        "actor_rollout_ref.actor.ppo_mini_batch_size=16",
        "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean",
        "actor_rollout_ref.actor.policy_loss.loss_mode=clip_cov",
    ],
)
def test_all_answers_train_where_one_without_an_advantage_has_a_gradient_or_counts(monkeypatch, tmp_path, override):
    handed, *_ = updated(monkeypatch, tmp_path, override)
    assert list(handed) == ["0", "1", "2", "3"]
