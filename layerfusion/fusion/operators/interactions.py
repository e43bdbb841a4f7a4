"""Operators that relate the sources to each other: experts, attention and co-occurrence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.config.rules import at_least
from layerfusion.fusion.operators.base import (
    FusionOperator,
    Projections,
    check_argument,
    check_divides,
)


class ExpertsFusion(FusionOperator):
    """fused = Σ_e softmax(G x)_e GELU(W_e x), x = [x_1; …; x_K]: dense mixture of experts.

    Its gates choose among experts, not among sources.

    Args:
        widths: width d_k of each source.
        width: width of the fused vector.
        experts: number of experts.
    """

    formula = "x = [x_1; …; x_K]; Σ_e softmax(G x)_e GELU(W_e x)"

    def __init__(self, widths: Sequence[int], width: int, experts: int = 4) -> None:
        super().__init__(widths, width)
        check_argument("experts", experts, at_least(1))
        self.experts = nn.Linear(sum(self.widths), experts * width)
        self.gate = nn.Linear(sum(self.widths), experts)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch. The gates are the experts', so none are returned."""
        x = torch.cat(sources, dim=1)
        outputs = F.gelu(self.experts(x)).unflatten(1, (-1, self.width))
        return torch.einsum("be,bew->bw", torch.softmax(self.gate(x), dim=1), outputs), None


class AttentionFusion(FusionOperator):
    """fused = 1/K Σ_k (z_k + MHA(z)_k): the sources attend to each other (Vaswani et al., 2017).

    z_k = GELU(W_k x_k). A source's gate is the attention that it gets, averaged over heads and over
    the sources that attend.

    Args:
        widths: width d_k of each source.
        width: width of the fused vector, a multiple of `heads`.
        heads: number of attention heads.
    """

    formula = "1/K Σ_k (z_k + MHA(z)_k)"

    def __init__(self, widths: Sequence[int], width: int, heads: int = 4) -> None:
        super().__init__(widths, width)
        check_argument("heads", heads, at_least(1))
        check_divides("attention", width, heads, "fusion.heads")
        self.projections = Projections(widths, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    @classmethod
    def multiple_of(cls, heads: int = 4, **_: Any) -> int:
        """Each head attends with its share of the width."""
        return heads

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Fuse one batch and return the attention that each source gets."""
        z = self.projections.activated(sources)
        attended, weights = self.attention(z, z, z, need_weights=True)
        return (z + attended).mean(dim=1), weights.mean(dim=1)


class CooccurrenceFusion(FusionOperator):
    """fused = [triu(2σ(s Z Zᵀ) − 1); 1/K Σ_k z_k], Z = [z_1; …; z_K]: LLMEmbed (ACL 2024 long 433).

    z_k = GELU(W_k x_k); s is learned and starts at 1 / width. The symmetric matrix gives its upper
    triangle with the diagonal, so that the fused vector has width + K (K + 1) / 2 numbers.

    Args:
        widths: width d_k of each source.
        width: width of the z_k.
    """

    formula = "[triu(2σ(s Z Zᵀ) − 1); 1/K Σ_k z_k]"
    ordered = True

    def __init__(self, widths: Sequence[int], width: int) -> None:
        sources = len(widths)
        super().__init__(widths, width + sources * (sources + 1) // 2)
        self.projections = Projections(widths, width)
        self.scale = nn.Parameter(torch.tensor(1.0 / width))
        self.upper: Tensor
        self.register_buffer("upper", torch.triu_indices(sources, sources), persistent=False)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch, without gates."""
        z = self.projections.activated(sources)
        together = 2 * torch.sigmoid(self.scale * (z @ z.mT)) - 1
        return torch.cat([together[:, self.upper[0], self.upper[1]], z.mean(dim=1)], dim=1), None
