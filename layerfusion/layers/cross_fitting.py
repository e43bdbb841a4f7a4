"""The choice of a setting on held-out rows, such that no row is predicted by one chosen on it.

The lowest of several losses on the same rows is lower than that on others, the more so the fewer
the rows and the more the settings. A stack that learns from predictions with the best setting
believes them too much: with ten rows of each of two classes its log-loss on test was above chance.
So the held-out rows of a fold are predicted with the setting that is best on those of the other
folds (cross-fitting).
"""

from __future__ import annotations

import torch
from torch import Tensor


def choose_setting(losses: Tensor, folds: Tensor) -> tuple[int, Tensor]:
    """Find the best setting, and for each held-out row the one that is best on other folds.

    Args:
        losses: losses of the held-out rows, infinite where a setting was not tried: such a setting
            is not chosen. Shape: (settings, rows).
        folds: the fold that holds out each of the rows. Shape: (rows,).

    Returns:
        The setting with the lowest mean loss, the first of equal ones, and the setting for each
        row, shape (rows,), int64. Where there is a single fold, it is the best setting for all.

    Example:
        >>> losses = torch.tensor([[0.0, 0.0, 9.0, 9.0], [2.0, 2.0, 2.0, 2.0]])
        >>> choose_setting(losses, torch.tensor([0, 0, 1, 1]))
        (1, tensor([1, 1, 0, 0]))
    """
    best = int(losses.mean(dim=1).argmin())
    losses = losses.masked_fill(losses.isinf().any(dim=1, keepdim=True), torch.inf)
    by_row = torch.full(folds.shape, best, device=folds.device)
    for fold in folds.unique():
        here = folds == fold
        if not bool(here.all()):
            by_row[here] = losses[:, ~here].mean(dim=1).argmin()
    return best, by_row


def take_by_row(predicted: Tensor, by_row: Tensor) -> Tensor:
    """Take for each row what its setting says.

    Shape: (rows, classes), from (settings, rows, classes) and (rows,).
    """
    return predicted[by_row, torch.arange(len(by_row), device=by_row.device)]
