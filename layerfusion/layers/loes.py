"""Selection `loes`: layers whose vectors are isotropic, and explain what others leave unexplained.

Layer-wise Optimal Embedding Selection (Batra et al., ICML 2026, arXiv 2605.23033) is a rival of the
selections here. This is a version of our own, with the terms, weights and random triangles of the
authors' implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import LayersConfig
from layerfusion.errors import UserError
from layerfusion.layers.budget import Budget
from layerfusion.layers.labels import is_multilabel
from layerfusion.layers.scores import ScoreTable
from layerfusion.layers.selection import Choice, Selection, SelectionRule, usable_layers

RIDGE = 1e-3
"""Penalty on the squared weights of the regression on the labels."""
PROJECTION_RIDGE = 1e-6
"""The same, of the regression of a layer on the layers that are chosen already."""
ISOTROPY, REDUNDANCY, TRIANGLES = 1.0, 0.5, 0.1
"""Weights of the terms beside the mean squared error: α, γ and η of the paper."""
MOST_TRIANGLES = 200
"""Most triangles of class means that are measured."""
LEAST = 1e-6
"""Smallest eigenvalue of a covariance that counts, and what keeps a quotient finite."""


def select_loes(
    table: ScoreTable, _similarity: Tensor, budget: Budget, config: LayersConfig
) -> Selection:
    """Select layers step by step, each by the lowest sum of four terms.

    These are the mean squared error of a ridge regression on what the layers before leave of the
    labels, 1 less the isotropy of the layer, its redundancy with the layers before, and, with a
    minus, the mean area of triangles of class means. The regression and the triangles see only the
    part of a layer's vectors that those before do not explain. The first layer is chosen without
    the last two terms.

    Args:
        table: the layers, with their vectors and labels on train.
        budget: what the layers may cost together.
        config: `k` is the number of layers; with fewer to choose among, all are taken.

    Raises:
        UserError: if the table has no vectors.
    """
    if table.candidates is None:
        raise UserError("layers=loes: it needs the vectors of the layers")
    usable = usable_layers("probe", table, budget)
    views = {n: _View.of(table.candidates.features[n]) for n in usable}
    labels = table.candidates.labels
    target = labels if is_multilabel(labels) else F.one_hot(labels, table.candidates.num_classes)
    left = target.double() - target.double().mean(dim=0)
    classes = None if is_multilabel(labels) else labels
    draw = torch.Generator().manual_seed(0)
    chosen: list[int] = []
    reasons: list[str] = []
    while len(chosen) < min(config.k, len(usable)):
        before = [views[n] for n in chosen]
        explained = _Explained(before)
        found: dict[int, tuple[float, Tensor]] = {}
        for n in usable:
            if n in chosen or not budget.allows([table.layers[m] for m in [*chosen, n]]):
                continue
            new = explained.rest(views[n].centred)
            predicted = _ridge(new, left)
            score = float((left - predicted).square().mean())
            score += ISOTROPY * (1 - views[n].isotropy)
            if before:
                score += REDUNDANCY * max(views[n].overlap(other) for other in before)
                if classes is not None:
                    score -= TRIANGLES * _triangles(new + views[n].mean, classes, draw)
            found[n] = score, predicted
        if not found:
            break
        best = min(found, key=lambda n: found[n][0])
        chosen.append(best)
        reasons.append(f"LOES {found[best][0]:.4g}")
        left = left - found[best][1]
    choices = zip(chosen, reasons, strict=True)
    short = f"only {len(chosen)} of k={config.k}: no more may be chosen among"
    return Selection(
        tuple(Choice(table.layers[n], why) for n, why in choices),
        (short,) if len(chosen) < config.k else (),
    )


@dataclass(frozen=True)
class _View:
    """The vectors of a layer on all rows, and what LOES asks of each layer alone."""

    centred: Tensor
    """Shape: (rows, width), float64."""
    mean: Tensor
    """Shape: (width,)."""
    isotropy: float
    """Mean of the eigenvalues of the covariance over their standard deviation."""

    @classmethod
    def of(cls, vectors: Tensor) -> _View:
        vectors = vectors.double()
        mean = vectors.mean(dim=0)
        centred = vectors - mean
        rows, width = centred.shape
        # With fewer rows than features, the two products have the same eigenvalues but for zeros,
        # which the authors leave out for wide layers.
        wide = width > 512
        product = centred @ centred.T if wide and rows < width else centred.T @ centred
        values = (torch.linalg.eigvalsh(product) / rows).clamp_min(LEAST)
        spread = float(values.std(unbiased=False)) + LEAST
        return cls(centred, mean, float(values.mean()) / spread)

    def overlap(self, other: _View) -> float:
        """How far two layers span the same directions over the rows, from 0 to 1."""
        mine, others = self.centred + self.mean, other.centred + other.mean
        return float((mine.T @ others).norm() / (mine.norm() * others.norm() + 1e-8))


class _Explained:
    """What the vectors of the chosen layers explain of another layer's, by linear regression."""

    def __init__(self, chosen: Sequence[_View]) -> None:
        self.vectors = torch.cat([view.centred for view in chosen], dim=1) if chosen else None
        if self.vectors is not None:
            product = self.vectors.T @ self.vectors
            product.diagonal().add_(PROJECTION_RIDGE)
            self.factors = torch.linalg.lu_factor(product)

    def rest(self, centred: Tensor) -> Tensor:
        """Take what is explained off. Shape: that of the argument, (rows, width)."""
        if self.vectors is None:
            return centred
        weights = torch.linalg.lu_solve(*self.factors, self.vectors.T @ centred)
        return centred - self.vectors @ weights


def _ridge(centred: Tensor, left: Tensor) -> Tensor:
    """Predict centred targets by ridge regression. Shape: (rows, classes)."""
    product = centred.T @ centred
    product.diagonal().add_(RIDGE)
    return centred @ torch.linalg.solve(product, centred.T @ left)


def _triangles(vectors: Tensor, classes: Tensor, draw: torch.Generator) -> float:
    """Mean area of random triangles whose corners are class means; 0 with fewer than three."""
    present = classes.unique()
    if len(present) < 3:
        return 0.0
    means = torch.stack([vectors[classes == one].mean(dim=0) for one in present])
    number = min(MOST_TRIANGLES, 3 * len(means))
    corners = means[torch.randint(0, len(means), (number, 3), generator=draw)]
    first, second = corners[:, 0] - corners[:, 1], corners[:, 0] - corners[:, 2]
    lengths = first.square().sum(dim=1) * second.square().sum(dim=1)
    areas = (lengths - (first * second).sum(dim=1).square()).clamp_min(0).sqrt() / 2
    return float(areas.mean())


LOES = SelectionRule("loes", select_loes, score="probe")
