"""Independent computations side by side, each on one core.

Many small operations gain little from several cores each, and lose much where the threads of one
operation sleep while they wait for each other. The probes of seven layers took seven seconds that
way, three with threads that spin, and three to four when each core has layers of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def each_on_a_core(
    compute: Callable[[Item], Result], items: Sequence[Item], device: torch.device | None = None
) -> Generator[Result, None, None]:
    """Compute something of each item, as many at a time as PyTorch has threads.

    Args:
        compute: what to compute; it must not depend on the other items.
        items: what to compute it of.
        device: where it is computed; on a GPU one item follows another.

    Yields:
        The results, in the order of the items.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(items) < 2 or (device is not None and device.type != "cpu"):
        yield from map(compute, items)
        return
    pool = ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1))
    try:
        yield from pool.map(compute, items)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # MKL has one number for all threads
