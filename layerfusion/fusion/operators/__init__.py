"""Operators that fuse K sources into one vector."""

from layerfusion.fusion.operators.base import FusionOperator
from layerfusion.fusion.operators.table import OPERATORS, build_operator

__all__ = ["OPERATORS", "FusionOperator", "build_operator"]
