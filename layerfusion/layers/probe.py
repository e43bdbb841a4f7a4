"""Linear probes of many layers, folds and regularisation strengths, fitted in one optimisation.

A probe is L2-regularised logistic regression on standardised features of a layer: softmax over the
classes, or a single sigmoid for two, as in scikit-learn. All folds and strengths of a layer share
its features, so one step of the optimisation takes two matrix products for each layer instead of
hundreds, and layers of equal width are batched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import STRENGTHS
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.layers.logistic import Problem, Solution

TOLERANCE = 1e-4
"""A fit ends once no entry of the gradient of the mean loss, in the eigenbasis, is larger. On r8
and mr the held-out log-loss of the chosen strengths is then within 0.0001 of that at 1e-5."""
BASIS_ROWS = 4
"""Rows per feature used to estimate the eigenbasis."""
CELLS = 12_000_000
"""Limit on the numbers in the features and logits of one batch of layers: about 50 MB. With 52
classes, batches four times as large take a quarter longer, since each step waits for memory."""
GPU_BYTES_A_CELL = 64
"""Free bytes of a GPU for each number in a batch of layers: the number itself in float32, and what
a step of the optimisation makes of it."""
RACE_ROWS = 100
"""No strength is eliminated before this many held-out rows."""
SURELY = 4.0
"""A strength is dropped once its paired loss is this many standard errors worse than the best."""
NEVER = -1
"""The fold number of rows that are never held out."""


@dataclass(frozen=True)
class HeldOut:
    """Predictions of a layer's probe for rows that it was not fitted on."""

    log_probs: Tensor
    """Log-probabilities of the held-out rows. Shape: (rows, classes), float32."""
    target: Tensor
    """Labels of the held-out rows. Shape: (rows,)."""
    strength: float
    """The C with the lowest held-out log-loss."""

    @property
    def losses(self) -> Tensor:
        """Log-loss of each row, in nats. Shape: (rows,), float64."""
        return F.nll_loss(self.log_probs.double(), self.target, reduction="none")

    @property
    def right(self) -> Tensor:
        """True where the most probable class is the row's label. Shape: (rows,), bool."""
        return self.log_probs.argmax(dim=1) == self.target

    @property
    def log_loss(self) -> float:
        """Mean log-loss in nats."""
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        """Share of the rows whose most probable class is right."""
        return float(self.right.double().mean())


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe, for features as they come from the store."""

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
    """Fit every layer on all folds but one, for each fold and strength.

    Usually all of it is one optimisation. With many classes, or fewer rows than features, the folds
    are fitted one after the other, each along the path of strengths, and a strength that is surely
    worse is not fitted on the remaining folds. Each layer keeps the strength with the lowest
    held-out log-loss. Features are standardised by the rows that a probe is fitted on, never by
    those that it predicts.

    Args:
        features: the vectors of each layer. Shapes: (rows, d_l).
        labels: class indices. Shape: (rows,).
        fold_of: the fold in which a row is held out, 0, 1, …; -1 if it never is. Shape: (rows,).
        num_classes: number of classes; one may be missing among the rows.
        strengths: candidates for C, the inverse strength of the regularisation.
        tolerance: largest entry of the gradient of the mean loss at the end.
        device: device to compute on; the CPU if none.

    Example:
        >>> labels = torch.arange(40) % 2
        >>> features = labels[:, None] + 0.1 * torch.randn(40, 3)
        >>> (held_out,) = cross_validate([features], labels, torch.arange(40) // 8, num_classes=2)
        >>> held_out.log_probs.shape, held_out.accuracy
        (torch.Size([40, 2]), 1.0)
    """
    results: list[HeldOut | None] = [None] * len(features)
    for batch in cross_validate_in_batches(
        features,
        labels,
        fold_of,
        num_classes=num_classes,
        strengths=strengths,
        tolerance=tolerance,
        device=device,
    ):
        for place, held_out in batch.items():
            results[place] = held_out
    return [result for result in results if result is not None]


def cross_validate_in_batches(
    features: Sequence[Tensor],
    labels: Tensor,
    fold_of: Tensor,
    *,
    num_classes: int,
    strengths: Sequence[float] = STRENGTHS,
    tolerance: float = TOLERANCE,
    device: torch.device | None = None,
) -> Iterator[dict[int, HeldOut]]:
    """Run `cross_validate`, yielding the results of each batch of layers by their position."""
    folds = int(fold_of.max()) + 1
    fitted_on = torch.stack([fold_of != fold for fold in range(folds)])
    held_out = torch.where(fold_of != NEVER)[0]
    target, folds_of = labels[held_out], fold_of[held_out]
    fewest = int(fitted_on.sum(dim=1).min())
    columns = 1 if num_classes == 2 else num_classes
    for places in _groups(features, num_classes, folds * len(strengths), device):
        layers = [features[place] for place in places]
        width = layers[0].shape[1]
        # The loss of a strength that is not fitted stays infinite.
        size = (len(layers), len(held_out), len(strengths), num_classes)
        log_probs = torch.full(size, -torch.inf)
        # Folds can be fitted one by one: each then has its own eigenbasis and needs no spread. This
        # is faster if the rows span fewer dimensions than the width, or if there are more logits
        # than features.
        if width > fewest or columns * folds * len(strengths) > width:
            running = sorted(range(len(strengths)), key=strengths.__getitem__)
            for fold in range(folds):
                in_fold = folds_of == fold
                problem = _problem(
                    layers, labels, fitted_on[[fold]], num_classes, strengths, device
                )
                for number, predicted in _path(problem, running, held_out[in_fold], tolerance):
                    log_probs[:, in_fold, number] = predicted
                seen = folds_of <= fold
                running = _not_surely_worse(log_probs[:, seen], target[seen], running)
        else:
            problem = _problem(layers, labels, fitted_on, num_classes, strengths, device)
            # The optimisation has the logits of all rows; of each row we keep those of the probes
            # that were fitted without it.
            logits = problem.minimise(tolerance).logits.unflatten(1, (folds, len(strengths)))
            for fold in range(folds):
                rows = held_out[folds_of == fold].to(logits.device)
                predicted = logits[:, fold, :, :, rows].permute(0, 3, 1, 2)  # L, rows, strengths, K
                log_probs[:, folds_of == fold] = _log_probs(predicted).cpu()
        batch = {}
        for place, layer in zip(places, log_probs, strict=True):
            losses = [float(F.nll_loss(at_c.double(), target)) for at_c in layer.unbind(1)]
            best = min(range(len(losses)), key=losses.__getitem__)
            batch[place] = HeldOut(layer[:, best].clone(), target, strengths[best])
        yield batch


def _path(
    problem: Problem, numbers: Sequence[int], out: Tensor, tolerance: float
) -> Iterator[tuple[int, Tensor]]:
    """Fit one strength after the other, each starting from the weights of the one before.

    The order is from the strongest regularisation to the weakest, as in Friedman, Hastie and
    Tibshirani (Journal of Statistical Software, 2010). With 52 classes this takes less than half of
    the time of starting each strength from zero.

    Args:
        problem: one problem for each strength, all on the same rows.
        numbers: positions of the strengths to fit, the strongest regularisation first.
        out: the held-out rows.
        tolerance: largest entry of the gradient of the mean loss at the end.

    Yields:
        The position of a strength, and its log-probabilities of the held-out rows. Shape: (L, rows,
        classes).
    """
    start = None
    for number in numbers:
        solution = problem.only(number).minimise(tolerance, start)
        start = solution.w
        predicted = solution.logits[:, 0][..., out.to(solution.device)].mT
        yield number, _log_probs(predicted).cpu()


def _not_surely_worse(log_probs: Tensor, target: Tensor, running: Sequence[int]) -> list[int]:
    """List the strengths that may still turn out best after the remaining folds.

    This is a race (Maron and Moore, NIPS 1994): with 52 classes it drops most strengths after the
    first fold.

    Args:
        log_probs: predictions of the held-out rows so far. Shape: (L, rows, strengths, classes).
        target: labels of these rows. Shape: (rows,).
        running: positions of the strengths that were fitted on all folds so far.
    """
    if len(target) < RACE_ROWS:
        return list(running)
    place = target[None, :, None, None].expand(len(log_probs), -1, len(running), 1)
    losses = -log_probs[:, :, running].gather(3, place)[..., 0].double()  # L, rows, running
    best = losses.mean(dim=1).argmin(dim=1)
    behind = losses - losses.take_along_dim(best[:, None, None], dim=2)
    sure = behind.mean(dim=1) > SURELY * behind.std(dim=1) / len(target) ** 0.5
    return [
        number for number, out in zip(running, sure.all(dim=0).tolist(), strict=True) if not out
    ]


def fit_probes(
    features: Sequence[Tensor],
    labels: Tensor,
    strengths: Sequence[float],
    *,
    num_classes: int,
    tolerance: float = TOLERANCE,
    device: torch.device | None = None,
) -> list[LinearProbe]:
    """Fit one probe for each layer on all rows, each with its own strength.

    Args:
        features: the vectors of each layer. Shapes: (rows, d_l).
        labels: class indices. Shape: (rows,).
        strengths: the C of each layer's probe.
        num_classes: number of classes.
        tolerance: largest entry of the gradient of the mean loss at the end.
        device: device to compute on; the CPU if none.
    """
    everything = torch.ones(1, len(labels), dtype=torch.bool)
    results: list[LinearProbe | None] = [None] * len(features)
    for strength in sorted(set(strengths)):
        alike = [place for place, other in enumerate(strengths) if other == strength]
        chosen = [features[place] for place in alike]
        for places in _groups(chosen, num_classes, 1, device):
            layers = [chosen[place] for place in places]
            problem = _problem(layers, labels, everything, num_classes, [strength], device)
            probes = _linear_probes(problem.minimise(tolerance))
            for place, probe in zip(places, probes, strict=True):
                results[alike[place]] = probe
    return [result for result in results if result is not None]


def _linear_probes(solution: Solution) -> list[LinearProbe]:
    """Turn the solution of each layer's first problem into a probe for raw features."""
    problem = solution.problem
    mean, std = problem.mean.double(), problem.std.double()
    inner = solution.w[:, 0, :, :-1].double() @ problem.basis.double().mT / std[:, None]
    bias = solution.w[:, 0, :, -1].double() - (inner @ mean[:, :, None])[..., 0]
    if inner.shape[1] == 1:
        inner = torch.cat([torch.zeros_like(inner), inner], dim=1)
        bias = torch.cat([torch.zeros_like(bias), bias], dim=1)
    return [LinearProbe(w.cpu(), b.cpu()) for w, b in zip(inner, bias, strict=True)]


def _groups(
    features: Sequence[Tensor], num_classes: int, problems: int, device: torch.device | None
) -> Iterator[list[int]]:
    """Batch layers of equal width, as many as the device has room for; yield their positions."""
    cells = CELLS
    if device is not None and device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cells = max(CELLS, free // GPU_BYTES_A_CELL)
    columns = 1 if num_classes == 2 else num_classes
    by_width: dict[int, list[int]] = {}
    for place, layer in enumerate(features):
        by_width.setdefault(layer.shape[1], []).append(place)
    for width, places in by_width.items():
        rows = len(features[places[0]])
        size = max(1, cells // max(1, rows * (width + 6 * columns * problems)))
        for start in range(0, len(places), size):
            yield places[start : start + size]


def _problem(
    features: Sequence[Tensor],
    labels: Tensor,
    fitted_on: Tensor,
    num_classes: int,
    strengths: Sequence[float],
    device: torch.device | None,
) -> Problem:
    """Set up layers of equal width, to be fitted on each set of rows with each strength.

    Args:
        features: the vectors of each layer. Shapes: (rows, d).
        labels: class indices. Shape: (rows,).
        fitted_on: true for the rows of each set. Shape: (sets, rows), bool.
        num_classes: number of classes.
        strengths: C of the probes.
        device: device to compute on; the CPU if none.
    """
    device = device or torch.device("cpu")
    y = labels[None].float() if num_classes == 2 else F.one_hot(labels, num_classes).T.float()
    counts = fitted_on.sum(dim=1)
    masks = (fitted_on / counts[:, None]).repeat_interleave(len(strengths), dim=0)
    penalty = 1 / (torch.tensor(strengths)[None] * counts[:, None]).flatten()
    one_set = len(fitted_on) == 1
    seen = fitted_on[0] if one_set else torch.ones(len(labels), dtype=torch.bool)
    x, spectrum, basis, mean, std = _turned(features, seen, device)
    spread = None
    if not one_set:
        spread = _spread(features, fitted_on, mean, std)
        spread = spread.repeat_interleave(len(strengths), dim=1).to(device)
    return Problem(
        x, spectrum, basis, mean, std, y.to(device), masks.to(device), penalty.to(device), spread
    )


def _turned(
    features: Sequence[Tensor], seen: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Standardise each layer by the rows seen and turn it to the eigenbasis of their covariance.

    The basis only makes the optimisation faster, so some of the rows are enough to estimate it. If
    there are fewer rows than features, the space that the rows span is enough: a regularised
    weight vector lies in it (representer theorem, Schölkopf et al., COLT 2001).
    """
    rows, width = features[0].shape
    used = torch.where(seen)[0]
    if len(used) > BASIS_ROWS * width:
        used = used[torch.linspace(0, len(used) - 1, BASIS_ROWS * width).round().long()]
    size = min(len(used), width)
    x = torch.ones(len(features), rows, size + 1, device=device)
    spectra, bases, means, stds = [], [], [], []
    for layer, turned in zip(features, x, strict=True):
        scale = Standardiser.fit([layer[seen]])
        mean, std = scale.mean[0].to(device), scale.std[0].to(device)
        if not bool(std.isfinite().all()):
            raise UserError("probe: a feature is not finite")
        standard = (layer.to(device) - mean) / std
        some = standard[used.to(device)]
        values, basis = _span(some) if size < width else _axes(some)
        turned[:, :-1] = standard @ basis
        spectra.append(F.pad(values.clamp_min(0), (0, 1), value=1.0).to(device))
        bases.append(basis)
        means.append(mean)
        stds.append(std)
    return x, torch.stack(spectra), torch.stack(bases), torch.stack(means), torch.stack(stds)


def _axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of the rows' covariance. Shapes: (d,) and (d, d)."""
    values, vectors = _eigh(x.T @ x / len(x))
    return values, vectors.to(x.device)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, on a GPU where the matrix lies on one."""
    # Elsewhere on the CPU: not every device has a solver for eigenvalues.
    return torch.linalg.eigh(matrix if matrix.is_cuda else matrix.cpu())


def _span(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors for fewer rows than features; empty directions are zero.

    Shapes: (n,) and (d, n).
    """
    # Float64 is needed, since the directions are scaled by roots of small eigenvalues.
    values, vectors = _eigh(x.double() @ x.double().T / len(x))
    real = values > 1e-10 * values[-1].clamp_min(1e-30)
    scales = torch.where(real, (values.clamp_min(1e-30) * len(x)).rsqrt(), 0.0)
    basis = x.double().T @ (vectors * scales).to(x.device)
    return torch.where(real, values, 0.0).float(), basis.float()


def _spread(features: Sequence[Tensor], fitted_on: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Variance of each feature on each set of rows, relative to all rows. Shape: (L, sets, d)."""
    shares = fitted_on.double() / fitted_on.sum(dim=1, keepdim=True)
    result = []
    for layer, m, s in zip(features, mean.cpu(), std.cpu(), strict=True):
        x = ((layer - m) / s).double()
        centre = shares @ x
        spread = (shares @ x.square()) - centre.square()
        # A feature that is constant on the fitted rows adds nothing to the free bias, so its weight
        # becomes 0 under any penalty, as it would if it were standardised on these rows.
        result.append(torch.where(spread <= 1e-9, 1.0, spread).float())
    return torch.stack(result)


def _log_probs(logits: Tensor) -> Tensor:
    if logits.shape[-1] == 1:
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=-1)
    return logits.log_softmax(dim=-1)
