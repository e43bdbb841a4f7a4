"""Selection `sparse`: the layers that a log-linear pool of all of them keeps under a penalty.

Each layer enters as a group: the direction that its own probe has learned, with one weight. Where
`greedy` adds layers one at a time and never takes one back, all weights are found together here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from layerfusion.config.job import LayersConfig
from layerfusion.layers.budget import Budget
from layerfusion.layers.labels import by_row, decisions
from layerfusion.layers.log_linear import log_losses, slope_and_curvature
from layerfusion.layers.repeats import deal_texts, standard_error
from layerfusion.layers.scores import ScoreTable
from layerfusion.layers.selection import (
    Choice,
    Selection,
    SelectionRule,
    usable_layers,
)

PENALTIES = tuple(2.0**-power for power in range(17))
"""Penalties that are tried, as shares of the smallest that keeps no layer."""
FOLDS = 5
"""Parts of the held-out rows in which the penalties are compared."""
PATIENCE = 3
"""Penalties that are tried beyond the best so far."""
KEPT = 0.01
"""A layer counts as kept from this share of all weight."""
MAX_STEPS = 30
"""Most steps of Newton's method for one penalty."""
MAX_SWEEPS = 200
"""Most sweeps over the layers within such a step."""
LEAST_GAIN = 1e-5
"""Newton's method stops once a step lowers the penalised loss by less, in nats."""
LEAST_STEP = 1e-3
"""Shortest part of a step that is tried."""


def select_sparse(
    table: ScoreTable, _similarity: Tensor, budget: Budget, config: LayersConfig
) -> Selection:
    """Select the layers that a sparse pool of all probes gives weight.

    The pool is log p = log softmax(Σ w_k log p_k) with w ≥ 0. Its weights minimise the log-loss of
    the held-out rows plus λ Σ w_k (the lasso: Tibshirani, Journal of the Royal Statistical Society
    B 58, 1996). λ is the largest whose cross-validated log-loss is within a standard error of the
    best, so that a layer which helps by less than the noise is left out (Breiman et al.,
    Classification and Regression Trees, 1984).

    Args:
        table: scores with held-out probabilities.
        budget: what the layers may cost together; with less, those of the least weight go.
        config: `max_layers` limits the number of layers.
    """
    places = usable_layers("probe", table, budget)
    labels = table.held_out[0].target
    each_layer = torch.stack([table.held_out[n].log_probs for n in places])
    log_probs, target = decisions(each_layer, labels)
    highest = _least_penalty_that_keeps_nothing(log_probs, target)
    penalties = [share * highest for share in PENALTIES]
    text_of = table.held_out[0].text_of
    losses = _cross_validated(log_probs, target, penalties, labels, text_of)
    means = [float(each.mean()) for each in losses]
    best = min(range(len(means)), key=means.__getitem__)
    sparsest = next(
        n
        for n, each in enumerate(losses)
        if float((each - losses[best]).mean()) <= standard_error(each - losses[best], text_of)
    )
    weights = path(log_probs, target, penalties[: sparsest + 1])[-1]
    if not bool(weights.any()):  # nothing is better than guessing
        weights[min(range(len(places)), key=lambda n: table.held_out[places[n]].log_loss)] = 1.0
    shares = weights / weights.sum()
    kept = [n for n in shares.argsort(descending=True).tolist() if float(shares[n]) >= KEPT]
    notes = [
        f"penalty {PENALTIES[sparsest]:.3g} of the largest: held-out log-loss"
        f" {means[sparsest]:.4f}; the lowest is {means[best]:.4f}"
    ]
    chosen = kept[: config.max_layers]
    while len(chosen) > 1 and not budget.allows([table.layers[places[n]] for n in chosen]):
        chosen.pop()
    notes += [
        f"dropped {table.layers[places[n]].words}: weight {float(shares[n]):.2f}, and there is no"
        " room for more"
        for n in kept[len(chosen) :]
    ]
    total = float(shares[chosen].sum())
    return Selection(
        tuple(
            Choice(
                table.layers[places[n]],
                f"weight {float(shares[n]):.2f} in a sparse pool of {len(places)} layers",
                float(shares[n]) / total,
            )
            for n in chosen
        ),
        tuple(notes),
    )


def path(log_probs: Tensor, target: Tensor, penalties: list[float]) -> list[Tensor]:
    """Fit the weights under each penalty, from the largest, each from the weights before.

    Args:
        log_probs: log-probabilities of held-out rows by layer. Shape: (K, rows, classes).
        target: class indices. Shape: (rows,).
        penalties: values of λ, falling.

    Returns:
        The weights under each. Shapes: (K,), float64.
    """
    weights = torch.zeros(len(log_probs), dtype=torch.float64)
    found = []
    for penalty in penalties:
        weights = _minimise(log_probs, target, penalty, weights)
        found.append(weights)
    return found


def _least_penalty_that_keeps_nothing(log_probs: Tensor, target: Tensor) -> float:
    nothing = torch.zeros(len(log_probs), dtype=torch.float64)
    gradient, _ = slope_and_curvature(log_probs, target, nothing)
    return max(float(-gradient.min()), 1e-12)


def _cross_validated(
    log_probs: Tensor,
    target: Tensor,
    penalties: list[float],
    labels: Tensor,
    text_of: Tensor | None,
) -> list[Tensor]:
    """Log-loss of each row by weights that have not seen its text. Shapes: (rows,).

    There is one for each penalty, up to the last before which the loss had long stopped falling.
    The decisions of a row, one for each of its `labels`, are in the same fold, and so are rows that
    repeat a text.
    """
    fold_of = deal_texts(text_of, len(labels), FOLDS, seed=0)
    fold_of = fold_of.repeat_interleave(len(target) // len(labels))
    inside = [fold_of != fold for fold in range(int(fold_of.max()) + 1)]
    weights = [torch.zeros(len(log_probs), dtype=torch.float64) for _ in inside]
    losses: list[Tensor] = []
    for penalty in penalties:
        each = torch.zeros(len(target), dtype=torch.float64)
        for fold, rows in enumerate(inside):
            learned = log_probs[:, rows], target[rows]
            weights[fold] = _minimise(*learned, penalty, weights[fold])
            each[~rows] = log_losses(log_probs[:, ~rows], target[~rows], weights[fold])
        losses.append(by_row(each, labels))
        means = [float(one.mean()) for one in losses]
        if len(losses) - means.index(min(means)) > PATIENCE:
            break
    return losses


def _minimise(log_probs: Tensor, target: Tensor, penalty: float, start: Tensor) -> Tensor:
    """Minimise the penalised log-loss by Newton's method, whose steps keep the weights ≥ 0."""

    def loss(weights: Tensor) -> float:
        return float(log_losses(log_probs, target, weights).mean() + penalty * weights.sum())

    weights, before = start.clone(), loss(start)
    for _ in range(MAX_STEPS):
        gradient, hessian = slope_and_curvature(log_probs, target, weights)
        aim = _least_squares(hessian, hessian @ weights - gradient - penalty, weights)
        length = 1.0
        while True:
            tried = weights + length * (aim - weights)
            after = loss(tried)
            if after <= before or length <= LEAST_STEP:
                break
            length /= 2
        if before - after < LEAST_GAIN:
            return tried if after < before else weights
        weights, before = tried, after
    return weights


def _least_squares(hessian: Tensor, slope: Tensor, start: Tensor) -> Tensor:
    """Minimise ½ wᵀ H w - bᵀ w over w ≥ 0, one weight after the other (coordinate descent)."""
    h, b, w = hessian.numpy(), slope.numpy(), start.numpy().copy()
    fitted = h @ w
    for _ in range(MAX_SWEEPS):
        moved = 0.0
        for k in range(len(w)):
            curvature = h[k, k] + 1e-12
            wanted = max(0.0, w[k] + (b[k] - fitted[k]) / curvature)
            step = wanted - w[k]
            if step:
                fitted += step * h[:, k]
                w[k] = wanted
                moved = max(moved, abs(step))
        if moved < 1e-6:
            break
    return torch.from_numpy(w)


SPARSE = SelectionRule("sparse", select_sparse, score="probe")
