"""Operators of the user's own: what they give is checked before a head relies on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from layerfusion.config.user_code import is_ours, name_of, user_code_errors
from layerfusion.errors import UserError, short
from layerfusion.fusion.operators.base import FusionOperator


def fuse(operator: FusionOperator, sources: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Fuse one batch with any operator.

    Args:
        operator: one of ours, or the user's.
        sources: one standardised tensor for each source. Shapes: (batch, d_k).

    Returns:
        What `FusionOperator.fuse` promises.

    Raises:
        UserError: if the user's operator fails, or gives something else.
    """
    if is_ours(operator):
        return operator.fuse(sources)
    with user_code_errors("operator", type(operator)):
        given = operator.fuse([source.clone() for source in sources])  # it may write into them
    fault = _fault(operator, given, sources)
    if fault:
        raise UserError(f"operator {name_of(type(operator))}: {fault}")
    return given


def _fault(operator: FusionOperator, given: Any, sources: Sequence[Tensor]) -> str:
    """Say what is wrong with what an operator gave; empty where nothing is."""
    rows, kind = len(sources[0]), sources[0].dtype
    if not isinstance(given, tuple) or len(given) != 2:
        return (
            f"`fuse` gave {_words(given)}; two things are needed, the fused vectors and the weights"
            " of the sources, or None in the place of the weights"
        )
    fused, weights = given
    wanted = (rows, operator.width)
    if not isinstance(fused, Tensor) or fused.shape != wanted:
        return f"`fuse` gave {_words(fused)}; vectors of shape (batch, width) = {wanted} are needed"
    if not fused.is_floating_point() or torch.promote_types(fused.dtype, kind) != kind:
        return (
            f"`fuse` gave vectors of {fused.dtype}; those of {kind} are needed, as the sources are"
        )
    wanted = (rows, len(sources))
    if weights is not None and (not isinstance(weights, Tensor) or weights.shape != wanted):
        return (
            f"`fuse` gave {_words(weights)} as weights; a tensor of shape (batch, sources) ="
            f" {wanted} is needed, or None"
        )
    if operator.training and torch.is_grad_enabled():
        return _fault_in_training(operator, fused)
    return ""


def _fault_in_training(operator: FusionOperator, fused: Tensor) -> str:
    """Say why a head with an operator cannot be trained; empty where it can."""
    parameters = [parameter for parameter in operator.parameters() if parameter.requires_grad]
    if parameters and not fused.requires_grad:
        return "`fuse` gave vectors without a gradient, so that its parameters would not be trained"
    if not operator.was_finite:  # later, training itself may have diverged
        operator.was_finite = bool(fused.isfinite().all())
        if not operator.was_finite:
            return "`fuse` gave NaN or infinity in its first batch"
    return ""


def _words(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"{short(value)} of type {type(value).__name__}"
