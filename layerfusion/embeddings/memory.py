"""The errors of a pass that ran out of memory."""

from __future__ import annotations

import torch


def out_of_memory(error: Exception) -> bool:
    """Return true for the error of a pass that ran out of memory; a smaller batch may fit."""
    if not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
