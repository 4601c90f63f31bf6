"""The ``cpu`` platform in verl's ``PlatformRegistry``."""

import resource
import types
from contextlib import contextmanager, nullcontext

import psutil
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


def _peak_rss(*_) -> int:
    """Peak resident memory of this process, in bytes (Linux reports KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _mem_get_info(*_) -> tuple[int, int]:
    """Free and total memory, in bytes, in the order of ``torch.cuda.mem_get_info``."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def _nothing(*_, **__) -> None:
    """Caches, streams and statistics that a CPU does not have."""


def _device_module() -> types.ModuleType:
    """What verl asks of ``torch.<device>``; ``torch.cpu`` has only a part of it."""
    module = types.ModuleType("verl_cpu.torch_device")
    vars(module).update(
        is_available=lambda: False,  # "is there an accelerator": turns verl's device-memory reports off
        device_count=lambda: 1,
        current_device=lambda: torch.device("cpu"),
        get_device_name=lambda *_: "cpu",
        set_device=_nothing,
        synchronize=_nothing,
        empty_cache=_nothing,
        ipc_collect=_nothing,
        reset_peak_memory_stats=_nothing,
        memory_allocated=lambda *_: 0,
        memory_reserved=lambda *_: 0,
        max_memory_allocated=_peak_rss,
        max_memory_reserved=_peak_rss,
        mem_get_info=_mem_get_info,
        get_rng_state=torch.random.get_rng_state,
        set_rng_state=torch.random.set_rng_state,
        manual_seed=torch.manual_seed,
        manual_seed_all=torch.manual_seed,
        current_stream=torch.cpu.current_stream,
        stream=lambda *_: nullcontext(),
        Stream=torch.cpu.Stream,
    )
    return module


class PlatformCPU(PlatformBase):
    """One logical device per process; collectives by gloo; weights reach the rollout by shared memory."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return False  # never auto-detected, only chosen by VERL_PLATFORM=cpu

    def current_device(self) -> torch.device:
        return torch.device("cpu")  # verl hands this to Tensor.to()

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"  # the variable of Ray's resource "GPU"

    @contextmanager
    def nvtx_range(self, msg: str):
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"  # a logical slot: ray.init(num_gpus=1) on a machine without one

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False  # sends weights through POSIX shared memory

    def cudart(self) -> None:
        return None


def register() -> None:
    """Make ``VERL_PLATFORM=cpu`` known to verl."""
    PlatformRegistry.register(platform="cpu")(PlatformCPU)
