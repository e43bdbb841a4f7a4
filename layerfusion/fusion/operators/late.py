"""Late fusion: every source has a head of its own, and one weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.fusion.operators.base import FusionOperator, Projections, log_shares


class LateFusion(FusionOperator):
    """log p = log softmax(Σ_k w_k log softmax(C_k z_k)), w = softmax(b): a pool of opinions.

    z_k = GELU(W_k x_k). b starts at the log of the importance. Of texts with several labels, the
    log-odds of each label are pooled, with the same weights. Every head also has a loss of its
    own, so that it learns to classify its source alone.

    Args:
        widths: width d_k of each source.
        width: width of the z_k.
        num_classes: number of classes, which is the width of the fused vector.
        dropout: share of every z_k that is dropped in training.
        importance: K positive numbers, the weights to start from; equal weights if None.
    """

    formula = "log softmax(Σ_k softmax(b)_k log softmax(C_k z_k))"
    classifies = True

    def __init__(
        self,
        widths: Sequence[int],
        width: int,
        num_classes: int,
        dropout: float = 0.0,
        importance: Sequence[float] | None = None,
    ) -> None:
        super().__init__(widths, num_classes)
        self.projections = Projections(widths, width)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(width, num_classes) for _ in self.widths)
        self.scores = nn.Parameter(log_shares(importance, len(self.widths)).float())

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the scores of one batch, and gates that are the same for every row."""
        scores = self._scores(sources)
        gates = torch.softmax(self.scores, dim=0)
        pooled = torch.einsum("k,bkc->bc", gates, scores)
        if not self.multilabel:
            pooled = pooled.log_softmax(dim=1)
        return pooled, gates.expand(len(scores), -1)

    def output_layers(self) -> list[nn.Linear]:
        """Return the heads: their weights add up to 1."""
        return [head for head in self.heads if isinstance(head, nn.Linear)]

    def source_losses(self, sources: list[Tensor], target: Tensor) -> Tensor:
        """Return the mean cross-entropy of the sources' heads, by the weights of the classes."""
        scores = self._scores(sources)
        weights = None if self.class_weights is None else self.class_weights.to(scores)
        targets = target.repeat_interleave(len(self.widths), dim=0)
        if self.multilabel:
            return F.binary_cross_entropy_with_logits(
                scores.flatten(0, 1), targets.to(scores), pos_weight=weights
            )
        return F.nll_loss(scores.flatten(0, 1), targets, weight=weights)

    def _scores(self, sources: list[Tensor]) -> Tensor:
        """Return log-probabilities, or log-odds of labels, by head. Shape: (batch, K, classes)."""
        z = self.dropout(self.projections.activated(sources))
        logits = [head(x) for head, x in zip(self.heads, z.unbind(dim=1), strict=True)]
        scores = torch.stack(logits, dim=1)
        return scores if self.multilabel else scores.log_softmax(dim=2)
