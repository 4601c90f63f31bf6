import os
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from data_prep.common.errors import InputError
from recipes import hardware, launch, train
from recipes.config import compose_config
from recipes.tasks.registry import TASKS

# As many as a batch of any preset.
PROMPTS = pa.table({"prompt": [[{"role": "user", "content": "Which leads show the inferior wall in 2023?"}]] * 1024})


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "find_gpus", list)
    monkeypatch.setattr(train, "load_dotenv", lambda path: False)
    for name in ("HARDWARE", "RAY_ADDRESS", "ATTN_IMPLEMENTATION", "GPUS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "valid"):
        pq.write_table(PROMPTS, folder / f"{name}.parquet")
    return folder


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").touch()
    return folder


def arguments(data, model, tmp_path, *more: str) -> list[str]:
    return ["--data_path", str(data), "--model_name", str(model), "--output_dir", str(tmp_path / "run"), *more]


def started(monkeypatch, argv: list[str]):
    """Run ``train`` up to the exec, and return the trainer's command, environment and composed config."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    train.main(argv)
    ((program, command, env),) = calls
    assert program == command[0] == sys.executable
    position = command.index("--config-name")
    return command, env, compose_config(command[position + 1], command[position + 2 :])


def test_every_name_is_translated(data, model, tmp_path, monkeypatch):
    names = ["--preset", "qwen2_5_1_5b", "--num_epochs", "2", "--batch_size", "8", "--learning_rate", "1e-6"]
    own = ["trainer.save_freq=7", "algo=dapo"]
    wandb = ["--use_wandb", "--wandb_project", "my project", "--wandb_run_name", "run=1"]
    command, env, config = started(monkeypatch, arguments(data, model, tmp_path, *names, *wandb, *own))
    assert command[1:3] == ["-m", "recipes.trainer.main_ppo"]
    assert config.data.train_files == str(data / "train.parquet")
    assert config.data.val_files == str(data / "valid.parquet")
    assert config.actor_rollout_ref.model.path == str(model)
    assert config.recipe.model == "Qwen/Qwen2.5-1.5B-Instruct"
    assert (config.trainer.total_epochs, config.trainer.total_training_steps) == (2, None)
    assert (config.data.train_batch_size, config.actor_rollout_ref.actor.ppo_mini_batch_size) == (8, 8)
    assert config.actor_rollout_ref.actor.optim.lr == 1e-6
    assert list(config.trainer.logger) == ["console", "file", "tensorboard", "wandb"]
    assert (config.trainer.project_name, config.trainer.experiment_name) == ("my project", "run=1")
    assert config.trainer.default_local_dir == str(tmp_path / "run")
    assert config.trainer.save_freq == 7
    assert config.algorithm.filter_groups.enable
    assert (config.trainer.device, env["VERL_PLATFORM"]) == ("cpu", "cpu")
    assert (tmp_path / "run" / "metrics").is_dir()


def test_left_out_names_keep_the_presets_values(data, model, tmp_path, monkeypatch):
    _, _, config = started(monkeypatch, arguments(data / "train.parquet", model, tmp_path))
    assert config.recipe.model == "tiny"  # a model that no preset names, on a CPU
    assert config.trainer.total_training_steps == config.recipe.grpo.steps
    assert "wandb" not in config.trainer.logger


@pytest.mark.parametrize("recipe", TASKS)
def test_the_tiny_model_is_made_for_the_recipe(tmp_path, monkeypatch, recipe):
    for name in ("train", "valid"):
        pq.write_table(PROMPTS, tmp_path / f"{TASKS[recipe].file_prefix}{name}.parquet")
    _, _, config = started(monkeypatch, arguments(tmp_path, "tiny", tmp_path, "--recipe", recipe))
    tokenizer = AutoTokenizer.from_pretrained(config.actor_rollout_ref.model.path)
    assert tokenizer.tokenize("2023") == {"ehrsql": ["2023"], "ecg": list("2023")}[recipe]


@pytest.mark.parametrize("preset", [[], ["--preset", "tiny"], ["--preset", "ecg/tiny"]])
def test_the_ecg_recipe_has_its_own_files_preset_and_reward(data, model, tmp_path, monkeypatch, preset):
    for name in ("train", "valid"):
        (data / f"{name}.parquet").rename(data / f"grpo_{name}.parquet")
    _, _, config = started(monkeypatch, arguments(data, model, tmp_path, "--recipe", "ecg", *preset))
    assert config.data.train_files == str(data / "grpo_train.parquet")
    assert config.data.val_files == str(data / "grpo_valid.parquet")
    tiny = compose_config("ecg_grpo", ["preset=ecg/tiny"])
    assert config.recipe.max_response_length == tiny.recipe.max_response_length
    assert config.reward.custom_reward_function.path.endswith("reward_fns/ecg.py")


@pytest.mark.parametrize(
    ("recipe", "known", "on_gpu"),
    [("ehrsql", "MPX0222forHF/SQL-R1-3B", "sql_r1_3b"), ("ecg", "meta-llama/Llama-3.2-3B-Instruct", "llama3_2_3b")],
)
def test_preset_of_a_model(recipe, known, on_gpu, monkeypatch):
    assert train.preset_for(known, TASKS[recipe]) == on_gpu
    assert train.preset_for("some/other-model", TASKS[recipe]) == "tiny"
    monkeypatch.setattr(hardware, "find_gpus", lambda: [hardware.Gpu("NVIDIA H100", 81559, "580.65.06")])
    assert train.preset_for("some/other-model", TASKS[recipe]) == on_gpu


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--preset", "tyni"], "tyni"),
        (["trainer.save_frequency=1"], "save_frequency"),
        (["hardware=gpu_1"], "hardware=cpu"),
        (["--model_name", "no/such/model"], "no/such/model"),
        (["--batch_size", "0"], "--batch_size is 0"),
        (["--learning_rate", "nan"], "--learning_rate is nan"),
        (["--learning_rate", "inf"], "--learning_rate is inf"),
    ],
)
def test_errors_are_one_line_and_write_nothing(data, model, tmp_path, more, named):
    with pytest.raises(InputError) as error:
        train.main(arguments(data, model, tmp_path, *more))
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "more", [["--num_epochs", "abc"], ["--batch_size", "1.5"], ["--learning_rate", "x"], ["--recipe", "absent"]]
)
def test_a_value_of_the_wrong_kind_is_refused(data, model, tmp_path, more, capsys):
    with pytest.raises(SystemExit) as error:
        train.main(arguments(data, model, tmp_path, *more))
    assert error.value.code != 0
    assert f"argument {more[0]}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_data(data, model, tmp_path):
    (data / "valid.parquet").unlink()
    with pytest.raises(InputError, match="valid.parquet"):
        train.main(arguments(data, model, tmp_path))
    with pytest.raises(InputError, match="absent"):
        train.main(arguments(tmp_path / "absent", model, tmp_path))


def test_gpu_asked_for_and_not_there(data, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HARDWARE", "gpu")
    with pytest.raises(InputError, match="nvidia-smi finds no GPU"):
        train.main(arguments(data, model, tmp_path))


def test_environment_of_a_gpu_run(data, model, tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "find_gpus", lambda: [hardware.Gpu("NVIDIA H100", 81559, "580.65.06")])
    find_spec = launch.importlib.util.find_spec
    monkeypatch.setattr(
        launch.importlib.util, "find_spec", lambda name: None if name == "flash_attn" else find_spec(name)
    )
    _, env, config = started(monkeypatch, arguments(data, model, tmp_path))
    assert config.trainer.device == "cuda"
    assert config.actor_rollout_ref.model.override_config.attn_implementation == "sdpa"
    assert "VERL_PLATFORM" not in env


def test_a_running_cluster_is_joined_without_resources(data, model, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, env, config = started(monkeypatch, arguments(data, model, tmp_path))
    assert config.ray_kwargs.ray_init.num_cpus is None
    assert config.ray_kwargs.ray_init.num_gpus is None
    assert config.ray_kwargs.ray_init.runtime_env.env_vars.VERL_PLATFORM == "cpu"
    assert "CUDA_VISIBLE_DEVICES" not in env
