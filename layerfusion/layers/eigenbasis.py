"""Sets up the probes' problems in the eigenbasis of each layer's covariance.

In that basis the Hessian of a logistic loss is nearly diagonal, so `logistic` needs few steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.layers.labels import is_multilabel
from layerfusion.layers.logistic import Problem

BASIS_ROWS = 4
"""Rows per feature used to estimate the eigenbasis."""


def set_up(
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
        labels: class indices, shape (rows,), or labels, shape (rows, labels).
        fitted_on: true for the rows of each set. Shape: (sets, rows), bool.
        num_classes: number of classes.
        strengths: C of the probes.
        device: device to compute on; the CPU if none.
    """
    device = device or torch.device("cpu")
    independent = is_multilabel(labels)
    if independent:
        y = labels.T.float()
    else:
        y = labels[None].float() if num_classes == 2 else F.one_hot(labels, num_classes).T.float()
    counts = fitted_on.sum(dim=1)
    masks = (fitted_on / counts[:, None]).repeat_interleave(len(strengths), dim=0)
    penalty = 1 / (torch.tensor(strengths)[None] * counts[:, None]).flatten()
    one_set = len(fitted_on) == 1
    seen = fitted_on[0] if one_set else torch.ones(len(labels), dtype=torch.bool)
    sets = None if one_set else fitted_on.to(device)
    x, spectrum, basis, mean, std, spread = _turned(features, seen.to(device), sets)
    if spread is not None:
        spread = spread.repeat_interleave(len(strengths), dim=1)
    return Problem(
        x,
        spectrum,
        basis,
        mean,
        std,
        y[None].to(device),
        masks.to(device),
        penalty.to(device),
        spread,
        independent,
    )


def _turned(
    features: Sequence[Tensor], seen: Tensor, sets: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Standardise each layer by the rows seen and turn it to the eigenbasis of their covariance.

    The basis only makes the optimisation faster, so some of the rows are enough to estimate it. If
    there are fewer rows than features, the space that the rows span is enough: a regularised
    weight vector lies in it (representer theorem, Schölkopf et al., COLT 2001). All of it is
    computed on the device of `seen`, to which each layer is copied once.
    """
    rows, width = features[0].shape
    device, used = seen.device, torch.where(seen)[0]
    if len(used) > BASIS_ROWS * width:
        used = used[torch.linspace(0, len(used) - 1, BASIS_ROWS * width).round().long()]
    size = min(len(used), width)
    x = torch.ones(len(features), rows, size + 1, device=device)
    spectra, bases, means, stds, spreads = [], [], [], [], []
    for layer, turned in zip(features, x, strict=True):
        here = layer.to(device)
        scale = Standardiser.fit([here[seen]])
        mean, std = scale.mean[0], scale.std[0]
        if not bool(std.isfinite().all()):
            raise UserError("probe: a feature is not finite")
        standard = (here - mean) / std
        some = standard[used]
        values, basis = span(some) if size < width else axes(some)
        turned[:, :-1] = standard @ basis
        spectra.append(F.pad(values.clamp_min(0), (0, 1), value=1.0).to(device))
        bases.append(basis)
        means.append(mean)
        stds.append(std)
        if sets is not None:
            spreads.append(_spread(standard, sets))
    spread = torch.stack(spreads) if spreads else None
    return (
        x,
        torch.stack(spectra),
        torch.stack(bases),
        torch.stack(means),
        torch.stack(stds),
        spread,
    )


def axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of the rows' covariance. Shapes: (d,) and (d, d)."""
    values, vectors = _eigh(x.T @ x / len(x))
    return values, vectors.to(x.device)


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, on a GPU where the matrix lies on one."""
    # Elsewhere on the CPU: not every device has a solver for eigenvalues.
    return torch.linalg.eigh(matrix if matrix.is_cuda else matrix.cpu())


def span(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors for fewer rows than features; empty directions are zero.

    Shapes: (n,) and (d, n).
    """
    # Float64 is needed, since the directions are scaled by roots of small eigenvalues.
    values, vectors = _eigh(x.double() @ x.double().T / len(x))
    real = values > 1e-10 * values[-1].clamp_min(1e-30)
    scales = torch.where(real, (values.clamp_min(1e-30) * len(x)).rsqrt(), 0.0)
    basis = x.double().T @ (vectors * scales).to(x.device)
    return torch.where(real, values, 0.0).float(), basis.float()


def _spread(standard: Tensor, sets: Tensor) -> Tensor:
    """Variance of each standardised feature on each set of rows. Shape: (sets, d).

    Args:
        standard: a layer, standardised by all rows. Shape: (rows, d).
        sets: true for the rows of each set. Shape: (sets, rows), bool.
    """
    shares = sets.double() / sets.sum(dim=1, keepdim=True)
    x = standard.double()
    spread = (shares @ x.square()) - (shares @ x).square()
    # A feature that is constant on the fitted rows adds nothing to the free bias, so its weight
    # becomes 0 under any penalty, as it would if it were standardised on these rows.
    return torch.where(spread <= 1e-9, 1.0, spread).float()
