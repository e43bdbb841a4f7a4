"""Operators built from their settings."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from layerfusion.config.imports import import_object
from layerfusion.config.job import FusionConfig
from layerfusion.config.operators import settle
from layerfusion.config.user_code import name_of, user_code_errors
from layerfusion.errors import UserError, unknown
from layerfusion.fusion.operators.base import FusionOperator
from layerfusion.fusion.operators.residual import ResidualFusion
from layerfusion.fusion.operators.sums import ConcatFusion

GIVEN = ("widths", "width", "importance", "num_classes", "dropout")
"""Constructor arguments that come from the head; all others are the operator's own."""


def operator_class(fusion: FusionConfig) -> type[FusionOperator]:
    """Import the class of a fusion's operator.

    Raises:
        UserError: if there is no such operator, or its class is no `FusionOperator`.
    """
    target = settle(fusion).target
    if not target:
        raise UserError(f"fusion={fusion.name}: it is no operator on vectors")
    found = import_object("fusion._target_", target)
    if not (isinstance(found, type) and issubclass(found, FusionOperator)):
        raise UserError(
            f"fusion._target_={target}: it has to be a subclass of layerfusion.FusionOperator"
        )
    return found


def build_operator(
    fusion: FusionConfig,
    widths: Sequence[int],
    num_classes: int,
    importance: Sequence[float] | None = None,
) -> FusionOperator:
    """Build the operator that a config names. With a single source, each is the plain head.

    Args:
        fusion: the group `fusion`.
        widths: width of each source, in the order of the selection.
        num_classes: number of classes, for operators that end in them.
        importance: K positive numbers, for operators whose weights start from them.

    Raises:
        UserError: if the operator does not exist, there is no source, an argument is unknown or
            missing, or the width cannot be split.
    """
    operator = operator_class(fusion)
    check_sources(widths)
    arguments = own_arguments(fusion, operator)
    if len(widths) == 1:
        return ConcatFusion(widths, fusion.width)
    if fusion.residual and operator.classifies:
        raise UserError(f"fusion.residual: {fusion.name} ends in classes and has no residual form")
    head = {"importance": importance, "num_classes": num_classes, "dropout": fusion.dropout}
    taken = inspect.signature(operator).parameters
    given: dict[str, Any] = {key: value for key, value in head.items() if key in taken}
    with user_code_errors("operator", operator):
        built = operator(widths=widths, width=fusion.width, **given, **arguments)
    return ResidualFusion(built, fusion.width) if fusion.residual else built


def own_arguments(fusion: FusionConfig, operator: type[FusionOperator]) -> dict[str, Any]:
    """Return the arguments that a fusion gives its operator beside those of every head.

    Raises:
        UserError: if the constructor does not take one, or needs one that is not given.
    """
    arguments = settle(fusion).arguments
    parameters = inspect.signature(operator).parameters
    accepted = {
        key: parameter
        for key, parameter in parameters.items()
        if key not in GIVEN and parameter.kind is not parameter.VAR_KEYWORD
    }
    anything = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    for key in ("widths", "width"):
        if key not in parameters and not anything:
            raise UserError(
                f"operator {name_of(operator)}: its constructor does not take `{key}`; it begins"
                " with (self, widths, width)"
            )
    for key in arguments:
        if key not in accepted and not anything:
            raise unknown(f"fusion={fusion.name}: arguments of {operator.__name__}", key, accepted)
    for key, parameter in accepted.items():
        if parameter.default is parameter.empty and key not in arguments:
            raise UserError(f"fusion.{key}: {operator.__name__} needs it and has no default for it")
    return dict(arguments)


def width_step(fusion: FusionConfig) -> int:
    """Return the number that the width of a fusion has to be a multiple of."""
    operator = operator_class(fusion)
    arguments = own_arguments(fusion, operator)
    with user_code_errors("operator", operator):
        return operator.multiple_of(**arguments)


def check_sources(sources: Sequence[object]) -> None:
    """Raise a UserError where there is no source."""
    if not sources:
        raise UserError("fusion: no source to fuse; select at least one layer")
