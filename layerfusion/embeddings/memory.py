"""Free memory of a GPU, and the errors of a pass that ran out of memory."""

from __future__ import annotations

import torch

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


def free_memory(device: torch.device) -> int:
    """Return the bytes of a CUDA device that new tensors can take.

    The driver counts the blocks that PyTorch keeps of freed tensors as taken; they are free too.
    """
    free, _ = torch.cuda.mem_get_info(device)
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return free + kept
