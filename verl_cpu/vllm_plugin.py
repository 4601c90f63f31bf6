"""Entry point ``vllm.general_plugins``: called once in every vLLM process."""

import functools
import inspect

from verl_cpu import enabled


def register() -> None:
    """Make the weights of a live vLLM CPU engine replaceable, which verl's weight sync relies on."""
    from vllm.platforms import current_platform

    if not (enabled() and current_platform.is_cpu()):
        return
    keep_linear_weights()


def keep_linear_weights() -> None:
    """vLLM's CPU backend packs each linear weight after loading and drops the original.

    A weight update then has nothing to write into. Keep the original beside the packed copy: verl calls
    ``process_weights_after_loading`` after each update, which packs the new weights.
    """
    from vllm.model_executor.layers import utils

    original = utils.dispatch_cpu_unquantized_gemm
    if list(inspect.signature(original).parameters) != ["layer", "remove_weight"]:
        raise SystemExit(
            "verl_cpu: vLLM's dispatch_cpu_unquantized_gemm changed; install the release pinned in requirements-cpu.txt"
        )

    @functools.wraps(original)
    def dispatch_cpu_unquantized_gemm(layer, remove_weight):
        original(layer, remove_weight=False)

    utils.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm
