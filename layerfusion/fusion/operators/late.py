"""Late fusion: the sources' own heads, and one weight for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.fusion.operators.base import FusionOperator, Projections, log_shares


class LateFusion(FusionOperator):
    """log p = log softmax(Σ_k w_k log softmax(C_k z_k)), w = softmax(b): a pool of opinions.

    z_k = GELU(W_k x_k). b starts at the log of the importance. Every head has a loss of its own, so
    that it is a classifier of its source and not a part of one.

    Args:
        widths: width d_k of each source.
        hidden: width of the z_k.
        num_classes: number of classes, the width of what comes out.
        dropout: on the z_k.
        importance: K positive numbers, the weights to start from; equal ones if none.
    """

    classifies = True

    def __init__(
        self,
        widths: Sequence[int],
        hidden: int,
        num_classes: int,
        dropout: float = 0.0,
        importance: Sequence[float] | None = None,
    ) -> None:
        super().__init__(widths, num_classes)
        self.projections = Projections(widths, hidden)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(hidden, num_classes) for _ in self.widths)
        self.scores = nn.Parameter(log_shares(importance, len(self.widths)).float())

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of one batch; the gates are the same for every row."""
        said = self._said(sources)
        gates = torch.softmax(self.scores, dim=0)
        pooled = torch.einsum("k,bkc->bc", gates, said).log_softmax(dim=1)
        return pooled, gates.expand(len(said), -1)

    def source_losses(self, sources: list[Tensor], target: Tensor) -> Tensor:
        """Mean cross-entropy of the sources' own heads."""
        said = self._said(sources)
        return F.nll_loss(said.flatten(0, 1), target.repeat_interleave(len(self.widths)))

    def _said(self, sources: list[Tensor]) -> Tensor:
        """Each head's log-probabilities. Shape: (batch, K, classes)."""
        z = self.dropout(self.projections.activated(sources))
        logits = [head(x) for head, x in zip(self.heads, z.unbind(dim=1), strict=True)]
        return torch.stack(logits, dim=1).log_softmax(dim=2)
