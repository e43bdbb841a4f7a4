"""Many L2-regularised logistic regressions on the same features, minimised together.

The method is L-BFGS in the eigenbasis of each layer's covariance. In that basis the Hessian of a
logistic loss is nearly diagonal. We start from the inverse of its diagonal, which takes tens of
steps where plain L-BFGS takes hundreds.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger(__name__)

MAX_STEPS = 300
HISTORY = 10
"""Number of past steps that the recursion uses."""
REFRESHED = 10
"""Steps after which the diagonal of the Hessian is computed anew. With 52 classes it takes as many
steps as with one that is always new, and a sixth fewer than with the mean slope of each class."""
STILL = 0.8
"""Problems that are finished are left out once at most this share of them goes on: to copy what is
known of the others costs more than a few steps of the finished ones."""
FURTHEST = 2.0
"""A path is followed beyond its last two solutions by at most this many times their distance."""
LEAST_SLOPE = 0.01
"""Lower bound of p (1 - p) in the diagonal, relative to its value at the class prior. Without it,
saturated rare classes make the next step explode."""
LEAST_PRODUCT = 1e-20
"""A step along which the gradient rose by less, in their dot product, is forgotten."""
MAX_TRIALS = 20
"""Most lengths of a step that are tried."""

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
    """Targets of each problem, or those of all of them. Shape: (Q, K, n) or (1, K, n), float32."""
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
        columns, problems = self.y.shape[1], len(self.penalty)
        w = self.x.new_zeros(layers, problems, columns, width) if start is None else start.clone()
        z = self.scores(w)
        squares = self.x.square()
        active = torch.arange(problems, device=w.device)
        # Logits and pull are linear in w, so a step of any length reuses the same products.
        part, current, logits, pull = self, w.clone(), z.clone(), self.shrink(w)
        residual = part.residual(logits)
        gradient = part.gradient(residual, pull)
        curved = part.curvature(logits, squares)
        history = History(gradient)
        for number in range(1, MAX_STEPS + 1):
            unfinished = gradient.abs().amax(dim=(2, 3)) > tolerance
            going = unfinished.any(dim=0)
            left = int(going.sum())
            if left <= STILL * len(going):
                w[:, active], z[:, active] = current, logits
                if not left:
                    return Solution(self, w, z)
                part, active, history = part.take(going), active[going], history.take(going)
                current, logits, pull = current[:, going], logits[:, going], pull[:, going]
                gradient, curved = gradient[:, going], curved[:, going]
                unfinished = unfinished[:, going]
            step = history.solve(gradient, curved) * -unfinished.to(gradient)[:, :, None, None]
            change, tug = part.scores(step), part.shrink(step)
            length, logits, residual = part.search(logits, pull, step, change, tug, gradient)
            step *= length[:, :, None, None]
            current = current + step
            pull = pull + tug * length[:, :, None, None]
            before = gradient
            gradient = part.gradient(residual, pull)
            history.add(step, gradient - before)
            if number % REFRESHED == 0:
                curved = part.curvature(logits, squares)
        w[:, active], z[:, active] = current, logits
        worst = float(gradient.abs().max())
        log.warning("probes: %d steps left a gradient of %.1e", MAX_STEPS, worst)
        return Solution(self, w, z)

    @property
    def device(self) -> torch.device:
        """The device that the tensors lie on."""
        return self.x.device

    def take(self, problems: Tensor) -> Problem:
        """Keep some of the problems. Shape of `problems`: (Q,), bool."""
        return replace(
            self,
            y=self.y if len(self.y) == 1 else self.y[problems],
            weights=self.weights[problems],
            penalty=self.penalty[problems],
            spread=None if self.spread is None else self.spread[:, problems],
        )

    def on(self, rows: Tensor) -> Problem:
        """Keep some of the rows. Shape of `rows`: (n,), bool, or their positions."""
        x, y, weights = self.x[:, rows], self.y[:, :, rows], self.weights[:, rows]
        return replace(self, x=x, y=y, weights=weights)

    def with_strength(self, strength: float) -> Problem:
        """Return the problems with another C."""
        rows = (self.weights > 0).sum(dim=1)
        return replace(self, penalty=(1 / (strength * rows)).to(self.penalty))

    def path(self, tolerance: Callable[[float], float]) -> Path:
        """Return a path of fits of these problems, which have other penalties than their own.

        Args:
            tolerance: gives the largest entry of the gradient at the end of a fit with a strength.
        """

        def fit(strength: float, start: Tensor | None) -> Tensor:
            return self.with_strength(strength).minimise(tolerance(strength), start).w

        return Path(fit)

    def scores(self, w: Tensor) -> Tensor:
        """X · w. Shape: (L, Q, K, n), from (L, Q, K, D)."""
        return (w.flatten(1, 2) @ self.x.mT).unflatten(1, w.shape[1:3])

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities of the classes. Shape: that of the logits, (L, Q, K, n)."""
        if self.independent or logits.shape[2] == 1:
            return logits.sigmoid()
        return logits.softmax(dim=2)

    def residual(self, logits: Tensor) -> Tensor:
        """Derivative of the mean loss by the logits. Shape: that of the logits, (L, Q, K, n)."""
        return (self.probabilities(logits) - self.y).mul_(self.weights[:, None])

    def gradient(self, residual: Tensor, pull: Tensor) -> Tensor:
        """Gradient of the mean loss, given that of the penalty. Shape: (L, Q, K, D)."""
        return (residual.flatten(1, 2) @ self.x).unflatten(1, pull.shape[1:3]) + pull

    def curvature(self, logits: Tensor, squares: Tensor) -> Tensor:
        """Diagonal of the Hessian of the mean loss, bounded below. Shape: (L, Q, K, D).

        Args:
            logits: X · w. Shape: (L, Q, K, n).
            squares: the squares of x. Shape: (L, n, D).
        """
        probs = self.probabilities(logits)
        slopes = torch.addcmul(probs, probs, probs, value=-1).mul_(self.weights[:, None])
        loss = (slopes.flatten(1, 2) @ squares).unflatten(1, slopes.shape[1:3])
        frequency = (self.weights[:, None] @ self.y.mT)[:, 0]
        prior = (frequency * (1 - frequency)).clamp_min(1 / self.x.shape[1])
        least = LEAST_SLOPE * prior[..., None] * self.spectrum[:, None, None]
        ridge = F.pad(self.penalty[:, None].expand(-1, self.x.shape[2] - 1), (0, 1))
        return (torch.maximum(loss, least) + ridge[None, :, None]).clamp_min(1e-12)

    def shrink(self, w: Tensor) -> Tensor:
        """Gradient of the penalty; the bias is free. Shape: (L, Q, K, D)."""
        inner = w[..., :-1]
        if self.spread is not None:
            plain = inner.flatten(1, 2) @ self.basis.mT  # out of the eigenbasis and back
            plain = plain.unflatten(1, w.shape[1:3]) * self.spread[:, :, None]
            inner = (plain.flatten(1, 2) @ self.basis).unflatten(1, w.shape[1:3])
        return F.pad(inner * self.penalty[:, None, None], (0, 1))

    def search(
        self,
        logits: Tensor,
        pull: Tensor,
        step: Tensor,
        change: Tensor,
        tug: Tensor,
        gradient: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Find a length for each problem's step at which the slope along it has at least halved.

        The logits are linear in the length, so a trial costs no matrix product. The loss is convex,
        so the slope grows with the length, and the secant method within a bracket finds its zero.

        Args:
            logits: X · w where the step begins. Shape: (L, Q, K, n).
            pull: gradient of the penalty there. Shape: (L, Q, K, D).
            step: the step of length 1. Shape: (L, Q, K, D).
            change: what it adds to the logits. Shape: (L, Q, K, n).
            tug: what it adds to the pull. Shape: (L, Q, K, D).
            gradient: that of the mean loss, where the step begins. Shape: (L, Q, K, D).

        Returns:
            The lengths, shape (L, Q), and the logits and residuals there.
        """
        start, still, bend = dot(gradient, step), dot(pull, step), dot(tug, step)
        length = (start < 0).to(start.dtype)
        low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
        at_low = start
        reached = moved(logits, change, length)
        residual = self.residual(reached)
        along = dot(residual, change) + still + length * bend
        undecided = (along.abs() > 0.5 * start.abs()) & (length > 0)
        for _ in range(MAX_TRIALS):
            some = undecided.any(dim=0)
            if not some.any():
                return length, reached, residual
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
            if some.all():
                reached = moved(logits, change, length)
                residual = self.residual(reached)
                along = dot(residual, change) + still + length * bend
            else:
                turn = change[:, some]
                reached[:, some] = there = moved(logits[:, some], turn, length[:, some])
                residual[:, some] = rest = self.take(some).residual(there)
                along[:, some] = dot(rest, turn) + (still + length * bend)[:, some]
            undecided = (along.abs() > 0.5 * start.abs()) & undecided
        # Still undecided: take the longest step along which the loss is known to fall.
        length = torch.where(undecided, low, length)
        reached = moved(logits, change, length)
        return length, reached, self.residual(reached)


class History:
    """The last steps of each problem, and how the gradient rose along each.

    From them L-BFGS estimates the inverse Hessian (Nocedal and Wright, *Numerical Optimization*,
    algorithm 7.4). We compute the same estimate by matrix products with all steps at once, in the
    compact form of Byrd, Nocedal and Schnabel (Mathematical Programming 63, 1994, theorem 2.2): the
    two loops of the algorithm are many small operations, between which threads wait for each other.
    """

    def __init__(self, like: Tensor):
        """Begin without steps. Shape of `like`: (L, Q, K, D)."""
        layers, problems, columns, width = like.shape
        # Twice the room that is needed, so that old steps rarely have to move.
        self.steps = like.new_empty(layers, problems, 2 * HISTORY, columns * width)
        self.rises = torch.empty_like(self.steps)
        self.inverse = like.new_zeros(layers, problems, 0, 0)
        """Inverse of the upper triangle of the dot products of steps with rises.
        Shape: (L, Q, pairs, pairs)."""
        self.shared = like.new_zeros(layers, problems, 1, 0)
        """Dot product of each step with its own rise. Shape: (L, Q, 1, pairs)."""
        self.begin = self.end = 0

    def take(self, problems: Tensor) -> History:
        """Keep some of the problems. Shape of `problems`: (Q,), bool."""
        kept = copy(self)
        kept.steps, kept.rises = self.steps[:, problems], self.rises[:, problems]
        kept.inverse, kept.shared = self.inverse[:, problems], self.shared[:, problems]
        return kept

    def add(self, step: Tensor, rise: Tensor) -> None:
        """Add the last step, and forget the one before the last `HISTORY`.

        Shapes: (L, Q, K, D).
        """
        if self.end - self.begin == HISTORY:
            self.begin += 1
            self.inverse, self.shared = self.inverse[:, :, 1:, 1:], self.shared[..., 1:]
        if self.end == self.steps.shape[2]:
            kept = self.end - self.begin
            self.steps[:, :, :kept] = self.steps[:, :, self.begin :].clone()
            self.rises[:, :, :kept] = self.rises[:, :, self.begin :].clone()
            self.begin, self.end = 0, kept
        shared = dot(step, rise)
        # A problem that stood still, or along whose step the gradient did not rise, learns nothing.
        usable = shared > LEAST_PRODUCT
        if not usable.all():
            step, rise = step * usable[:, :, None, None], rise * usable[:, :, None, None]
            shared = torch.where(usable, shared, 1.0)
        before = self.steps[:, :, self.begin : self.end]
        last = rise.flatten(2)[:, :, None]
        corner = (1 / shared)[:, :, None, None]
        column = (last @ before.mT @ self.inverse.mT).mT * -corner
        row = torch.cat([torch.zeros_like(column.mT), corner], dim=3)
        self.inverse = torch.cat([torch.cat([self.inverse, column], dim=3), row], dim=2)
        self.shared = torch.cat([self.shared, shared[:, :, None, None]], dim=3)
        self.steps[:, :, self.end], self.rises[:, :, self.end] = step.flatten(2), last[:, :, 0]
        self.end += 1

    def solve(self, gradient: Tensor, curved: Tensor) -> Tensor:
        """Return the estimate of the inverse Hessian times a gradient.

        Args:
            gradient: shape (L, Q, K, D).
            curved: the diagonal of the Hessian. Shape: (L, Q, K, D).
        """
        if self.end == 0:
            return gradient / curved
        steps = self.steps[:, :, self.begin : self.end]
        rises = self.rises[:, :, self.begin : self.end]
        # Products with rows: those with columns are ten times as slow for several problems.
        flat, diagonal = gradient.flatten(2)[:, :, None], curved.flatten(2)[:, :, None]
        shares = flat @ steps.mT @ self.inverse.mT
        inner = (flat - shares @ rises) / diagonal
        # Where most rows of a class have become sure, the diagonal is several times too small, and
        # a step would go much too far. The last step has shown by how much.
        last = rises[:, :, -1:]
        along = dot(last, last / diagonal)
        scale = torch.where(along > 0, self.shared[:, :, 0, -1] / along, 1.0).clamp_max(1.0)
        inner *= scale[:, :, None, None]
        back = self.shared * shares - inner @ rises.mT
        result = inner + back @ self.inverse @ steps
        return result[:, :, 0].unflatten(2, gradient.shape[2:])


@dataclass(frozen=True)
class Solution:
    """The weights at which the optimisation of some problems ended."""

    problem: Problem
    w: Tensor
    """Shape: (L, Q, K, D)."""
    logits: Tensor
    """Logits of all rows, held-out rows included. Shape: (L, Q, K, n)."""


class Path:
    """Fits with one strength after the other, each begun where the others lead.

    Friedman, Hastie and Tibshirani (Journal of Statistical Software, 2010) begin at the weights of
    the strength before. From the third strength on, we go further along the line through the last
    two solutions, over the logarithm of C: with 52 classes this saves a fifth of the steps.
    """

    def __init__(self, fit: Callable[[float, Tensor | None], Tensor]):
        """Begin without weights.

        Args:
            fit: returns the weights with a strength, given weights to start from, if there are any.
        """
        self._fit = fit
        self.fitted: list[tuple[float, Tensor]] = []
        """The logarithms of the last two strengths, and the weights."""

    def fit(self, strength: float, known: Tensor | None = None) -> Tensor:
        """Fit with the next strength, C, unless its weights are known; return the weights."""
        w = self._fit(strength, self._expected(math.log(strength))) if known is None else known
        self.fitted = [*self.fitted[-1:], (math.log(strength), w)]
        return w

    def _expected(self, strength: float) -> Tensor | None:
        """Weights to begin at, given log C."""
        if len(self.fitted) < 2:
            return self.fitted[0][1] if self.fitted else None
        (before, first), (last, second) = self.fitted
        further = min((strength - last) / (last - before), FURTHEST)
        return second + further * (second - first)


def moved(logits: Tensor, change: Tensor, length: Tensor) -> Tensor:
    """Logits after a step. Shape: (L, Q, K, n), from two of that shape and lengths, (L, Q)."""
    return torch.addcmul(logits, change, length[:, :, None, None])


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Dot products of each problem. Shape: (L, Q), from two of (L, Q, …)."""
    return torch.linalg.vecdot(a.flatten(2), b.flatten(2))
