"""Standardise the features of layers with the mean and deviation of the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from layerfusion.embeddings.matrices import LazyRows, Rows, chunks, fits

LEAST_SPREAD = 1e-3
"""Least deviation that a feature is divided by, relative to its size. What varies less is little
more than rounding, as in the first token's vector of early layers, and would be blown up by it."""


def size_of(mean: Tensor, std: Tensor) -> Tensor:
    """Size of each feature: its mean, or the median size of all, whichever is larger.

    Shape: (d,), from the mean and deviation of each feature, (d,).
    """
    return torch.maximum(mean.abs(), torch.hypot(mean, std).median())


def largest_spread(features: Tensor) -> float:
    """Largest deviation of a feature of a source, relative to its size.

    It is above 0.5 for most layers, and 0 for a token that all texts begin with, before the first
    block.

    Args:
        features: vectors of some rows. Shape: (rows, d).
    """
    mean, std = features.mean(dim=0), features.std(dim=0, unbiased=False)
    return float((std / size_of(mean, std).clamp_min(torch.finfo(std.dtype).tiny)).max())


@dataclass(frozen=True)
class Standardiser:
    """Scaler that gives each feature mean 0 and standard deviation 1 on the rows it was fitted on.

    A feature that hardly varies is divided by more, so that the deviation it gets is below 1.

    Attributes:
        mean: mean of each feature, one float32 tensor for each source. Shapes: (d_k,).
        std: standard deviation of each feature, but at least `LEAST_SPREAD` of its size (see
            `size_of`); 1 if it is constant. Shapes as for `mean`.
    """

    mean: tuple[Tensor, ...]
    std: tuple[Tensor, ...]

    @classmethod
    def fit(cls, features: Sequence[Rows]) -> Standardiser:
        """Compute the statistics of the train rows.

        Args:
            features: one tensor for each source, any floating dtype. Shapes: (rows, d_k).
        """
        means, stds = [], []
        for source in features:
            # Decoders have features in the thousands; float32 is too coarse to sum their squares.
            mean = _mean(source)
            # Two passes take a seventh of the time of torch.std_mean.
            std = _mean(source, around=mean).sqrt()
            # The deviation of a constant feature is 0 only up to the rounding of its mean.
            constant = std <= 1e-7 * mean.abs()
            std = torch.maximum(std, LEAST_SPREAD * size_of(mean, std))
            means.append(mean.float())
            stds.append(torch.where(constant, 1.0, std).float())
        return cls(tuple(means), tuple(stds))

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Standardise rows of the same sources. Returned shapes: (rows, d_k), float32."""
        scales = zip(self.mean, self.std, strict=True)
        pairs = zip(features, scales, strict=True)
        return [LazyRows(source, scale=scale)[:] for source, scale in pairs]

    def rows(self, features: Sequence[Rows]) -> list[Rows]:
        """Standardise rows of the same sources now or, if that fills memory, as they are asked for.

        Args:
            features: one source each. Shapes: (rows, d_k).

        Returns:
            Tensors, or `LazyRows`. Shapes: (rows, d_k), float32.
        """
        made: list[Rows] = []
        together = fits(4 * sum(source.shape.numel() for source in features))
        for source, mean, std in zip(features, self.mean, self.std, strict=True):
            lazy = source if isinstance(source, LazyRows) else LazyRows(source)
            lazy = replace(lazy, scale=(mean, std))
            made.append(lazy[:] if together else lazy)
        return made


def _mean(rows: Rows, around: Tensor | None = None) -> Tensor:
    """Return each feature's mean, or mean square around some value, in float64. Shape: (d,)."""
    sums = 0.0
    for part in chunks(rows):
        exact = part.to(torch.float64, copy=True)  # changed in place, as it may fill gigabytes
        if around is not None:
            exact = exact.sub_(around).square_()
        if len(part) == len(rows):
            return exact.mean(dim=0)
        sums = sums + exact.sum(dim=0)
    return torch.as_tensor(sums) / len(rows)
