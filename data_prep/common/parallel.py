"""A function of many items in several processes, with a progress bar."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import track

ITEMS_PER_PROCESS = 500  # a process takes seconds to start, an item hundredths of one
CHUNK = 16
T = TypeVar("T")


def parallel_map(function: Callable[..., T], title: str, console: Console, *arguments: Sequence[Any]) -> list[T]:
    """``function`` of the first item of each of ``arguments``, then of the second ones, and so on, in this order.

    Few items are done in this process. The function and the items must be picklable.
    """
    total = len(arguments[0])
    processes = min(os.cpu_count() or 1, total // ITEMS_PER_PROCESS)
    if processes < 2:
        return list(track(map(function, *arguments), title, total, console=console))
    # Not forked: torch's and vLLM's threads would be copied in any state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_use_one_thread) as pool:
        return list(track(pool.map(function, *arguments, chunksize=CHUNK), title, total, console=console))


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)
