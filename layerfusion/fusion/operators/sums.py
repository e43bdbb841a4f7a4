"""Operators that add: concat, sum, mean and the scalar mix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.fusion.operators.base import FusionOperator, Projections, log_shares


class ConcatFusion(FusionOperator):
    """Projects all sources at once: fused = GELU(W [x_1; …; x_K]).

    With one source it is the plain head, GELU(W x), which every other operator becomes then.
    """

    formula = "GELU(W [x_1; …; x_K])"

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__(widths, width)
        self.projection = nn.Linear(sum(self.widths), width)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch, without gates."""
        return F.gelu(self.projection(torch.cat(sources, dim=1))), None


class SumFusion(FusionOperator):
    """fused = Σ_k z_k with z_k = GELU(W_k x_k)."""

    formula = "Σ_k z_k"

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__(widths, width)
        self.projections = Projections(widths, width)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch, without gates."""
        return self.projections.activated(sources).sum(dim=1), None


class MeanFusion(SumFusion):
    """fused = 1/K Σ_k z_k with z_k = GELU(W_k x_k)."""

    formula = "1/K Σ_k z_k"

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch, without gates."""
        return super().fuse(sources)[0] / len(sources), None


class ScalarMix(FusionOperator):
    """fused = γ Σ_k softmax(s)_k z_k: one weight a source for all texts.

    As in ELMo (Peters et al., NAACL 2018). z_k = GELU(W_k x_k). s starts at the log of the
    importance and γ at 1.
    """

    formula = "γ Σ_k softmax(s)_k z_k"

    def __init__(
        self, widths: Sequence[int], width: int, importance: Sequence[float] | None = None
    ) -> None:
        super().__init__(widths, width)
        self.projections = Projections(widths, width)
        self.scores = nn.Parameter(log_shares(importance, len(self.widths)).float())
        self.scale = nn.Parameter(torch.ones(()))

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Fuse one batch; the gates are the same for every row."""
        z = self.projections.activated(sources)
        gates = torch.softmax(self.scores, dim=0)
        return self.scale * torch.einsum("k,bkw->bw", gates, z), gates.expand(len(z), -1)
