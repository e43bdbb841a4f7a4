"""Gated fusion, in which every example has weights of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from layerfusion.config.rules import above, between
from layerfusion.fusion.operators.base import (
    FusionOperator,
    Projections,
    check_argument,
    log_shares,
)


class GatedFusion(FusionOperator):
    """Weighs the sources anew for every example.

    z_k = GELU(W_k x_k), g = softmax((G [z_1 … z_K] + b) / τ), fused = Σ_k g_k z_k. G starts at
    zero and b at the log of the importance, so that training starts from those fixed weights.

    Args:
        widths: width d_k of each source.
        width: width of the fused vector.
        temperature: τ, above 0. The larger it is, the more even the gates are.
        source_dropout: chance that a source is left out of a training example. One always stays,
            and the gates of those that stay sum to 1.
        importance: K positive numbers, the weights to start from at τ = 1; equal weights if None.

    Raises:
        UserError: if an argument is out of range, or the importance is not one positive number for
            each source.
    """

    formula = "g = softmax((G [z_1; …; z_K] + b) / τ); Σ_k g_k z_k"

    def __init__(
        self,
        widths: Sequence[int],
        width: int,
        temperature: float = 1.0,
        source_dropout: float = 0.0,
        importance: Sequence[float] | None = None,
    ) -> None:
        super().__init__(widths, width)
        check_argument("temperature", temperature, above(0))
        check_argument("source_dropout", source_dropout, between(0, 1, ends="[)"))
        self.temperature = temperature
        self.source_dropout = source_dropout
        self.projections = Projections(widths, width)
        self.gate = nn.Linear(len(self.widths) * width, len(self.widths))
        nn.init.zeros_(self.gate.weight)
        with torch.no_grad():
            self.gate.bias.copy_(log_shares(importance, len(self.widths)))

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Fuse one batch and return its gates."""
        z = self.projections.activated(sources)
        scores = self.gate(z.flatten(1)) / self.temperature
        if self.training and self.source_dropout > 0:
            scores = scores.masked_fill(self._left_out(scores), -torch.inf)
        gates = torch.softmax(scores, dim=1)
        return torch.einsum("bk,bkw->bw", gates, z), gates

    def _left_out(self, scores: Tensor) -> Tensor:
        """Draw the sources that each example does without, never all. Shape: (batch, K), bool."""
        chance = torch.rand_like(scores)
        stays = chance.argmax(dim=1, keepdim=True)
        return (chance < self.source_dropout).scatter(1, stays, False)
