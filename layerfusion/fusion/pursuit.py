"""Pursuit: the few sources that together predict best, found one after the other.

Each step adds the source that the pool of those before lacks most, and fits all weights anew: fully
corrective forward selection (Shalev-Shwartz, Srebro and Zhang, *Trading accuracy for sparsity in
optimization problems*, SIAM Journal on Optimization 20, 2010), as in orthogonal matching pursuit. A
source that is poor alone is found where it corrects the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.fusion.pool_fitting import anchor_strength, anchored_weights
from layerfusion.layers.labels import decisions


@dataclass(frozen=True)
class Step:
    """A source that was added."""

    position: int
    log_loss: float
    """Log-loss of the pool with this source and those before, on the rows that it was fitted on."""


def pursue(
    log_probs: Tensor,
    target: Tensor,
    limit: int,
    *,
    allows: Callable[[Sequence[int]], bool] = lambda _: True,
    distinct: float = 1.0,
) -> list[Step]:
    """Select sources that complement each other, the best single one first.

    Args:
        log_probs: log-probabilities of held-out rows by source. Shape: (K, rows, classes).
        target: labels of these rows.
        limit: most sources to take.
        allows: whether the sources at these positions may be used together.
        distinct: number of different texts as a share of the rows, as for `pool_fitting.fit_pool`.

    Returns:
        The sources in the order in which they were added; fewer than `limit` where no other is
        allowed.
    """
    log_probs, target = decisions(log_probs, target)
    rows, texts = torch.arange(len(target)), distinct * len(target)
    worth = -torch.stack([F.nll_loss(source, target) for source in log_probs])
    steps: list[Step] = []
    while len(steps) < limit:
        taken = [step.position for step in steps]
        best = next(
            (
                position
                for position in worth.argsort(descending=True, stable=True).tolist()
                if position not in taken and allows([*taken, position])
            ),
            None,
        )
        if best is None:
            break
        chosen = log_probs[[*taken, best]]
        weights = anchored_weights(chosen, target, rows=texts)
        pooled = torch.einsum("k,knc->nc", weights.to(chosen), chosen)
        steps.append(Step(best, float(F.cross_entropy(pooled, target))))
        probs = pooled.softmax(dim=1)
        error = probs.clone()
        error[rows, target] -= 1
        ridge = anchor_strength(len(chosen) + 1, texts)
        worth = torch.stack([_gain(source, probs, error, ridge) for source in log_probs])
    return steps


def _gain(source: Tensor, probs: Tensor, error: Tensor, ridge: float) -> Tensor:
    """Estimate by how much a Newton step along one source lowers the mean log-loss, in nats.

    Args:
        source: its log-probabilities. Shape: (rows, classes).
        probs: probabilities of the pool so far. Shape: (rows, classes).
        error: these minus 1 for the class of the row. Shape: (rows, classes).
        ridge: factor of the squared weights in the loss.
    """
    rows = len(probs)
    slope = (error * source).sum() / rows
    mean = (probs * source).sum(dim=1)
    curvature = ((probs * source.square()).sum(dim=1) - mean.square()).mean()
    return slope.square() / (2 * (curvature + 2 * ridge))
