"""Starts one of verl's trainers on a config of this repository.

``python -m recipes.launch CONFIG [override...]`` takes a file of ``configs/`` (``ehrsql_grpo``, ``ecg_sft`` ...),
checks the Hydra overrides, sets the environment and becomes the trainer's process: ``recipes.trainer.main_ppo``
(verl's GRPO trainer with more metrics), or ``verl.trainer.sft_trainer`` under torchrun.
"""

import argparse
import importlib.util
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from dotenv import load_dotenv
from omegaconf import DictConfig, OmegaConf
from pyarrow import ArrowException
from pyarrow.parquet import read_metadata

from data_prep.common.errors import InputError, run_main
from recipes import hardware
from recipes.config import CONFIG_DIR, REPO, compose_config, override, search_path
from recipes.reward_function import check_reward_function, reward_file
from recipes.trainer.monitor import check_alarms

RAY_VARIABLES = "ray_kwargs.ray_init.runtime_env.env_vars"
CONFIG_VARIABLES = ("ATTN_IMPLEMENTATION", "GPUS_PER_NODE", "NNODES", "VLLM_CPU_KVCACHE_SPACE")


def hardware_override(name: str, gpus: list[hardware.Gpu]) -> str:
    """The choice of ``configs/hardware`` (GRPO) or ``configs/sft_hardware`` that uses this machine."""
    kind = hardware.choose(gpus)
    if name.endswith("_sft"):
        return f"sft_hardware={kind}"
    return "hardware=" + ("cpu" if kind == "cpu" else "gpu_8" if len(gpus) >= 8 else "gpu_1")


def command(name: str, overrides: list[str], check: bool = True) -> tuple[list[str], dict[str, str]]:
    """The trainer's command line and environment for ``configs/<name>.yaml``.

    Hardware that no override names is chosen by what is there. Fills ``ATTN_IMPLEMENTATION`` and
    ``GPUS_PER_NODE``, which the configs read, into this process's environment.

    Raises:
        InputError: an override does not exist or, with ``check``, a GPU or a data file is missing, or the data do not
            fill one batch.
    """
    gpus = hardware.find_gpus()
    if not any(text.startswith(("hardware=", "sft_hardware=")) for text in overrides):
        overrides = [hardware_override(name, gpus), *overrides]
    if importlib.util.find_spec("flash_attn") is None:
        os.environ.setdefault("ATTN_IMPLEMENTATION", "sdpa")
    if gpus:
        os.environ.setdefault("GPUS_PER_NODE", str(len(gpus)))

    config = compose_config(name, overrides)
    if check:
        _check(config, gpus)
    variables = _variables(config)
    env = os.environ | variables
    if env.get("CUDA_VISIBLE_DEVICES") == "":
        del env["CUDA_VISIBLE_DEVICES"]  # Ray takes the empty string for "no GPU", also for a logical one

    arguments = ["--config-dir", str(CONFIG_DIR), "--config-name", name, search_path()]
    if "actor_rollout_ref" not in config:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nnodes=1"]
        torchrun += [f"--nproc_per_node={config.trainer.n_gpus_per_node}", "-m", "verl.trainer.sft_trainer"]
        # A Ray job sets these; verl then asks Ray for the device of what it takes for a Ray worker.
        env = {key: value for key, value in env.items() if not key.startswith("RAY_EXPERIMENTAL_NOSET_")}
        return [sys.executable, *torchrun, *arguments, *overrides], env

    # Workers run in folders of their own.
    overrides = [*overrides, override("reward.custom_reward_function.path", reward_file(config))]
    # Ray's processes on other nodes, or of a cluster that runs already, do not inherit this environment, and verl
    # hands these to Ray without resolving interpolations.
    defaults = [override(f"++{RAY_VARIABLES}.{key}", value) for key, value in variables.items()]
    if hardware.ray_address():
        # Ray refuses resources when it joins a cluster, and variables that the job was submitted with.
        defaults += ["ray_kwargs.ray_init.num_cpus=null", "++ray_kwargs.ray_init.num_gpus=null"]
        env["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    return [sys.executable, "-m", "recipes.trainer.main_ppo", *arguments, *defaults, *overrides], env


def check_device(config: DictConfig, gpus: list[hardware.Gpu]) -> None:
    """Raise an ``InputError`` where ``config`` asks for a GPU, and there is none here or in a cluster."""
    if config.trainer.device == "cuda" and not gpus and not hardware.ray_address():
        raise InputError("the config asks for a GPU, but nvidia-smi finds none; use hardware=cpu or sft_hardware=cpu")


def _check(config: DictConfig, gpus: list[hardware.Gpu]) -> None:
    check_device(config, gpus)
    if "monitor" in config:
        check_alarms(OmegaConf.to_container(config.monitor.alarms))
    if "actor_rollout_ref" in config:
        check_reward_function(config)
    for key in ("train_files", "val_files"):
        files = config.data[key]
        for file in [files] if isinstance(files, str) else files or []:
            if not Path(file).expanduser().is_file():
                raise InputError(f"no such file: {file}; make it with data_prep and set data.{key}")
    _check_enough_rows(config)


def _check_enough_rows(config: DictConfig) -> None:
    """verl leaves out incomplete batches. With fewer rows than one batch, it has no batch and crashes."""
    files, batch = config.data.train_files or [], config.data.train_batch_size
    rows, most = 0, config.data.train_max_samples
    for file in [files] if isinstance(files, str) else files:
        if not file.endswith(".parquet"):
            return  # verl reads JSON too
        try:
            rows += read_metadata(Path(file).expanduser()).num_rows
        except (ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"cannot read {file}: {reason}; prepare the data again") from error
    if rows < batch:
        raise InputError(f"data.train_files has {rows} rows, too few for a batch of {batch}; lower the batch size")
    if 0 < most < batch:
        raise InputError(f"data.train_max_samples is {most}, too few for a batch of {batch}; raise it to {batch}")


def _variables(config: DictConfig) -> dict[str, str]:
    """The variables that every process of the run needs."""
    block = OmegaConf.select(config, RAY_VARIABLES)
    if block is None and config.trainer.device == "cpu":  # SFT has no Ray; the variables are the same
        block = OmegaConf.select(OmegaConf.load(CONFIG_DIR / "hardware" / "cpu.yaml"), RAY_VARIABLES)
    variables = {} if block is None else {key: str(value) for key, value in block.items()}
    # What the configs read from the environment, they read again in a process of Ray's.
    variables |= {key: os.environ[key] for key in CONFIG_VARIABLES if key in os.environ}
    # verl's file logger truncates its file, so a resumed run gets a new one.
    run_dir = Path(config.trainer.default_local_dir).expanduser().absolute()
    start = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return variables | {
        "TENSORBOARD_DIR": str(run_dir / "tensorboard"),
        "VERL_FILE_LOGGER_PATH": str(run_dir / "metrics" / f"{start}.jsonl"),
    }


def launch(name: str, overrides: list[str]) -> None:
    """Replace this process by the trainer."""
    argv, env = command(name, overrides)
    metrics = Path(env["VERL_FILE_LOGGER_PATH"]).parent
    try:
        metrics.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {metrics}: {error.strerror}; choose another output folder") from error
    sys.stdout.flush()
    os.execve(argv[0], argv, env)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a file of configs/ without its ending, e.g. ehrsql_grpo")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides, e.g. preset=tiny trainer.save_freq=5")
    args = parser.parse_args(argv)
    load_dotenv(REPO / ".env")
    launch(args.config, args.overrides)


if __name__ == "__main__":
    run_main(main)
