"""Linear discriminants with a shrunken covariance, beside the logistic probes.

A discriminant treats each class as a cloud around its mean, and supposes that all clouds have the
same shape. The score of class c is s · (xᵀ D⁻¹ m_c − ½ m_cᵀ D⁻¹ m_c) + log π_c. D is the
covariance within the classes, shrunken towards a multiple of the unit matrix (Ledoit and Wolf,
Journal of Multivariate Analysis 88, 2004), m_c the mean of the class, π_c its share of the rows,
and s a scale.

Like a logistic probe, a discriminant is a linear map, but it is fitted in closed form: with 150
classes in a fortieth of the time. The two err on different rows, so that a stack uses their average
(`Blend`) for its best layers. `docs/fusion.md` has what each is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.embeddings.standardise import Standardiser
from layerfusion.layers.cross_fitting import choose_setting, take_by_row
from layerfusion.layers.eigenbasis import span
from layerfusion.layers.probe import NEVER, HeldOut, LinearProbe, Predictions

SHRINKAGES = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Shares of the unit matrix that are tried."""
SCALES = (0.0, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8, 1.1)
"""Factors of the discriminants that are tried. Features that depend on each other make a
discriminant too sure of itself, so the best one is mostly far below 1. With two rows of each class
a fold has one, which shows no variance within classes; with 0 nothing but the prior is left."""
LEAST_VARIANCE = 1e-3
"""Lower bound of the mean variance within classes, of features whose variance over all rows is 1.
Where each class has a single row, there is none within the classes."""
CONSTANT = 1e-12
"""Variance of a feature without a fold, relative to that over all rows, up to which it is constant
there: of sums in float64, rounding leaves less."""
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
    """Predict the held-out rows of a layer, and find the settings of the lowest log-loss.

    Each row is predicted with the settings that are best on the other folds: see `cross_fitting`.

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
    for fold, clouds in enumerate(_without_each_fold(features, labels, fold_of, num_classes)):
        out = fold_of == fold
        scores[:, out] = clouds.scores(features[out])
        priors[out] = clouds.log_prior
    rows = fold_of != NEVER
    chosen, best = _choose(scores[:, rows], priors[rows], labels[rows], fold_of[rows])
    return best.log_softmax(dim=1).cpu(), chosen


def _choose(
    scores: Tensor, priors: Tensor, target: Tensor, folds: Tensor
) -> tuple[Discriminant, Tensor]:
    """Find the shrinkage and scale of the lowest log-loss, and the logits of the rows.

    The loss is convex in the scale, so that the best one of a shrinkage is found by walking there
    from that of the shrinkage before. The rows of a fold have the logits of the settings, of those
    on the way, that are best on the other folds.

    Args:
        scores: what depends on the features. Shape: (shrinkages, rows, classes).
        priors: logarithms of the classes' shares. Shape: (rows, classes).
        target: class indices. Shape: (rows,).
        folds: the fold that holds out each row. Shape: (rows,).
    """
    losses: dict[tuple[int, int], Tensor] = {}
    scale = len(SCALES) // 2
    for shrinkage, one in enumerate(scores):

        def loss(at: int, shrinkage: int = shrinkage, one: Tensor = one) -> float:
            if (shrinkage, at) not in losses:
                logits = torch.add(priors, one, alpha=SCALES[at])
                losses[shrinkage, at] = F.cross_entropy(logits, target, reduction="none")
            return float(losses[shrinkage, at].mean())

        while scale + 1 < len(SCALES) and loss(scale + 1) < loss(scale):
            scale += 1
        while scale > 0 and loss(scale - 1) <= loss(scale):
            scale -= 1
    tried = sorted(losses, key=lambda at: (at[1], at[0]))  # the first of equal ones is taken
    best, by_row = choose_setting(torch.stack([losses[at] for at in tried]), folds)
    of_row = torch.tensor(tried, device=scores.device)[by_row]
    factor = scores.new_tensor(SCALES)[of_row[:, 1], None]
    logits = factor * take_by_row(scores, of_row[:, 0]) + priors
    return Discriminant(SHRINKAGES[tried[best][0]], SCALES[tried[best][1]]), logits


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
    return Blend(mean, held_out.target, held_out.strength, chosen, text_of=held_out.text_of)


def blend_probes(logistic: LinearProbe, discriminant: LinearProbe) -> LinearProbe:
    """Make one linear probe whose logits are the means of those of two."""
    return LinearProbe(
        (logistic.weight + discriminant.weight) / 2, (logistic.bias + discriminant.bias) / 2
    )


@dataclass(frozen=True)
class _Clouds:
    """Class means, and the covariance within classes, of standardised features."""

    mean: Tensor
    """Mean of each feature. Shape: (d,)."""
    std: Tensor
    """Standard deviation of each feature. Shape: (d,)."""
    inside: Tensor | None
    """Orthonormal columns of the space of fewer rows than features, in which the others are; None
    if that space is all there is. Shape: (d, r)."""
    covariance: Tensor
    """That within classes. Shape: (r, r)."""
    centres: Tensor
    """Class means. Shape: (classes, r)."""
    log_prior: Tensor
    """Logarithms of the classes' shares. Shape: (classes,)."""

    def scores(self, features: Tensor) -> Tensor:
        """Give what depends on the features. Shape: (shrinkages, rows, classes)."""
        rows = (features - self.mean) / self.std
        rows = rows if self.inside is None else rows @ self.inside
        scaled = torch.stack([self._scaled_centres(shrinkage) for shrinkage in SHRINKAGES])
        offsets = (self.centres * scaled).sum(dim=2) / 2
        return rows @ scaled.mT - offsets[:, None]

    def probe(self, chosen: Discriminant) -> LinearProbe:
        """Give the linear map of raw features."""
        scaled = chosen.scale * self._scaled_centres(chosen.shrinkage).double()
        plain = scaled if self.inside is None else scaled @ self.inside.double().T
        weight = plain / self.std.double()
        bias = self.log_prior - (self.centres * scaled).sum(dim=1) / 2 - weight @ self.mean.double()
        return LinearProbe(weight.cpu(), bias.cpu())

    def _scaled_centres(self, shrinkage: float) -> Tensor:
        """D⁻¹ m of each class. Shape: (classes, r)."""
        average = (self.covariance.trace() / len(self.mean)).clamp_min(LEAST_VARIANCE)
        shrunken = (1 - shrinkage) * self.covariance
        shrunken.diagonal().add_(shrinkage * average)
        return torch.cholesky_solve(self.centres.T, torch.linalg.cholesky(shrunken)).T


@dataclass(frozen=True)
class _Sums:
    """Sums over some rows, which those of a part of them can be taken from."""

    counts: Tensor
    """Rows of each class. Shape: (classes,), float64."""
    totals: Tensor
    """Sums of each feature by class. Shape: (classes, d), float64."""
    squares: Tensor
    """Sums of squares of each feature. Shape: (d,), float64."""
    products: Tensor
    """Sums of the products of every two features. Shape: (d, d)."""

    @classmethod
    def of(cls, rows: Tensor, labels: Tensor, num_classes: int) -> _Sums:
        """Sum up some rows, whose features should be about 0. Shape: (rows, d)."""
        exact = rows.double()
        counts = torch.bincount(labels, minlength=num_classes).double()
        totals = exact.new_zeros(num_classes, rows.shape[1]).index_add_(0, labels, exact)
        return cls(counts, totals, exact.square_().sum(dim=0), rows.T @ rows)

    def without(self, other: _Sums) -> _Sums:
        """Give the sums over the rows that are not among the others."""
        return _Sums(
            self.counts - other.counts,
            self.totals - other.totals,
            self.squares - other.squares,
            self.products - other.products,
        )

    def clouds(self, mean: Tensor, std: Tensor, inside: Tensor | None = None) -> _Clouds:
        """Describe the classes as the rows are, without standardising these.

        Args:
            mean: what was taken off the features to get the rows. Shape: (d,).
            std: what they were divided by. Shape: (d,).
            inside: what they were turned by. Shape: (d, r).
        """
        centres = self.totals / self.counts.clamp_min(1)[:, None]
        between = (centres.T * self.counts) @ centres
        covariance = (self.products - between) / self.counts.sum()
        log_prior = (self.counts.clamp_min(LEAST_ROWS) / self.counts.sum()).log()
        numbers = (covariance.to(mean), centres.to(mean), log_prior.to(mean))
        return _Clouds(mean, std, inside, *numbers)

    def standardised(self) -> tuple[_Sums, Tensor, Tensor]:
        """Give the sums of these rows standardised, and their mean and standard deviation.

        Shapes: (d,), float64. The deviation of a feature that is constant is 1.
        """
        size = self.counts.sum()
        mean = self.totals.sum(dim=0) / size
        spread = self.squares / size - mean.square()
        std = torch.where(spread <= CONSTANT, 1.0, spread.clamp_min(CONSTANT).sqrt())
        products = self.products - size * mean[:, None] * mean
        totals = (self.totals - self.counts[:, None] * mean) / std
        sums = _Sums(
            self.counts, totals, size * spread / std.square(), products / std[:, None] / std
        )
        return sums, mean, std


def _without_each_fold(
    features: Tensor, labels: Tensor, fold_of: Tensor, num_classes: int
) -> Iterator[_Clouds]:
    """Fit the rows outside of each fold.

    Sums over all rows, less those over a fold, take a third of the time of sums over the others.
    Fewer rows than features have a space of their own without each fold.
    """
    folds = range(int(fold_of.max()) + 1)
    if min(int((fold_of != fold).sum()) for fold in folds) < features.shape[1]:
        for fold in folds:
            yield _fit(features[fold_of != fold], labels[fold_of != fold], num_classes)
        return
    rows, mean, std = _standard(features)
    whole = _Sums.of(rows, labels, num_classes)
    for fold in folds:
        out = fold_of == fold
        rest = whole.without(_Sums.of(rows[out], labels[out], num_classes))
        sums, shift, stretch = rest.standardised()
        yield sums.clouds((mean + std * shift).to(mean), (std * stretch).to(std))


def _fit(features: Tensor, labels: Tensor, num_classes: int) -> _Clouds:
    rows, mean, std = _standard(features)
    # The class means lie in the space that the rows span; nothing outside of it counts.
    inside = span(rows)[1] if len(rows) < rows.shape[1] else None
    rows = rows if inside is None else rows @ inside
    return _Sums.of(rows, labels, num_classes).clouds(mean, std, inside)


def _standard(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Standardise features; return their means and standard deviations too. Shapes: (d,)."""
    scale = Standardiser.fit([features])
    mean, std = scale.mean[0].to(features), scale.std[0].to(features)
    return (features - mean) / std, mean, std
