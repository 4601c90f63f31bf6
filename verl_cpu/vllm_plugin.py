"""Entry point ``vllm.general_plugins``: called once in every vLLM process."""

import functools
import inspect

from verl_cpu import enabled

REMEDY = "install the release pinned in requirements-cpu.txt"


def register() -> None:
    """Make the weights of a live vLLM CPU engine replaceable, which verl's weight sync relies on."""
    from vllm.platforms import current_platform

    if not (enabled() and current_platform.is_cpu()):
        return
    keep_linear_weights()
    restore_lora_mapper_name()


def keep_linear_weights() -> None:
    """vLLM's CPU backend packs each linear weight after loading and drops the original.

    A weight update then has nothing to write into. Keep the original beside the packed copy: verl calls
    ``process_weights_after_loading`` after each update, which packs the new weights.
    """
    from vllm.model_executor.layers import utils

    original = utils.dispatch_cpu_unquantized_gemm
    if list(inspect.signature(original).parameters) != ["layer", "remove_weight"]:
        raise SystemExit(f"verl_cpu: vLLM's dispatch_cpu_unquantized_gemm changed; {REMEDY}")

    @functools.wraps(original)
    def dispatch_cpu_unquantized_gemm(layer, remove_weight):
        original(layer, remove_weight=False)

    utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm


def restore_lora_mapper_name() -> None:
    """verl 0.9 calls ``WeightsMapper.get_unstacked_mapper``, which vLLM 0.29 renamed, to load a LoRA adapter."""
    from vllm.model_executor.models.utils import WeightsMapper

    if not hasattr(WeightsMapper, "get_unstacked_mapper"):
        if not hasattr(WeightsMapper, "get_rename_mapper"):
            raise SystemExit(f"verl_cpu: vLLM's WeightsMapper changed; {REMEDY}")
        WeightsMapper.get_unstacked_mapper = WeightsMapper.get_rename_mapper
