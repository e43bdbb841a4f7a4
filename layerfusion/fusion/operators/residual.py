"""The residual form of an operator."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.fusion.operators.base import FusionOperator, Projections
from layerfusion.fusion.operators.own import fuse


class ResidualFusion(FusionOperator):
    """Puts the projected sources beside the vector of another operator: [z_1; …; z_K; fused].

    The operator's `projections` are shared where they have the right width; otherwise new ones are
    made.

    Args:
        operator: the operator that fuses.
        hidden: width of the z_k.
    """

    def __init__(self, operator: FusionOperator, hidden: int) -> None:
        super().__init__(operator.widths, len(operator.widths) * hidden + operator.width)
        self.operator = operator
        shared = getattr(operator, "projections", None)
        self.projections = (
            shared
            if isinstance(shared, Projections) and set(shared.out_widths) == {hidden}
            else Projections(operator.widths, hidden)
        )

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Fuse one batch, with the operator's gates."""
        fused, gates = fuse(self.operator, sources)
        projected = F.gelu(torch.cat(self.projections(sources), dim=1))
        return torch.cat([projected, fused], dim=1), gates
