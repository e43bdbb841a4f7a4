"""The log-loss of a log-linear pool, log p = log softmax(Σ w_k log p_k), and its derivatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NEGLIGIBLE = 1e-4
"""Classes of a smaller probability are left out of the Hessian. Newton's method reaches the same
minimum with it, since the gradient has them all."""


def log_losses(log_probs: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Log-loss of each row, in nats. Shape: (rows,), float64.

    Args:
        log_probs: log-probabilities of each source. Shape: (K, rows, classes).
        target: class indices. Shape: (rows,).
        weights: w. Shape: (K,).
    """
    pooled = torch.einsum("k,knc->nc", weights.to(log_probs), log_probs)
    return F.cross_entropy(pooled.double(), target, reduction="none")


def slope_and_curvature(
    log_probs: Tensor, target: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient, shape (K,), and Hessian, shape (K, K), of the mean log-loss by the weights.

    The arguments are those of `log_losses`. Both are float64.
    """
    rows = len(target)
    pooled = torch.einsum("k,knc->nc", weights.to(log_probs), log_probs)
    probs = pooled.softmax(dim=1)
    expected = torch.einsum("nc,knc->kn", probs, log_probs)
    of_target = log_probs[:, torch.arange(rows), target]
    # Of many classes, few are likely for a text, and the others add next to nothing.
    likely = torch.where(probs.flatten() > NEGLIGIBLE)[0]
    spread = log_probs.flatten(1).index_select(1, likely)
    spread -= expected.index_select(1, likely // probs.shape[1])
    spread *= probs.flatten()[likely].sqrt()
    hessian = spread @ spread.T
    return (expected - of_target).double().mean(dim=1), hessian.double() / rows
