"""The operators there are, and how each is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from layerfusion.config.job import FusionConfig
from layerfusion.errors import UserError, unknown
from layerfusion.fusion.operators.base import FusionOperator
from layerfusion.fusion.operators.gated import GatedFusion
from layerfusion.fusion.operators.interactions import (
    AttentionFusion,
    CooccurrenceFusion,
    ExpertsFusion,
)
from layerfusion.fusion.operators.late import LateFusion
from layerfusion.fusion.operators.products import HadamardFusion, MatmulFusion, QuaternionFusion
from layerfusion.fusion.operators.residual import ResidualFusion
from layerfusion.fusion.operators.sums import ConcatFusion, MeanFusion, ScalarMix, SumFusion

Importance = Sequence[float] | None


@dataclass(frozen=True)
class OperatorEntry:
    """What a reader has to know of an operator, and how it is built."""

    formula: str
    build: Callable[[FusionConfig, Sequence[int], int, Importance], FusionOperator]
    """From the config, the widths of the sources, the number of classes and the importance."""
    ordered: bool = False
    """Whether the order of the sources changes the result."""
    multiple_of: Callable[[FusionConfig], int] = lambda _: 1
    """Widths that it can split are multiples of this."""


OPERATORS: dict[str, OperatorEntry] = {
    "gated": OperatorEntry(
        "g = softmax((G [z_1; …; z_K] + b) / τ); Σ_k g_k z_k",
        lambda config, widths, _, importance: GatedFusion(
            widths, config.width, config.temperature, config.source_dropout, importance
        ),
    ),
    "concat": OperatorEntry(
        "GELU(W [x_1; …; x_K])",
        lambda config, widths, *_: ConcatFusion(widths, config.width),
    ),
    "sum": OperatorEntry(
        "Σ_k z_k",
        lambda config, widths, *_: SumFusion(widths, config.width),
    ),
    "mean": OperatorEntry(
        "1/K Σ_k z_k",
        lambda config, widths, *_: MeanFusion(widths, config.width),
    ),
    "hadamard": OperatorEntry(
        "GELU(r(y_1 ⊙ … ⊙ y_K))",
        lambda config, widths, *_: HadamardFusion(widths, config.width),
    ),
    "matmul": OperatorEntry(
        "GELU(r(vec(M_1 … M_K))), M_k = y_k as matrix",
        lambda config, widths, *_: MatmulFusion(widths, config.width, config.side),
        ordered=True,
        multiple_of=lambda config: config.side,
    ),
    "quaternion": OperatorEntry(
        "GELU(r(q_1 … q_K)), q_k = y_k as quaternions",
        lambda config, widths, *_: QuaternionFusion(widths, config.width),
        ordered=True,
        multiple_of=lambda _: 4,
    ),
    "moe": OperatorEntry(
        "x = [x_1; …; x_K]; Σ_e softmax(G x)_e GELU(W_e x)",
        lambda config, widths, *_: ExpertsFusion(widths, config.width, config.experts),
    ),
    "scalar_mix": OperatorEntry(
        "γ Σ_k softmax(s)_k z_k",
        lambda config, widths, _, importance: ScalarMix(widths, config.width, importance),
    ),
    "cooccurrence": OperatorEntry(
        "[triu(2σ(s Z Zᵀ) − 1); 1/K Σ_k z_k]",
        lambda config, widths, *_: CooccurrenceFusion(widths, config.width),
        ordered=True,
    ),
    "attention": OperatorEntry(
        "1/K Σ_k (z_k + MHA(z)_k)",
        lambda config, widths, *_: AttentionFusion(widths, config.width, config.heads),
        multiple_of=lambda config: config.heads,
    ),
    "late": OperatorEntry(
        "log softmax(Σ_k softmax(b)_k log softmax(C_k z_k))",
        lambda config, widths, num_classes, importance: LateFusion(
            widths, config.width, num_classes, config.dropout, importance
        ),
    ),
}
"""Operator by the name it has in `fusion=NAME`; z_k = GELU(W_k x_k), y_k = r(W_k x_k), and r brings
a vector to mean square 1. With a single source each is the plain head, GELU(W x)."""


def build_operator(
    config: FusionConfig,
    widths: Sequence[int],
    num_classes: int,
    importance: Sequence[float] | None = None,
) -> FusionOperator:
    """Build the operator that a config names.

    Args:
        config: the group `fusion`.
        widths: width of each source, in the order of the selection.
        num_classes: number of classes, for operators that end in them.
        importance: K positive numbers, which operators with weights start from.

    Raises:
        UserError: for an operator that does not exist, where there is nothing to fuse, or for a
            width that the operator cannot split.
    """
    if config.name not in OPERATORS:
        raise unknown("fusion", config.name, OPERATORS)
    if not widths:
        raise UserError("fusion: no source to fuse; select at least one layer")
    if len(widths) == 1:
        return ConcatFusion(widths, config.width)
    operator = OPERATORS[config.name].build(config, widths, num_classes, importance)
    if not config.residual:
        return operator
    if operator.classifies:
        raise UserError(f"fusion.residual: {config.name} ends in classes and has no residual form")
    return ResidualFusion(operator, config.width)
