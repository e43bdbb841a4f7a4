"""Linear probes of many layers, folds and regularisation strengths, fitted in one optimisation.

A probe is L2-regularised logistic regression on a layer's standardised features: softmax over the
classes, or a single sigmoid for two, as in scikit-learn. All folds and strengths of a layer share
its features, so a step of the optimisation is two matrix products a layer instead of hundreds, and
the layers themselves are batched.
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
"""Largest entry of the gradient of the mean loss, in the eigenbasis, at which a fit ends. On r8 and
mr the held-out log-loss of the strengths that are chosen is then within 0.0001 of that at 1e-5."""
BASIS_ROWS = 4
"""Rows a feature from which the eigenbasis is found."""
CELLS = 12_000_000
"""Numbers that one batch of layers may hold in features and logits on a CPU: about 50 MB. Four
times as many take a quarter longer with 52 classes: a step then waits for memory."""
GPU_BYTES_A_CELL = 64
"""Free bytes of a GPU for each number that a batch of layers may hold there: itself in float32, and
fifteen more for what a step of the optimisation makes of it."""
RACE_ROWS = 100
"""Rows judged below which no strength is out."""
SURELY = 4.0
"""Standard errors, of the difference row by row, behind the best: a strength that lies further back
is not fitted on the folds that are left."""
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
    """Fit every layer on all folds but one, for each fold and strength.

    All in one optimisation; with many classes, or fewer rows than features, fold by fold along the
    path of strengths, where one that is surely worse is not fitted on the folds that are left. Each
    layer keeps the strength with the lowest held-out log-loss. Features are standardised with
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
        for place, held in batch.items():
            results[place] = held
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
    """`cross_validate`, handed over as it goes: place of a layer to its result, batch by batch."""
    folds = int(fold_of.max()) + 1
    fitted_on = torch.stack([fold_of != fold for fold in range(folds)])
    held = torch.where(fold_of != NEVER)[0]
    target, own = labels[held], fold_of[held]
    fewest = int(fitted_on.sum(dim=1).min())
    columns = 1 if num_classes == 2 else num_classes
    for places in _groups(features, num_classes, folds * len(strengths), device):
        layers = [features[place] for place in places]
        width = layers[0].shape[1]
        # Where a strength is not fitted, its loss stays infinite.
        log_probs = torch.full((len(layers), len(held), len(strengths), num_classes), -torch.inf)
        # Fold by fold a layer is turned and standardised once each, and no spread is needed: worth
        # it where the rows span less than its width, or where there are more logits than features.
        if width > fewest or columns * folds * len(strengths) > width:
            running = sorted(range(len(strengths)), key=strengths.__getitem__)
            for fold in range(folds):
                mine = own == fold
                problem = _problem(
                    layers, labels, fitted_on[[fold]], num_classes, strengths, device
                )
                for number, said in _path(problem, running, held[mine], tolerance):
                    log_probs[:, mine, number] = said
                running = _not_surely_worse(log_probs[:, own <= fold], target[own <= fold], running)
        else:
            problem = _problem(layers, labels, fitted_on, num_classes, strengths, device)
            # Every probe scores every row on its way; a row's own fold is the one that left it out.
            logits = problem.minimise(tolerance).logits.unflatten(1, (folds, len(strengths)))
            for fold in range(folds):
                out = held[own == fold].to(logits.device)
                said = logits[:, fold, :, :, out].permute(0, 3, 1, 2)  # L, rows, strengths, K
                log_probs[:, own == fold] = _log_probs(said).cpu()
        batch = {}
        for place, layer in zip(places, log_probs, strict=True):
            losses = [float(F.nll_loss(one.double(), target)) for one in layer.unbind(1)]
            best = min(range(len(losses)), key=losses.__getitem__)
            batch[place] = HeldOut(layer[:, best].clone(), target, strengths[best])
        yield batch


def _path(
    problem: Problem, numbers: Sequence[int], out: Tensor, tolerance: float
) -> Iterator[tuple[int, Tensor]]:
    """Fit one strength after the other, each from where the one before it ended.

    From the strongest regularisation to the weakest, as Friedman, Hastie and Tibshirani do
    (Journal of Statistical Software, 2010): on 52 classes less than half of the time of all
    strengths from zero.

    Args:
        problem: one for each strength, all on the same rows.
        numbers: which of them, the strongest regularisation first.
        out: rows that the probes are judged on.
        tolerance: largest entry of the gradient of the mean loss at the end.

    Yields:
        A number, and the log-probabilities of the rows. Shape: (L, rows, classes).
    """
    start = None
    for number in numbers:
        solution = problem.only(number).minimise(tolerance, start)
        start = solution.w
        said = solution.logits[:, 0][..., out.to(solution.device)].mT
        yield number, _log_probs(said).cpu()


def _not_surely_worse(log_probs: Tensor, target: Tensor, running: Sequence[int]) -> list[int]:
    """Which strengths may still turn out best once the folds that are left are judged too.

    A race (Maron and Moore, NIPS 1994): on 52 classes most strengths are out after the first fold.

    Args:
        log_probs: of the rows judged so far. Shape: (L, rows, strengths, classes).
        target: their labels. Shape: (rows,).
        running: numbers of the strengths that were fitted on all of these.
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
        for places in _groups(chosen, num_classes, 1, device):
            layers = [chosen[place] for place in places]
            problem = _problem(layers, labels, everything, num_classes, [strength], device)
            probes = _linear_probes(problem.minimise(tolerance))
            for place, probe in zip(places, probes, strict=True):
                results[mine[place]] = probe
    return [result for result in results if result is not None]


def _linear_probes(solution: Solution) -> list[LinearProbe]:
    """The first problem of each layer, on raw features."""
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
    """Places of layers of equal width, as many at once as the device has room for."""
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
    """Layers of equal width, fitted on each of some sets of rows with each of some strengths.

    Args:
        features: Shapes: (rows, d).
        labels: class indices. Shape: (rows,).
        fitted_on: a set of rows each. Shape: (sets, rows), bool.
        num_classes: number of classes.
        strengths: C of the probes.
        device: where to compute; the CPU if none.
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

    The basis only speeds the optimisation up, so a part of the rows is enough to find it; but where
    a layer is wider than they are many, all it needs is the space that they span: a regularised
    weight has no part outside (Schölkopf and others, COLT 2001).
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
    """Eigenvalues, shape (d,), and eigenvectors, shape (d, d), of the rows' covariance."""
    values, vectors = _eigh(x.T @ x / len(x))
    return values, vectors.to(x.device)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, on a GPU where the matrix lies on one."""
    # Elsewhere on the CPU: not every device has a solver for eigenvalues.
    return torch.linalg.eigh(matrix if matrix.is_cuda else matrix.cpu())


def _span(x: Tensor) -> tuple[Tensor, Tensor]:
    """The same of fewer rows than features: shapes (n,) and (d, n); empty directions are zero."""
    # In float64, as the square roots of small eigenvalues scale the directions.
    values, vectors = _eigh(x.double() @ x.double().T / len(x))
    real = values > 1e-10 * values[-1].clamp_min(1e-30)
    scales = torch.where(real, (values.clamp_min(1e-30) * len(x)).rsqrt(), 0.0)
    basis = x.double().T @ (vectors * scales).to(x.device)
    return torch.where(real, values, 0.0).float(), basis.float()


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


def _log_probs(logits: Tensor) -> Tensor:
    if logits.shape[-1] == 1:
        return torch.cat([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=-1)
    return logits.log_softmax(dim=-1)
