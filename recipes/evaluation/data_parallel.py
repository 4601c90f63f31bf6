"""Several engines at a time, each in a process and on GPUs of its own.

vLLM's ``LLM`` refuses ``data_parallel_size`` above 1 and leaves the processes to its caller. Engines of models without
experts need not know of each other (https://docs.vllm.ai/en/latest/serving/data_parallel_deployment/).
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from data_prep.common.errors import InputError
from recipes import hardware

Prompt = TypeVar("Prompt")
Answer = TypeVar("Answer")


def gpus_of_engines(tensor_parallel_size: int, data_parallel_size: int) -> list[str]:
    """``CUDA_VISIBLE_DEVICES`` of each of ``data_parallel_size`` engines with ``tensor_parallel_size`` GPUs.

    On a CPU that is "" for the one engine.

    Raises:
        InputError: a size is below 1, there are too few GPUs, or there is a CPU only.
    """
    sizes = {"tensor_parallel_size": tensor_parallel_size, "data_parallel_size": data_parallel_size}
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"--{name} is {size}; give 1 or more")
    gpus = hardware.find_gpus()
    if hardware.choose(gpus) == "cpu":
        if above := [f"--{name} {size}" for name, size in sizes.items() if size > 1]:
            raise InputError(f"{' '.join(above)} is for GPUs, and the evaluation runs on the CPU; leave it out")
        return [""]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    ids = visible.split(",") if visible else [str(number) for number in range(len(gpus))]
    if (needed := tensor_parallel_size * data_parallel_size) > len(ids):
        raise InputError(
            f"--tensor_parallel_size {tensor_parallel_size} and --data_parallel_size {data_parallel_size} need "
            f"{needed} GPUs together, and there are {len(ids)}; lower one of them"
        )
    starts = range(0, needed, tensor_parallel_size)
    return [",".join(ids[start : start + tensor_parallel_size]) for start in starts]


def in_processes(
    respond: Callable[[int, Sequence[Prompt]], list[Answer]], prompts: Sequence[Prompt], gpus: Sequence[str]
) -> list[Answer]:
    """The answers to ``prompts``, in their order, by a process for each of ``gpus``.

    ``respond`` answers the prompts of a process, whose number it is told. Python must be able to pickle it.
    """
    size = -(-len(prompts) // len(gpus))
    shares = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    # A process for each share, not forked: neither CUDA nor vLLM's threads outlive a fork.
    with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        futures = [pool.submit(_respond, respond, number, share, gpus[number]) for number, share in enumerate(shares)]
        return [answer for future in futures for answer in future.result()]


def _respond(respond: Callable, number: int, share: Sequence, gpus: str) -> list:
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus  # before anything asks CUDA for its devices
    return respond(number, share)
