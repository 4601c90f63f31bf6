import itertools
import subprocess

import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf

from data_prep.common.chat_template import chat_template_variables
from data_prep.common.errors import InputError
from recipes import launch
from recipes.config import CONFIG_DIR, compose_config, override


def choices(group: str) -> list[str]:
    """The choices of a config group; ``gpu_model`` is the part that the GPU presets share, not a preset."""
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml") if path.stem != "gpu_model")


# The presets of each recipe.
PRESETS = [("ehrsql", preset) for preset in choices("preset")]
PRESETS += [("ecg", f"ecg/{preset}") for preset in choices("preset/ecg")]
GPU_PRESETS = [item for item in PRESETS if not item[1].endswith(("tiny", "smollm2_135m"))]


@pytest.fixture(autouse=True)
def fast_yaml(monkeypatch):
    """Composing is mostly parsing YAML: libyaml's parser takes a quarter off the time of the many combinations."""
    monkeypatch.setattr(yaml, "SafeLoader", yaml.CSafeLoader)


def resolved(name: str, *overrides: str) -> dict:
    return OmegaConf.to_container(compose_config(name, list(overrides)), resolve=True)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_pair_of_grpo_choices_composes(name, preset):
    for (h, hardware), (a, algo) in itertools.product(enumerate(choices("hardware")), enumerate(choices("algo"))):
        adapter = choices("adapter")[(h + a) % 2]  # each with each hardware and each algo
        config = resolved(
            f"{name}_grpo", f"preset={preset}", f"hardware={hardware}", f"algo={algo}", f"adapter={adapter}"
        )
        recipe, verl = config["recipe"], config["actor_rollout_ref"]
        model, actor, rollout = verl["model"], verl["actor"], verl["rollout"]
        where = f"{preset} {hardware} {algo} {adapter}"
        assert recipe["max_prompt_length"] + recipe["max_response_length"] == recipe["max_length"], where
        assert (rollout["prompt_length"], rollout["response_length"]) == (
            recipe["max_prompt_length"],
            recipe["max_response_length"],
        ), where
        assert (CONFIG_DIR / "prompts" / "ehrsql" / f"{recipe['prompt']}.jinja").is_file(), where
        # One sequence has to fit a micro-batch, and a batch has to be shared out evenly.
        assert actor["ppo_max_token_len_per_gpu"] >= recipe["max_length"], where
        workers = config["trainer"]["n_gpus_per_node"] * config["trainer"]["nnodes"]
        assert config["data"]["train_batch_size"] * rollout["n"] % workers == 0, where
        assert actor["ppo_mini_batch_size"] <= config["data"]["train_batch_size"], where
        assert (model["lora_rank"] > 0) == (adapter == "lora"), where
        assert actor["use_kl_loss"] == (algo == "grpo_kl"), where
        assert config["algorithm"]["adv_estimator"] == "grpo", where


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_every_sft_combination_composes(name, preset):
    for hardware, adapter in itertools.product(choices("sft_hardware"), choices("sft_adapter")):
        config = resolved(f"{name}_sft", f"preset={preset}", f"sft_hardware={hardware}", f"sft_adapter={adapter}")
        assert config["data"]["max_length"] <= config["data"]["max_token_len_per_gpu"]
        assert config["optim"]["lr"] == config["recipe"]["sft"]["learning_rate"]
        assert (config["model"]["lora_rank"] > 0) == (adapter == "lora")


@pytest.mark.parametrize(("name", "preset"), GPU_PRESETS)
def test_full_training_takes_lower_learning_rates_than_lora_on_a_gpu(name, preset):
    for stage, rate in (("sft", "optim.lr"), ("grpo", "actor_rollout_ref.actor.optim.lr")):
        group = {"sft": "sft_adapter", "grpo": "adapter"}[stage]
        full, lora = (
            OmegaConf.select(compose_config(f"{name}_{stage}", [f"preset={preset}", f"{group}={adapter}"]), rate)
            for adapter in ("full", "lora")
        )
        assert 0 < full <= lora / 10
        own = compose_config(f"{name}_{stage}", [f"preset={preset}", f"recipe.{stage}.learning_rate=3e-5"])
        assert OmegaConf.select(own, rate) == 3e-5


@pytest.mark.parametrize(
    "overrides",
    [
        ["hardware=cpu", "preset=tiny"],
        ["hardware=cpu", "preset=smollm2_135m", "algo=grpo_kl"],
        ["hardware=gpu_8", "preset=qwen2_5_3b", "algo=dapo"],
        ["hardware=cluster", "preset=sql_r1_3b", "algo=grpo_kl"],
    ],
)
def test_verl_accepts_the_grpo_config(overrides):
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    config = compose_config("ehrsql_grpo", overrides)
    OmegaConf.resolve(config)
    assert not need_critic(config)
    assert need_reference_policy(config) == ("algo=grpo_kl" in overrides)
    validate_config(config, use_reference_policy=need_reference_policy(config), use_critic=False)
    assert omega_conf_to_dataclass(config.actor_rollout_ref.actor).engine.strategy == "fsdp2"
    rollout = omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    assert rollout.tensor_model_parallel_size == 1
    assert omega_conf_to_dataclass(config.algorithm).filter_groups.enable == ("algo=dapo" in overrides)


@pytest.mark.parametrize("name", ["ecg_grpo", "ecg_sft", "ehrsql_grpo", "ehrsql_sft"])
def test_chat_templates_get_a_fixed_date(name):
    assert resolved(name)["data"]["apply_chat_template_kwargs"] == chat_template_variables()


def test_the_ecg_policy_is_kept_near_its_start():
    assert resolved("ecg_grpo")["actor_rollout_ref"]["actor"]["use_kl_loss"]


def test_verl_accepts_the_sft_config():
    from verl.utils.config import omega_conf_to_dataclass

    config = compose_config("ehrsql_sft", ["sft_hardware=cpu"])
    assert omega_conf_to_dataclass(config.engine).strategy == "fsdp2"
    assert omega_conf_to_dataclass(config.optim).lr == config.recipe.sft.learning_rate


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["trainer.save_frequency=5"], "save_frequency"),
        (["recipe.gpro.steps=5"], "gpro"),
        (["preset=tyni"], "smollm2_135m"),  # the choices that exist are listed
        (["hardware=tpu"], "gpu_8"),
        (["trainer.save_freq=="], "trainer.save_freq=="),
        (["recipe.grpo.epochs=abc"], "recipe.grpo.epochs is abc; give a whole number above 0"),
        (["recipe.grpo.steps=1.5"], "recipe.grpo.steps is 1.5"),
        (["recipe.sft.batch_size=0"], "recipe.sft.batch_size is 0"),
        (["recipe.grpo.learning_rate=x"], "recipe.grpo.learning_rate is x; give a number above 0"),
        (["recipe.sft.learning_rate=-1e-5"], "recipe.sft.learning_rate is -1e-05"),
        (["recipe.sft.epochs=null"], "recipe.sft.epochs is None"),
        (["trainer.total_training_steps=many"], "trainer.total_training_steps is many"),
    ],
)
def test_a_bad_override_is_one_line_that_names_it(overrides, named):
    with pytest.raises(InputError) as error:
        compose_config("ehrsql_grpo", overrides)
    message = str(error.value)
    assert named in message
    assert "\n" not in message


def test_an_incomplete_preset_is_refused():
    with pytest.raises(InputError, match="recipe.model"):
        compose_config("ehrsql_grpo", ["preset=gpu_model"])


@pytest.fixture
def parquet(tmp_path):
    """A file of 32 rows whose path needs quoting in a Hydra override."""
    path = tmp_path / "it's a folder, with = and {signs}" / "train.parquet"
    path.parent.mkdir()
    pd.DataFrame({"prompt": ["a question"] * 32}).to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["ecg_grpo", "ehrsql_sft"])
def test_data_must_fill_a_batch(name, parquet, monkeypatch):
    monkeypatch.setenv("HARDWARE", "cpu")
    key = "grpo" if name.endswith("_grpo") else "sft"
    files = [override(f"data.{split}_files", parquet) for split in ("train", "val")]
    launch.command(name, [*files, f"recipe.{key}.batch_size=32"])
    with pytest.raises(InputError, match="32 rows, too few for a batch of 33"):
        launch.command(name, [*files, f"recipe.{key}.batch_size=33"])
    with pytest.raises(InputError, match="train_max_samples is 31, too few for a batch of 32"):
        launch.command(name, [*files, f"recipe.{key}.batch_size=32", "data.train_max_samples=31"])


def test_a_damaged_data_file_is_named(parquet, monkeypatch):
    monkeypatch.setenv("HARDWARE", "cpu")
    parquet.write_bytes(parquet.read_bytes()[:-20])
    with pytest.raises(InputError, match="cannot read .*train.parquet"):
        launch.command("ecg_grpo", [override(f"data.{split}_files", parquet) for split in ("train", "val")])


@pytest.mark.parametrize("name", ["ecg_grpo", "ehrsql_grpo", "ehrsql_sft"])
def test_the_trainers_entry_point_composes_the_same_config(name, parquet, tmp_path, monkeypatch):
    monkeypatch.setenv("HARDWARE", "cpu")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    overrides = [
        override("data.train_files", parquet),
        override("data.val_files", parquet),
        override("trainer.default_local_dir", tmp_path / "run"),
    ]
    argv, env = launch.command(name, overrides)
    module = next(part for part in argv if part in ("recipes.trainer.main_ppo", "verl.trainer.sft_trainer"))
    argv = [argv[0], "-m", module, *argv[argv.index(module) + 1 :]]  # without torchrun, whose workers print too
    output = subprocess.run(
        [*argv, "--cfg", "job", "--resolve"], env=env, cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout
    seen = yaml.safe_load(output)
    hardware = "hardware=cpu" if name.endswith("_grpo") else "sft_hardware=cpu"
    expected = resolved(name, hardware, *overrides)
    assert seen["data"] == expected["data"]
    assert seen["data"]["train_files"] == str(parquet)
    assert seen["recipe"] == expected["recipe"]
    assert seen["trainer"] == expected["trainer"]
    assert not (tmp_path / "outputs").exists()  # Hydra's default folder
    if name.endswith("_grpo"):
        assert seen["actor_rollout_ref"] == expected["actor_rollout_ref"]
        assert seen["reward"]["custom_reward_function"]["path"] == str(launch.REPO / "reward_fns" / f"{name[:-5]}.py")
        variables = seen["ray_kwargs"]["ray_init"]["runtime_env"]["env_vars"]
        assert variables["VERL_PLATFORM"] == "cpu"
        assert variables["TENSORBOARD_DIR"] == str(tmp_path / "run" / "tensorboard")
        assert variables.items() <= env.items()


@pytest.mark.parametrize("name", ["ecg", "ehrsql"])
def test_a_cpu_computes_in_float32(name):
    """Most laptops emulate bf16, some forty times slower."""
    grpo = resolved(f"{name}_grpo", "hardware=cpu", "algo=grpo_kl")["actor_rollout_ref"]
    sft = resolved(f"{name}_sft", "sft_hardware=cpu")
    for engine in (grpo["actor"]["fsdp_config"], grpo["ref"]["fsdp_config"], sft["engine"]):
        assert set(engine["mixed_precision"].values()) == {"fp32"}
    assert grpo["rollout"]["dtype"] == "float32"
