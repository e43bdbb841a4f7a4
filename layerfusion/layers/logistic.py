"""Many L2-regularised logistic regressions on the same features, minimised together.

The method is L-BFGS (Nocedal and Wright, *Numerical Optimization*, algorithm 7.4) in the eigenbasis
of each layer's covariance. There the Hessian of a logistic loss is nearly diagonal, s S + λ with
the eigenvalues S and the mean slope s of the probabilities, and its inverse is the initial matrix
of the recursion: tens of steps, where plain L-BFGS takes hundreds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger(__name__)

MAX_STEPS = 300
HISTORY = 10
"""Steps that the recursion remembers."""
LEAST_SLOPE = 0.01
"""Of a class's slope in the initial matrix, relative to where nothing is known but its frequency:
once a rare class is fitted its probabilities saturate, and the inverse of their slope would throw
the next step out of sight. On 52 classes it also halves the steps."""

# Shapes: layers L, rows n, problems Q = folds × strengths, columns K (classes; 1 for two classes),
# width D: the features in the eigenbasis, as many as there are, or as rows to fit on if those are
# fewer, and a column of ones for the bias. The rows come last in the logits: a softmax over classes
# that lie apart in memory takes twenty times as long.


@dataclass(frozen=True)
class Problem:
    """All probes of some layers of equal width."""

    x: Tensor
    """Standardised features in the eigenbasis, then ones. Shape: (L, n, D)."""
    spectrum: Tensor
    """Mean square of each column of x, or about that. Shape: (L, D)."""
    basis: Tensor
    """Eigenvectors as columns. Shape: (L, d, D - 1); square where there is a spread."""
    mean: Tensor
    """Of the features. Shape: (L, d)."""
    std: Tensor
    y: Tensor
    """Targets. Shape: (K, n), float32."""
    weights: Tensor
    """1 / rows fitted on, for those; else 0. Shape: (Q, n)."""
    penalty: Tensor
    """λ = 1 / (C · rows fitted on). Shape: (Q,)."""
    spread: Tensor | None
    """Variance of each feature on the rows fitted on over that on all rows: what the penalty has to
    be weighted by for a probe to be that of features standardised on its own rows.
    Shape: (L, Q, d); none where every problem is fitted on all rows."""

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
        # All three are linear in w, so that a step moves them by what it costs to find out once.
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
        """The same layers with some of the problems. Shape of `problems`: (Q,), bool."""
        return Problem(
            self.x,
            self.spectrum,
            self.basis,
            self.mean,
            self.std,
            self.y,
            self.weights[problems],
            self.penalty[problems],
            None if self.spread is None else self.spread[:, problems],
        )

    def only(self, problem: int) -> Problem:
        """The same layers with one of the problems."""
        return self.take(torch.arange(len(self.penalty), device=self.penalty.device) == problem)

    @property
    def least_slope(self) -> Tensor:
        """The least p (1 - p) that the initial matrix takes for true. Shape: (Q, K)."""
        frequency = self.weights @ self.y.T
        one_row = 1 / self.x.shape[1]
        return LEAST_SLOPE * (frequency * (1 - frequency)).clamp_min(one_row)

    def scores(self, w: Tensor) -> Tensor:
        """X · w. Shape: (L, Q, K, n), from (L, Q, K, D)."""
        return (w.flatten(1, 2) @ self.x.mT).unflatten(1, w.shape[1:3])

    def slope_and_gradient(self, logits: Tensor, pull: Tensor) -> tuple[Tensor, Tensor]:
        """Mean p (1 - p), shape (L, Q, K), and gradient of the mean loss, shape (L, Q, K, D).

        Args:
            logits: X · w. Shape: (L, Q, K, n).
            pull: gradient of the penalty at w. Shape: (L, Q, K, D).
        """
        probs = _probs(logits)
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
        """Length of each problem's step, at which the slope along it has at least halved.

        The logits are linear in the length, so a trial costs no matrix product. The loss is convex,
        so the slope grows with the length: a bracket and the secant find where it vanishes.
        `change` and `tug` are what a whole step adds to the logits and to the pull.
        Shape: (L, Q).
        """
        start = (gradient * step).sum(dim=(2, 3))
        # What does not depend on the length: the penalty's part at its start, and the targets'.
        still = (pull * step).sum(dim=(2, 3)) - ((self.y * change).sum(dim=2) * self.weights).sum(2)
        bend = (tug * step).sum(dim=(2, 3))
        length = (start < 0).to(logits.dtype)
        low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
        at_low, along = start.clone(), start.clone()
        undecided = length > 0
        for _ in range(20):
            some = undecided.any(dim=0)
            mine = slice(None) if bool(some.all()) else torch.where(some)[0]
            tried, moved = length[:, mine], change[:, mine]
            probs = _probs(torch.addcmul(logits[:, mine], moved, tried[:, :, None, None]))
            risen = ((probs * moved).sum(dim=2) * self.weights[mine]).sum(dim=2)
            along[:, mine] = risen + still[:, mine] + tried * bend[:, mine]
            undecided = (along.abs() > 0.5 * start.abs()) & undecided
            if not undecided.any():
                break
            beyond = along > 0
            high = torch.where(undecided & beyond, length, high)
            secant = (length * at_low - low * along) / (at_low - along)
            further = torch.where((secant > length) & (secant < 4 * length), secant, 4 * length)
            inside = torch.where((secant > low) & (secant < length), secant, (low + length) / 2)
            # Once there is an upper end, it is never left again.
            further = torch.where(further < high, further, (length + high) / 2)
            ahead = undecided & ~beyond
            low, at_low = torch.where(ahead, length, low), torch.where(ahead, along, at_low)
            length = torch.where(undecided, torch.where(beyond, inside, further), length)
        else:
            # Undecided to the end: as far as the loss is known to fall, if that is any way at all.
            length = torch.where(undecided, low, length)
        return length


@dataclass(frozen=True)
class Solution:
    """Where the problems ended."""

    problem: Problem
    w: Tensor
    """Shape: (L, Q, K, D)."""
    logits: Tensor
    """Of all rows, those held out included. Shape: (L, Q, K, n)."""

    @property
    def device(self) -> torch.device:
        """Where it was computed."""
        return self.logits.device


def _probs(logits: Tensor) -> Tensor:
    return logits.sigmoid() if logits.shape[2] == 1 else logits.softmax(dim=2)


def _inverse(curvature: Tensor) -> Tensor:
    """1 / curvature; 0, which makes the recursion pass a pair by, where a problem stood still."""
    usable = curvature > 1e-20
    return torch.where(usable, 1 / curvature.clamp_min(1e-20), 0.0)
