"""Linear probes of many layers, folds and regularisation strengths, fitted in one optimisation.

A probe is L2-regularised logistic regression on a layer's standardised features: softmax over the
classes, or a single sigmoid for two, as in scikit-learn. All folds and strengths of a layer share
its features, so a step of the optimisation is two matrix products a layer instead of hundreds, and
the layers themselves are batched.

The method is L-BFGS (Nocedal and Wright, *Numerical Optimization*, algorithm 7.4) in the eigenbasis
of each layer's covariance. There the Hessian of a logistic loss is nearly diagonal, s S + λ with
the eigenvalues S and the mean slope s of the probabilities, and its inverse is the initial matrix
of the recursion: tens of steps, where plain L-BFGS takes hundreds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config import STRENGTHS
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest entry of the gradient of the mean loss, in the eigenbasis, at which a fit ends. On r8 and
mr the held-out log-loss of the strengths that are chosen is then within 0.0001 of that at 1e-5."""
MAX_STEPS = 300
BASIS_ROWS = 4
"""Rows a feature from which the eigenbasis is found."""
HISTORY = 10
"""Steps that the recursion remembers."""
LEAST_SLOPE = 0.01
"""Of a class's slope in the initial matrix, relative to where nothing is known but its frequency:
once a rare class is fitted its probabilities saturate, and the inverse of their slope would throw
the next step out of sight. On 52 classes it also halves the steps."""
CELLS = 12_000_000
"""Numbers that one batch of layers may hold in features and logits: about 50 MB. Four times as many
take a quarter longer with 52 classes: a step then waits for memory."""
NEVER = -1
"""Fold of a row that is never held out."""


@dataclass(frozen=True)
class HeldOut:
    """What a layer's probe says of rows that it was not fitted on."""

    log_probs: Tensor
    """Log-probabilities of the rows that were held out. Shape: (rows, classes), float32."""
    target: Tensor
    """Their labels. Shape: (rows,)."""
    strength: float
    """C with the lowest held-out log-loss."""

    @property
    def losses(self) -> Tensor:
        """Log-loss of each row, in nats. Shape: (rows,), float64."""
        return F.nll_loss(self.log_probs.double(), self.target, reduction="none")

    @property
    def right(self) -> Tensor:
        """Whether the most probable class is the row's. Shape: (rows,), bool."""
        return self.log_probs.argmax(dim=1) == self.target

    @property
    def log_loss(self) -> float:
        """Mean log-loss in nats."""
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        """Share of the rows that are right."""
        return float(self.right.double().mean())


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe, on features as they come from the store."""

    weight: Tensor
    """Shape: (classes, width)."""
    bias: Tensor
    """Shape: (classes,)."""

    def logits(self, features: Tensor) -> Tensor:
        """Scores before the softmax. Shape: (rows, classes), from (rows, width)."""
        return (features.double() @ self.weight.double().T + self.bias.double()).float()


def cross_validate(
    features: Sequence[Tensor],
    labels: Tensor,
    fold_of: Tensor,
    *,
    num_classes: int,
    strengths: Sequence[float] = STRENGTHS,
    tolerance: float = TOLERANCE,
    device: torch.device | None = None,
) -> list[HeldOut]:
    """Fit every layer on all folds but one, for each fold and strength, all in one optimisation.

    Each layer keeps the strength with the lowest held-out log-loss. Features are standardised with
    the statistics of the rows that a probe is fitted on, never of those it is judged on.

    Args:
        features: one tensor a layer. Shapes: (rows, d_l).
        labels: class indices. Shape: (rows,).
        fold_of: the fold that holds a row out, 0, 1, …; -1: none does. Shape: (rows,).
        num_classes: number of classes; one may be missing among the rows.
        strengths: candidates for C, the inverse strength of the regularisation.
        tolerance: largest entry of the gradient of the mean loss at the end.
        device: where to compute; the CPU if none.
    """
    folds = int(fold_of.max()) + 1
    fitted_on = torch.stack([fold_of != fold for fold in range(folds)])
    held = fold_of != NEVER
    target = labels[held]
    own = fold_of[held]
    results: list[HeldOut | None] = [None] * len(features)
    for places, problem in _batches(features, labels, fitted_on, num_classes, strengths, device):
        solution = problem.minimise(tolerance)
        # Every probe scored every row on its way; a row's own fold is the one that left it out.
        logits = solution.logits.unflatten(1, (folds, len(strengths)))[
            ..., held.to(solution.device)
        ]
        rows = torch.arange(len(own), device=logits.device)
        logits = logits.movedim(-1, 2)[:, own.to(logits.device), rows]  # L, rows, strengths, K
        log_probs = _log_probs(logits).cpu()
        for place, layer in zip(places, log_probs, strict=True):
            losses = [float(F.nll_loss(one.double(), target)) for one in layer.unbind(1)]
            best = min(range(len(losses)), key=losses.__getitem__)
            results[place] = HeldOut(layer[:, best].clone(), target, strengths[best])
    return [result for result in results if result is not None]


def fit_probes(
    features: Sequence[Tensor],
    labels: Tensor,
    strengths: Sequence[float],
    *,
    num_classes: int,
    tolerance: float = TOLERANCE,
    device: torch.device | None = None,
) -> list[LinearProbe]:
    """Fit one probe a layer on all rows, each with its own strength.

    Args:
        features: one tensor a layer. Shapes: (rows, d_l).
        labels: class indices. Shape: (rows,).
        strengths: C of each layer.
        num_classes: number of classes.
        tolerance: largest entry of the gradient of the mean loss at the end.
        device: where to compute; the CPU if none.
    """
    everything = torch.ones(1, len(labels), dtype=torch.bool)
    results: list[LinearProbe | None] = [None] * len(features)
    for strength in sorted(set(strengths)):
        mine = [place for place, own in enumerate(strengths) if own == strength]
        chosen = [features[place] for place in mine]
        for places, problem in _batches(
            chosen, labels, everything, num_classes, [strength], device
        ):
            for place, probe in zip(places, problem.minimise(tolerance).probes(), strict=True):
                results[mine[place]] = probe
    return [result for result in results if result is not None]


# -- the optimisation ---------------------------------------------------------------------------
#
# Shapes: layers L, rows n, problems Q = folds × strengths, columns K (classes; 1 for two classes),
# width D = d + 1: the features in the eigenbasis, and a column of ones for the bias. The rows come
# last in the logits: a softmax over classes that lie apart in memory takes a twentieth of the time.


@dataclass(frozen=True)
class _Problem:
    """All probes of some layers of equal width."""

    x: Tensor
    """Standardised features in the eigenbasis, then ones. Shape: (L, n, D)."""
    spectrum: Tensor
    """Mean square of each column of x, or about that. Shape: (L, D)."""
    basis: Tensor
    """Eigenvectors as columns. Shape: (L, d, d)."""
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

    def minimise(self, tolerance: float) -> _Solution:
        """Run all problems until each gradient is below the tolerance."""
        layers, rows, width = self.x.shape
        columns, problems = len(self.y), len(self.penalty)
        w = self.x.new_zeros(layers, problems, columns, width)
        z = self.x.new_zeros(layers, problems, columns, rows)
        active = torch.arange(problems, device=w.device)
        part, current, logits = self, w.clone(), z.clone()
        slope, gradient = part.slope_and_gradient(current, logits)
        history: list[tuple[Tensor, Tensor, Tensor]] = []
        for _ in range(MAX_STEPS):
            unfinished = gradient.abs().amax(dim=(2, 3)) > tolerance
            going = unfinished.any(dim=0)
            if not going.all():
                w[:, active], z[:, active] = current, logits
                if not going.any():
                    return _Solution(self, w, z)
                part, active = part.take(going), active[going]
                current, logits = current[:, going], logits[:, going]
                slope, gradient = slope[:, going], gradient[:, going]
                history = [(s[:, going], y[:, going], r[:, going]) for s, y, r in history]
                unfinished = unfinished[:, going]
            step = -part.precondition(gradient, slope, history)
            step *= unfinished[:, :, None, None]
            change = part.scores(step)
            length = part.search(current, logits, step, change, gradient)
            step *= length[:, :, None, None]
            current = current + step
            logits = logits + change * length[:, :, None, None]
            before = gradient
            slope, gradient = part.slope_and_gradient(current, logits)
            rise = gradient - before
            curvature = (step * rise).sum(dim=(2, 3))
            history = [*history[1 - HISTORY :], (step, rise, _inverse(curvature))]
        w[:, active], z[:, active] = current, logits
        worst = float(gradient.abs().max())
        log.warning("probes: %d steps left a gradient of %.1e", MAX_STEPS, worst)
        return _Solution(self, w, z)

    def take(self, problems: Tensor) -> _Problem:
        """The same layers with some of the problems. Shape of `problems`: (Q,), bool."""
        return _Problem(
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

    @property
    def least_slope(self) -> Tensor:
        """The least p (1 - p) that the initial matrix takes for true. Shape: (Q, K)."""
        frequency = self.weights @ self.y.T
        one_row = 1 / self.x.shape[1]
        return LEAST_SLOPE * (frequency * (1 - frequency)).clamp_min(one_row)

    def scores(self, w: Tensor) -> Tensor:
        """X · w. Shape: (L, Q, K, n), from (L, Q, K, D)."""
        return (w.flatten(1, 2) @ self.x.mT).unflatten(1, w.shape[1:3])

    def slope_and_gradient(self, w: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Mean p (1 - p), shape (L, Q, K), and gradient of the mean loss, shape (L, Q, K, D)."""
        probs = _probs(logits)
        weights = self.weights[:, None]
        slope = ((probs - probs.square()) * weights).sum(dim=3)
        residual = (probs - self.y) * weights
        gradient = residual.flatten(1, 2) @ self.x
        return slope, gradient.unflatten(1, w.shape[1:3]) + self.shrink(w)

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
        self, w: Tensor, logits: Tensor, step: Tensor, change: Tensor, gradient: Tensor
    ) -> Tensor:
        """Length of each problem's step, at which the slope along it has at least halved.

        The logits are linear in the length, so a trial costs no matrix product. The loss is convex,
        so the slope grows with the length: a bracket and the secant find where it vanishes.
        Shape: (L, Q).
        """
        start = (gradient * step).sum(dim=(2, 3))
        shrink_w = (self.shrink(w) * step).sum(dim=(2, 3))
        shrink_step = (self.shrink(step) * step).sum(dim=(2, 3))
        length = (start < 0).to(w.dtype)
        low, high = torch.zeros_like(length), torch.full_like(length, torch.inf)
        at_low = start.clone()
        undecided = length > 0
        for _ in range(20):
            residual = _probs(logits + change * length[:, :, None, None]) - self.y
            along = ((residual * change).sum(dim=2) * self.weights).sum(dim=2)
            along += shrink_w + length * shrink_step
            undecided = (along.abs() > 0.5 * start.abs()) & (length > 0)
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
class _Solution:
    problem: _Problem
    w: Tensor
    """Shape: (L, Q, K, D)."""
    logits: Tensor
    """Of all rows, those held out included. Shape: (L, Q, K, n)."""

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def probes(self) -> list[LinearProbe]:
        """The first problem of each layer, on raw features."""
        problem = self.problem
        mean, std = problem.mean.double(), problem.std.double()
        inner = self.w[:, 0, :, :-1].double() @ problem.basis.double().mT / std[:, None]
        bias = self.w[:, 0, :, -1].double() - (inner @ mean[:, :, None])[..., 0]
        if inner.shape[1] == 1:
            inner = torch.cat([torch.zeros_like(inner), inner], dim=1)
            bias = torch.cat([torch.zeros_like(bias), bias], dim=1)
        return [LinearProbe(w.cpu(), b.cpu()) for w, b in zip(inner, bias, strict=True)]


def _batches(
    features: Sequence[Tensor],
    labels: Tensor,
    fitted_on: Tensor,
    num_classes: int,
    strengths: Sequence[float],
    device: torch.device | None,
) -> Iterator[tuple[list[int], _Problem]]:
    """Problems of layers of equal width, as many at once as memory allows, with their places."""
    device = device or torch.device("cpu")
    columns = 1 if num_classes == 2 else num_classes
    y = labels[None].float() if columns == 1 else F.one_hot(labels, num_classes).T.float()
    counts = fitted_on.sum(dim=1)
    masks = (fitted_on / counts[:, None]).repeat_interleave(len(strengths), dim=0)
    penalty = 1 / (torch.tensor(strengths)[None] * counts[:, None]).flatten()
    by_width: dict[int, list[int]] = {}
    for place, layer in enumerate(features):
        by_width.setdefault(layer.shape[1], []).append(place)
    for width, places in by_width.items():
        cells = len(labels) * (width + 6 * columns * len(masks))
        size = max(1, CELLS // max(1, cells))
        for start in range(0, len(places), size):
            mine = places[start : start + size]
            x, spectrum, basis, mean, std = _rotated([features[p] for p in mine], device)
            spread = None
            if not bool(fitted_on.all()):
                spread = _spread([features[p] for p in mine], fitted_on, mean, std)
                spread = spread.repeat_interleave(len(strengths), dim=1).to(device)
            yield mine, _Problem(
                x, spectrum, basis, mean, std, y.to(device), masks.to(device), penalty.to(device),
                spread,
            )  # fmt: skip


def _rotated(
    features: Sequence[Tensor], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Standardise each layer and turn it to the eigenbasis of its covariance.

    The basis only speeds the optimisation up, so a part of the rows is enough to find it.
    """
    rows, width = features[0].shape
    part = torch.linspace(0, rows - 1, min(rows, BASIS_ROWS * width)).round().long()
    x = torch.ones(len(features), rows, width + 1, device=device)
    spectra, bases, means, stds = [], [], [], []
    for layer, turned in zip(features, x, strict=True):
        scale = Standardiser.fit([layer])
        mean, std = scale.mean[0].to(device), scale.std[0].to(device)
        if not bool(std.isfinite().all()):
            raise UserError("probe: a feature is not finite")
        standard = (layer.to(device) - mean) / std
        some = standard[part.to(device)] if len(part) < rows else standard
        # On the CPU: not every device has a solver for eigenvalues.
        values, vectors = torch.linalg.eigh((some.T @ some / len(some)).cpu())
        basis = vectors.to(device)
        turned[:, :-1] = standard @ basis
        spectra.append(F.pad(values.clamp_min(0), (0, 1), value=1.0).to(device))
        bases.append(basis)
        means.append(mean)
        stds.append(std)
    return x, torch.stack(spectra), torch.stack(bases), torch.stack(means), torch.stack(stds)


def _spread(features: Sequence[Tensor], fitted_on: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Variance of each feature on the rows of each fold over that on all. Shape: (L, folds, d)."""
    shares = fitted_on.double() / fitted_on.sum(dim=1, keepdim=True)
    result = []
    for layer, m, s in zip(features, mean.cpu(), std.cpu(), strict=True):
        x = ((layer - m) / s).double()
        centre = shares @ x
        spread = (shares @ x.square()) - centre.square()
        # A feature that is constant on the rows fitted on says no more than the free bias: under
        # any penalty its weight is 0, as where it is standardised there.
        result.append(torch.where(spread <= 1e-9, 1.0, spread).float())
    return torch.stack(result)


def _probs(logits: Tensor) -> Tensor:
    return logits.sigmoid() if logits.shape[2] == 1 else logits.softmax(dim=2)


def _log_probs(logits: Tensor) -> Tensor:
    if logits.shape[-1] == 1:
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=-1)
    return logits.log_softmax(dim=-1)


def _inverse(curvature: Tensor) -> Tensor:
    """1 / curvature; 0, which makes the recursion pass a pair by, where a problem stood still."""
    usable = curvature > 1e-20
    return torch.where(usable, 1 / curvature.clamp_min(1e-20), 0.0)
