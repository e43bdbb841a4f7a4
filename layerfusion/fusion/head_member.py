"""A trained head as one more member of a stack, beside the probes of its sources.

A probe is linear. Where a text has several labels, a head that is not says something else of them,
and the pool learns from held-out rows how much of it to believe.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from layerfusion.config.job import FusionConfig
from layerfusion.errors import UserError
from layerfusion.fusion.operator_head import OperatorHead
from layerfusion.fusion.operators.late import LateFusion

Layer = TypeVar("Layer", bound=Hashable)

OPERATOR = "late"
"""The operator of such a head. It gives each source a weight, by which that of the whole head is
shared out among its sources."""
MOST_LAYERS = 8
"""Most layers that the head of a stack reads: those whose probes are best."""


@dataclass(frozen=True)
class HeadMember:
    """A trained head in a stack."""

    head: OperatorHead
    sources: tuple[int, ...]
    """Positions, among the sources of the stack, of those that the head reads."""

    def __post_init__(self) -> None:
        """Refuse a head without a weight for each of its sources, as in a damaged file.

        Raises:
            UserError: saying what it is.
        """
        operator = self.head.classifier.operator
        takes = len(operator.widths)
        if takes != len(self.sources) or (takes > 1 and not isinstance(operator, LateFusion)):
            raise UserError(
                f"stack: its head is a {type(operator).__name__} of {takes} sources, and a"
                f" LateFusion of {len(self.sources)} is needed"
            )

    @property
    def shares(self) -> Tensor:
        """The head's own weights of its sources, which add up to 1. Shape: (sources,)."""
        operator = self.head.classifier.operator
        if not isinstance(operator, LateFusion):  # on one source every operator is the plain head
            return torch.ones(1)
        return torch.softmax(operator.scores.detach(), dim=0)

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        return self.head.classifier.num_parameters

    @property
    def num_flops(self) -> int:
        """Number of floating-point operations for one text."""
        return self.head.classifier.num_flops

    def log_probs(self, features: Sequence[Tensor]) -> Tensor:
        """Classify rows.

        Args:
            features: one tensor for each source of the stack, not standardised. Shapes: (rows,
                d_k).

        Returns:
            Log-probabilities of classes, or of labels one by one. Shape: (rows, classes), float32.
        """
        return self.head.log_probs([features[k] for k in self.sources])

    def share_out(self, gates: Tensor) -> Tensor:
        """Add the head's weight to those of the sources that it reads, by its own weights of them.

        Args:
            gates: weights of the probes of K sources, and of the head. Shape: (rows, K + 1).

        Returns:
            Weights of the sources, with the same sum. Shape: (rows, K).
        """
        found = gates[:, :-1].clone()
        found[:, list(self.sources)] += gates[:, -1:] * self.shares.to(gates)
        return found


def read_by_head(layers: Sequence[Layer], losses: Mapping[Layer, float]) -> list[int]:
    """Choose the layers of a stack that its head reads.

    Args:
        layers: sources of the stack.
        losses: held-out log-loss of those that a head may read.

    Returns:
        Positions of the `MOST_LAYERS` with the lowest log-loss, in the order of the layers; none
        where it may read none.

    Example:
        >>> read_by_head(["a", "words", "b"], {"a": 0.4, "b": 0.3})
        [0, 2]
    """
    known = [n for n, layer in enumerate(layers) if layer in losses]
    return sorted(sorted(known, key=lambda n: losses[layers[n]])[:MOST_LAYERS])


def head_of(fusion: FusionConfig) -> FusionConfig:
    """Return the operator, with its width and dropout, that a stack's head has."""
    return replace(fusion, name=OPERATOR, target="", arguments={}, residual=False)
