"""Operators that fuse K sources into one vector."""

from layerfusion.fusion.operators.base import FusionOperator, Projections
from layerfusion.fusion.operators.build import build_operator, operator_class

__all__ = ["FusionOperator", "Projections", "build_operator", "operator_class"]
