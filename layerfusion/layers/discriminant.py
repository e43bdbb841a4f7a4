"""Linear discriminants with a shrunken covariance, beside the logistic probes.

A discriminant sees each class as a cloud around its mean, and all clouds as of one shape. The score
of class c is s · (xᵀ D⁻¹ m_c − ½ m_cᵀ D⁻¹ m_c) + log π_c. D is the covariance within the classes,
shrunken towards a multiple of the unit matrix (Ledoit and Wolf, Journal of Multivariate Analysis
88, 2004), m_c the mean of the class, π_c its share of the rows, and s a scale.

Like a logistic probe, a discriminant is a linear map, but it is fitted in closed form: with 150
classes in a fortieth of the time. The two err on different rows, so that a stack uses their average
(`Blend`) for its best layers. `docs/fusion.md` has what each is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.embeddings.standardise import Standardiser
from layerfusion.layers.eigenbasis import axes, span
from layerfusion.layers.probe import NEVER, HeldOut, LinearProbe, Predictions

SHRINKAGES = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Shares of the unit matrix that are tried."""
SCALES = (0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.1)
"""Factors of the discriminants that are tried. Features that depend on each other make a
discriminant too sure of itself, so the best one is mostly far below 1."""
LEAST_VARIANCE = 1e-3
"""Lower bound of the mean variance within classes, of features whose variance over all rows is 1.
Where each class has a single row, there is none within the classes."""
LEAST_ROWS = 1e-3
"""Rows that a class without rows counts for in the prior."""


@dataclass(frozen=True)
class Discriminant:
    """Settings of a discriminant, chosen on held-out rows."""

    shrinkage: float
    """Share of the unit matrix in the covariance within classes."""
    scale: float
    """Factor of all that depends on the features."""


@dataclass(frozen=True)
class Blend(Predictions):
    """Held-out predictions of a logistic regression, a discriminant, or the average of both."""

    strength: float | None = None
    """The regression's C; None if there is none."""
    discriminant: Discriminant | None = None
    """The discriminant's settings; None if there is none."""


def cross_validate_discriminant(
    features: Tensor,
    labels: Tensor,
    fold_of: Tensor,
    *,
    num_classes: int,
    device: torch.device | None = None,
) -> tuple[Tensor, Discriminant]:
    """Predict the held-out rows of a layer, with the settings that give the lowest log-loss.

    Args:
        features: vectors of the layer. Shape: (rows, d).
        labels: class indices. Shape: (rows,).
        fold_of: the fold in which a row is held out; -1 if it never is. Shape: (rows,).
        num_classes: number of classes; one may be missing among the rows.
        device: device to compute on; the CPU if none.

    Returns:
        Log-probabilities of the held-out rows, shape (held-out rows, classes), and the settings.

    Example:
        >>> labels = torch.arange(40) % 2
        >>> features = labels[:, None] + 0.1 * torch.randn(40, 3)
        >>> predicted, _ = cross_validate_discriminant(
        ...     features, labels, torch.arange(40) // 8, num_classes=2
        ... )
        >>> bool((predicted.argmax(1) == labels).all())
        True
    """
    features, labels, fold_of = (x.to(device or "cpu") for x in (features, labels, fold_of))
    scores = features.new_zeros(len(SHRINKAGES), len(labels), num_classes)
    priors = features.new_zeros(len(labels), num_classes)
    for fold in range(int(fold_of.max()) + 1):
        out = fold_of == fold
        clouds = _fit(features[~out], labels[~out], num_classes)
        scores[:, out] = clouds.scores(features[out])
        priors[out] = clouds.log_prior
    rows = fold_of != NEVER
    scores, priors, target = scores[:, rows], priors[rows], labels[rows]
    losses = torch.stack(
        [
            torch.stack([F.cross_entropy(scale * one + priors, target) for one in scores])
            for scale in SCALES
        ]
    )
    place = int(losses.argmin())
    chosen = Discriminant(SHRINKAGES[place % len(SHRINKAGES)], SCALES[place // len(SHRINKAGES)])
    best = chosen.scale * scores[place % len(SHRINKAGES)] + priors
    return best.log_softmax(dim=1).cpu(), chosen


def fit_discriminant(
    features: Tensor,
    labels: Tensor,
    chosen: Discriminant,
    *,
    num_classes: int,
    device: torch.device | None = None,
) -> LinearProbe:
    """Fit a discriminant on all rows, as a linear probe for features as they come from the store.

    Args:
        features: vectors of the layer. Shape: (rows, d).
        labels: class indices. Shape: (rows,).
        chosen: settings.
        num_classes: number of classes.
        device: device to compute on; the CPU if none.
    """
    clouds = _fit(features.to(device or "cpu"), labels.to(device or "cpu"), num_classes)
    return clouds.probe(chosen)


def blend(held_out: HeldOut, log_probs: Tensor, chosen: Discriminant) -> Blend:
    """Average the log-probabilities of a logistic probe and a discriminant on the same rows.

    Args:
        held_out: of the logistic probe.
        log_probs: of the discriminant. Shape: (held-out rows, classes).
        chosen: its settings.
    """
    mean = ((held_out.log_probs + log_probs) / 2).log_softmax(dim=1)
    return Blend(mean, held_out.target, held_out.strength, chosen)


def blend_probes(logistic: LinearProbe, discriminant: LinearProbe) -> LinearProbe:
    """Make one linear probe whose logits are the means of those of two."""
    return LinearProbe(
        (logistic.weight + discriminant.weight) / 2, (logistic.bias + discriminant.bias) / 2
    )


@dataclass(frozen=True)
class _Clouds:
    """Class means, and the covariance within classes in its eigenbasis."""

    mean: Tensor
    """Mean of each feature. Shape: (d,)."""
    std: Tensor
    """Standard deviation of each feature. Shape: (d,)."""
    basis: Tensor
    """Eigenvectors as columns, within the space of the rows. Shape: (d, r)."""
    spectrum: Tensor
    """Variances along them. Shape: (r,)."""
    centres: Tensor
    """Class means in the eigenbasis. Shape: (classes, r)."""
    log_prior: Tensor
    """Logarithms of the classes' shares. Shape: (classes,)."""

    def scores(self, features: Tensor) -> Tensor:
        """Give what depends on the features. Shape: (shrinkages, rows, classes)."""
        turned = ((features - self.mean) / self.std) @ self.basis
        return torch.stack(
            [
                turned @ centres.T - (self.centres * centres).sum(dim=1) / 2
                for centres in map(self._scaled_centres, SHRINKAGES)
            ]
        )

    def probe(self, chosen: Discriminant) -> LinearProbe:
        """Give the linear map of raw features."""
        scaled = chosen.scale * self._scaled_centres(chosen.shrinkage).double()
        weight = scaled @ self.basis.double().T / self.std.double()
        bias = self.log_prior - (self.centres * scaled).sum(dim=1) / 2 - weight @ self.mean.double()
        return LinearProbe(weight.cpu(), bias.cpu())

    def _scaled_centres(self, shrinkage: float) -> Tensor:
        """D⁻¹ m of each class. Shape: (classes, r)."""
        average = (self.spectrum.sum() / len(self.mean)).clamp_min(LEAST_VARIANCE)
        return self.centres / ((1 - shrinkage) * self.spectrum + shrinkage * average)


def _fit(features: Tensor, labels: Tensor, num_classes: int) -> _Clouds:
    scale = Standardiser.fit([features])
    mean, std = scale.mean[0].to(features), scale.std[0].to(features)
    standard = (features - mean) / std
    # The class means lie in the space that the rows span; nothing outside of it counts.
    inside = span(standard)[1] if len(standard) < standard.shape[1] else None
    rows = standard if inside is None else standard @ inside
    members = F.one_hot(labels, num_classes).to(rows)
    counts = members.sum(dim=0)
    centres = members.T @ rows / counts.clamp_min(1)[:, None]
    spectrum, turn = axes(rows - centres[labels])
    return _Clouds(
        mean,
        std,
        turn if inside is None else inside @ turn,
        spectrum.to(features).clamp_min(0),
        centres @ turn,
        (counts.clamp_min(LEAST_ROWS) / len(labels)).log(),
    )
