"""Bringing the features of layers to one scale, with the statistics of the rows learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Standardiser:
    """Brings every feature to mean 0 and standard deviation 1 on the rows it was fitted on.

    Attributes:
        mean: one float32 tensor a source. Shapes: (d_k,).
        std: likewise; 1 where a feature is constant.
    """

    mean: tuple[Tensor, ...]
    std: tuple[Tensor, ...]

    @classmethod
    def fit(cls, features: Sequence[Tensor]) -> Standardiser:
        """Take the statistics of the train rows.

        Args:
            features: one tensor a source, any floating dtype. Shapes: (rows, d_k).
        """
        means, stds = [], []
        for source in features:
            # Float64: decoders have features in the thousands whose squares float32 cannot add.
            std, mean = torch.std_mean(source.double(), dim=0, correction=0)
            # A constant feature's std is 0 only up to the rounding of its mean.
            constant = std <= 1e-7 * mean.abs()
            means.append(mean.float())
            stds.append(torch.where(constant, 1.0, std).float())
        return cls(tuple(means), tuple(stds))

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Standardise rows of the same sources. Shapes: (rows, d_k), float32."""
        return [
            (source.float() - mean) / std
            for source, mean, std in zip(features, self.mean, self.std, strict=True)
        ]
