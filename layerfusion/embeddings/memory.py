"""Free memory of the machine and of a GPU, and the errors of a pass that ran out of memory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

CONTAINER = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
)
"""Folders with the memory limit of a container, for control groups of version 2 and version 1; its
file, that of what is used, and the name in memory.stat of what of this the system can drop."""
SIGNS = (
    "out of memory",  # CUDA, also for page-locked memory of the host, and MPS
    "can't allocate memory",  # a CPU
    "not enough memory",  # a CPU under Windows
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)
"""Words by which the errors of PyTorch that have no class of their own say it."""


def out_of_memory(error: Exception) -> bool:
    """Return true for the error of a pass that ran out of memory; a smaller batch may fit.

    PyTorch raises a `RuntimeError` or a kind of it, Python and NumPy a `MemoryError`.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def free_host_memory() -> float:
    """Return the bytes of this machine's memory, or of its container, that are free."""
    import psutil

    free = float(psutil.virtual_memory().available)
    for folder, limit, usage, droppable in CONTAINER:
        with suppress(OSError, ValueError):  # none, or `max`
            most = int(Path(folder, limit).read_text(encoding="ascii"))
            used = int(Path(folder, usage).read_text(encoding="ascii"))
            lines = Path(folder, "memory.stat").read_text(encoding="ascii").splitlines()
            facts = dict(line.split() for line in lines)
            free = min(free, max(0, most - used + int(facts.get(droppable, 0))))
    return free


def free_memory(device: torch.device) -> int:
    """Return the bytes of a CUDA device that new tensors can take.

    The driver counts the blocks that PyTorch keeps of freed tensors as taken; they are free too.
    """
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + kept
