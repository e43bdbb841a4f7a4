"""Many L2-regularised logistic regressions on the same features, minimised together.

The method is L-BFGS (Nocedal and Wright, *Numerical Optimization*, algorithm 7.4) in the eigenbasis
of each layer's covariance. In that basis the Hessian of a logistic loss is nearly diagonal:
s S + λ, with S the eigenvalues and s the mean slope p (1 - p) of the probabilities. We start the
recursion from its inverse, which takes tens of steps where plain L-BFGS takes hundreds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger(__name__)

MAX_STEPS = 300
HISTORY = 10
"""Number of past steps that the recursion uses."""
LEAST_SLOPE = 0.01
"""Lower bound of p (1 - p) in the initial matrix, relative to its value at the class prior. Without
it, saturated rare classes make the next step explode. With 52 classes it also halves the steps."""

# Shapes: layers L, rows n, problems Q = folds × strengths, columns K (classes; 1 for two classes),
# width D. D counts the features in the eigenbasis (all of them, or as many as there are rows to fit
# on, if those are fewer) and a column of ones for the bias. The rows come last in the logits, since
# in that order a softmax over the classes is twenty times as fast.


@dataclass(frozen=True)
class Problem:
    """All probes of some layers that have the same width."""

    x: Tensor
    """Standardised features in the eigenbasis, then ones. Shape: (L, n, D)."""
    spectrum: Tensor
    """Approximate mean square of each column of x. Shape: (L, D)."""
    basis: Tensor
    """Eigenvectors as columns. Shape: (L, d, D - 1), square if `spread` is not none."""
    mean: Tensor
    """Mean of each feature. Shape: (L, d)."""
    std: Tensor
    """Standard deviation of each feature. Shape: (L, d)."""
    y: Tensor
    """Targets. Shape: (K, n), float32."""
    weights: Tensor
    """1 / number of rows fitted on, for these rows; 0 for all others. Shape: (Q, n)."""
    penalty: Tensor
    """λ = 1 / (C · rows fitted on). Shape: (Q,)."""
    spread: Tensor | None
    """Variance of each feature on the rows fitted on, divided by that on all rows. Weighted by it,
    the penalty is the one of features standardised on the fitted rows alone.
    Shape: (L, Q, d); none if every problem is fitted on all rows."""
    independent: bool = False
    """Whether each column is a regression of its own, one class against the rest."""

    def minimise(self, tolerance: float, start: Tensor | None = None) -> Solution:
        """Run all problems until each gradient is below the tolerance.

        Args:
            tolerance: largest entry of the gradient of the mean loss at the end.
            start: weights to start from; zeros if none. Shape: (L, Q, K, D).
        """
        layers, _, width = self.x.shape
        columns, problems = len(self.y), len(self.penalty)
        w = self.x.new_zeros(layers, problems, columns, width) if start is None else start.clone()
        z = self.scores(w)
        active = torch.arange(problems, device=w.device)
        # Logits and pull are linear in w, so a step of any length reuses the same products.
        part, current, logits, pull = self, w.clone(), z.clone(), self.shrink(w)
        slope, gradient = part.slope_and_gradient(logits, pull)
        history: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(MAX_STEPS):
            unfinished = gradient.abs().amax(dim=(2, 3)) > tolerance
            going = unfinished.any(dim=0)
            if not going.all():
                w[:, active], z[:, active] = current, logits
                if not going.any():
                    return Solution(self, w, z)
                part, active = part.take(going), active[going]
                current, logits, pull = current[:, going], logits[:, going], pull[:, going]
                slope, gradient = slope[:, going], gradient[:, going]
                history = [(s[:, going], y[:, going], r[:, going]) for s, y, r in history]
                unfinished = unfinished[:, going]
            step = -part.precondition(gradient, slope, history)
            step *= unfinished[:, :, None, None]
            change, tug = part.scores(step), part.shrink(step)
            length = part.search(logits, pull, step, change, tug, gradient)[:, :, None, None]
            step *= length
            current = current + step
            logits = logits + change * length
            pull = pull + tug * length
            before = gradient
            slope, gradient = part.slope_and_gradient(logits, pull)
            rise = gradient - before
            curvature = (step * rise).sum(dim=(2, 3))
            history = [*history[1 - HISTORY :], (step, rise, _inverse(curvature))]
        w[:, active], z[:, active] = current, logits
        worst = float(gradient.abs().max())
        log.warning("probes: %d steps left a gradient of %.1e", MAX_STEPS, worst)
        return Solution(self, w, z)

    def take(self, problems: Tensor) -> Problem:
        """Keep some of the problems. Shape of `problems`: (Q,), bool."""
        return replace(
            self,
            weights=self.weights[problems],
            penalty=self.penalty[problems],
            spread=None if self.spread is None else self.spread[:, problems],
        )

    def with_strength(self, strength: float) -> Problem:
        """Return the first problem with another C."""
        first = self.take(torch.arange(len(self.penalty), device=self.penalty.device) == 0)
        rows = (first.weights[0] > 0).sum()
        return replace(first, penalty=(1 / (strength * rows)).to(self.penalty)[None])

    @property
    def least_slope(self) -> Tensor:
        """Lower bound of p (1 - p) in the initial matrix. Shape: (Q, K)."""
        frequency = self.weights @ self.y.T
        one_row = 1 / self.x.shape[1]
        return LEAST_SLOPE * (frequency * (1 - frequency)).clamp_min(one_row)

    def scores(self, w: Tensor) -> Tensor:
        """X · w. Shape: (L, Q, K, n), from (L, Q, K, D)."""
        return (w.flatten(1, 2) @ self.x.mT).unflatten(1, w.shape[1:3])

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes. Shape: that of the logits, (L, Q, K, n)."""
        if self.independent or logits.shape[2] == 1:
            return logits.sigmoid()
        return logits.softmax(dim=2)

    def slope_and_gradient(self, logits: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Mean p (1 - p), shape (L, Q, K), and gradient of the mean loss, shape (L, Q, K, D).

        Args:
            logits: X · w. Shape: (L, Q, K, n).
            pull: gradient of the penalty at w. Shape: (L, Q, K, D).
        """
        probs = self.probabilities(logits)
        weights = self.weights[:, None]
        slope = ((probs - probs.square()) * weights).sum(dim=3)
        residual = (probs - self.y) * weights
        gradient = residual.flatten(1, 2) @ self.x
        return slope, gradient.unflatten(1, pull.shape[1:3]) + pull

    def shrink(self, w: Tensor) -> Tensor:
        """Gradient of the penalty; the bias is free. Shape: (L, Q, K, D)."""
        inner = w[..., :-1]
        if self.spread is not None:
            plain = inner.flatten(1, 2) @ self.basis.mT  # out of the eigenbasis and back
            plain = plain.unflatten(1, w.shape[1:3]) * self.spread[:, :, None]
            inner = (plain.flatten(1, 2) @ self.basis).unflatten(1, w.shape[1:3])
        return F.pad(inner * self.penalty[:, None, None], (0, 1))

    def precondition(
        self,
        gradient: Tensor,
        slope: Tensor,
        history: Sequence[tuple[Tensor, Tensor, Tensor]],
    ) -> Tensor:
        """The inverse Hessian times the gradient, by the two loops of L-BFGS."""
        q = gradient.clone()
        shares = []
        for step, rise, inverse in reversed(history):
            share = inverse * (step * q).sum(dim=(2, 3))
            q -= share[:, :, None, None] * rise
            shares.append(share)
        ridge = F.pad(self.penalty[:, None].expand(-1, self.x.shape[2] - 1), (0, 1))
        slope = torch.maximum(slope, self.least_slope)
        curved = slope[..., None] * self.spectrum[:, None, None] + ridge[None, :, None]
        q /= curved.clamp_min(1e-12)
        for (step, rise, inverse), share in zip(history, reversed(shares), strict=True):
            back = inverse * (rise * q).sum(dim=(2, 3))
            q += (share - back)[:, :, None, None] * step
        return q

    def search(
        self,
        logits: Tensor,
        pull: Tensor,
        step: Tensor,
        change: Tensor,
        tug: Tensor,
        gradient: Tensor,
    ) -> Tensor:
        """Find a length for each problem's step at which the slope along it has at least halved.

        The logits are linear in the length, so a trial costs no matrix product. The loss is convex,
        so the slope grows with the length, and the secant method within a bracket finds its zero.
        `change` and `tug` are what a step of length 1 adds to the logits and to the pull.
        Shape: (L, Q).
        """
        start = (gradient * step).sum(dim=(2, 3))
        # The terms that do not depend on the length: penalty at the start, and targets.
        still = (pull * step).sum(dim=(2, 3)) - ((self.y * change).sum(dim=2) * self.weights).sum(2)
        bend = (tug * step).sum(dim=(2, 3))
        length = (start < 0).to(logits.dtype)
        low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
        at_low, along = start.clone(), start.clone()
        undecided = length > 0
        for _ in range(20):
            some = undecided.any(dim=0)
            problems = slice(None) if bool(some.all()) else torch.where(some)[0]
            tried, moved = length[:, problems], change[:, problems]
            moved_to = torch.addcmul(logits[:, problems], moved, tried[:, :, None, None])
            probs = self.probabilities(moved_to)
            risen = ((probs * moved).sum(dim=2) * self.weights[problems]).sum(dim=2)
            along[:, problems] = risen + still[:, problems] + tried * bend[:, problems]
            undecided = (along.abs() > 0.5 * start.abs()) & undecided
            if not undecided.any():
                break
            beyond = along > 0
            high = torch.where(undecided & beyond, length, high)
            secant = (length * at_low - low * along) / (at_low - along)
            further = torch.where((secant > length) & (secant < 4 * length), secant, 4 * length)
            inside = torch.where((secant > low) & (secant < length), secant, (low + length) / 2)
            # Once the bracket has an upper end, no trial goes beyond it.
            further = torch.where(further < high, further, (length + high) / 2)
            ahead = undecided & ~beyond
            low, at_low = torch.where(ahead, length, low), torch.where(ahead, along, at_low)
            length = torch.where(undecided, torch.where(beyond, inside, further), length)
        else:
            # Still undecided: take the longest step along which the loss is known to fall.
            length = torch.where(undecided, low, length)
        return length


@dataclass(frozen=True)
class Solution:
    """The weights at which the optimisation of some problems ended."""

    problem: Problem
    w: Tensor
    """Shape: (L, Q, K, D)."""
    logits: Tensor
    """Logits of all rows, held-out rows included. Shape: (L, Q, K, n)."""

    @property
    def device(self) -> torch.device:
        """The device that the tensors lie on."""
        return self.logits.device


def _inverse(curvature: Tensor) -> Tensor:
    """1 / curvature, or 0 where a problem stood still, so that the recursion skips the pair."""
    usable = curvature > 1e-20
    return torch.where(usable, 1 / curvature.clamp_min(1e-20), 0.0)
