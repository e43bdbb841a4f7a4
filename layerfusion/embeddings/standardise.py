"""Standardise the features of layers with the mean and deviation of the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
    def fit(cls, features: Sequence[Tensor]) -> Standardiser:
        """Compute the statistics of the train rows.

        Args:
            features: one tensor for each source, any floating dtype. Shapes: (rows, d_k).
        """
        means, stds = [], []
        for source in features:
            # Decoders have features in the thousands; float32 is too coarse to sum their squares.
            exact = source.to(torch.float64, copy=True)
            mean = exact.mean(dim=0)
            # A seventh of the time of torch.std_mean, and in place, as features may fill gigabytes.
            std = exact.sub_(mean).square_().mean(dim=0).sqrt()
            # The deviation of a constant feature is 0 only up to the rounding of its mean.
            constant = std <= 1e-7 * mean.abs()
            std = torch.maximum(std, LEAST_SPREAD * size_of(mean, std))
            means.append(mean.float())
            stds.append(torch.where(constant, 1.0, std).float())
        return cls(tuple(means), tuple(stds))

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Standardise rows of the same sources. Returned shapes: (rows, d_k), float32."""
        return [
            (source.float() - mean) / std
            for source, mean, std in zip(features, self.mean, self.std, strict=True)
        ]
