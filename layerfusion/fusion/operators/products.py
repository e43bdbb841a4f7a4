"""Operators that multiply: hadamard, matmul and quaternion.

Each factor is rescaled to mean square 1, and so is each product, so that neither many sources nor
few make it vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.rules import at_least
from layerfusion.fusion.operators.base import (
    FusionOperator,
    Projections,
    check_argument,
    check_divides,
    rescale,
)


class HadamardFusion(FusionOperator):
    """fused = GELU(r(y_1 ⊙ … ⊙ y_K)) with y_k = r(W_k x_k), one product after the other."""

    formula = "GELU(r(y_1 ⊙ … ⊙ y_K))"

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__(widths, width)
        self.projections = Projections(widths, width)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch, without gates."""
        first, *others = (rescale(y) for y in self.projections(sources))
        product = first
        for y in others:
            product = rescale(product * y)
        return F.gelu(product), None


class MatmulFusion(FusionOperator):
    """fused = GELU(r(vec(M_1 M_2 … M_K))), M_k = r(A_k x_k) read as a matrix.

    M_1 is (width / s) × s and the others are s × s, so that width = s² gives the square matrices of
    arXiv 2504.05764. Matrices do not commute: the order of the sources matters.

    Args:
        widths: width d_k of each source.
        width: width of the fused vector, a multiple of `side`.
        side: s, rows and columns of the square matrices.
    """

    formula = "GELU(r(vec(M_1 … M_K))), M_k = y_k as matrix"
    ordered = True

    def __init__(self, widths: Sequence[int], width: int, side: int = 16) -> None:
        super().__init__(widths, width)
        check_argument("side", side, at_least(1))
        check_divides("matmul", width, side, "fusion.side")
        self.side = side
        later = [side * side] * (len(self.widths) - 1)
        self.projections = Projections(widths, [width, *later])

    @classmethod
    def multiple_of(cls, side: int = 16, **_: Any) -> int:
        """The first matrix has width / side rows."""
        return side

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch, without gates."""
        first, *others = (rescale(y) for y in self.projections(sources))
        product = first
        for y in others:
            left = product.unflatten(1, (-1, self.side))
            product = rescale((left @ y.unflatten(1, (self.side, self.side))).flatten(1))
        return F.gelu(product), None


class QuaternionFusion(FusionOperator):
    """fused = GELU(r(q_1 q_2 … q_K)), q_k = r(A_k x_k) read as width / 4 quaternions.

    Hamilton products from left to right, which do not commute: the order of the sources matters.

    Args:
        widths: width d_k of each source.
        width: width of the fused vector, a multiple of 4.
    """

    formula = "GELU(r(q_1 … q_K)), q_k = y_k as quaternions"
    ordered = True

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__(widths, width)
        check_divides("quaternion", width, 4, "four numbers a quaternion")
        self.projections = Projections(widths, width)

    @classmethod
    def multiple_of(cls, **_: Any) -> int:
        """A quaternion is four numbers."""
        return 4

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        """Fuse one batch, without gates."""
        first, *others = (rescale(y) for y in self.projections(sources))
        product = first
        for y in others:
            quaternions = hamilton(product.unflatten(1, (-1, 4)), y.unflatten(1, (-1, 4)))
            product = rescale(quaternions.flatten(1))
        return F.gelu(product), None


def hamilton(left: Tensor, right: Tensor) -> Tensor:
    """Return the Hamilton product of quaternions a + bi + cj + dk. Shapes: (…, 4)."""
    a1, b1, c1, d1 = left.unbind(-1)
    a2, b2, c2, d2 = right.unbind(-1)
    return torch.stack(
        [
            a1 * a2 - b1 * b2 - c1 * c2 - d1 * d2,
            a1 * b2 + b1 * a2 + c1 * d2 - d1 * c2,
            a1 * c2 - b1 * d2 + c1 * a2 + d1 * b2,
            a1 * d2 + b1 * c2 - c1 * b2 + d1 * a2,
        ],
        dim=-1,
    )
