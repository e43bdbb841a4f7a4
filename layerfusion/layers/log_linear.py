"""The log-loss of a log-linear pool, log p = log softmax(Σ w_k log p_k), and its derivatives."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LIKELY = 1e-4
"""Classes of a larger probability for a text are always in the Hessian."""
LEFT_OUT = 0.1
"""Share of the curvature along the weights that the Hessian may lack without the other classes."""


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

    The arguments are those of `log_losses`. Both are float64. The gradient is exact. The Hessian
    lacks classes that matter little, so that Newton's method takes about as many steps with it.
    """
    rows = len(target)
    pooled = torch.einsum("k,knc->nc", weights.to(log_probs), log_probs)
    probs = pooled.softmax(dim=1)
    expected = torch.einsum("nc,knc->kn", probs, log_probs)
    of_target = log_probs[:, torch.arange(rows), target]
    likely = torch.where(_matter(pooled, probs).flatten())[0]
    spread = log_probs.flatten(1).index_select(1, likely)
    spread -= expected.index_select(1, likely // probs.shape[1])
    spread *= probs.flatten()[likely].sqrt()
    hessian = spread @ spread.T
    return (expected - of_target).double().mean(dim=1), hessian.double() / rows


def _matter(pooled: Tensor, probs: Tensor) -> Tensor:
    """Tell which classes matter for the curvature of each row. Shape: (rows, classes), bool.

    Of many classes, few are likely for a text, and most others add next to nothing. Where texts are
    all but certain, though, the curvature is that of many classes which are hardly likely.

    Args:
        pooled: Σ w_k log p_k. Shape: (rows, classes).
        probs: their softmax. Shape: (rows, classes).
    """
    centred = pooled - (probs * pooled).sum(dim=1, keepdim=True)
    added = centred.square_().mul_(probs)
    return (probs > LIKELY) | (added >= LEFT_OUT * added.mean())
