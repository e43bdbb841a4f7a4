"""Parameters and FLOPs of a head, and the width at which it has as many as another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import product

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from layerfusion.config.job import AUTO, FusionConfig
from layerfusion.config.operators import settle, settled_head
from layerfusion.errors import UserError
from layerfusion.fusion.operators.base import FusionOperator
from layerfusion.fusion.operators.build import build_operator, width_step

TOLERANCE = 0.05
"""Largest difference in parameters from `concat`, as a share, that counts as equal capacity."""
WIDEST = 16_384
"""Largest width that is tried to match a capacity."""


def classification_layer(operator: FusionOperator, num_classes: int) -> nn.Module:
    """Return the layer from an operator to the classes: none where it ends in them."""
    return nn.Identity() if operator.classifies else nn.Linear(operator.width, num_classes)


def head_parameters(config: FusionConfig, widths: Sequence[int], num_classes: int) -> int:
    """Count the parameters of operator and classification layer, without allocating them."""
    with torch.device("meta"):
        operator = build_operator(config, widths, num_classes)
        layers = nn.ModuleList([operator, classification_layer(operator, num_classes)])
    return sum(parameter.numel() for parameter in layers.parameters())


def check_operators(fusion: FusionConfig) -> None:
    """Build what a job would train, without allocating it, so that mistakes show before the work.

    With `fusion=auto` that is every operator of `fusion.among` at each of `fusion.widths`.

    Raises:
        UserError: for an operator's argument, or a width that it cannot split.
    """
    heads = [fusion]
    if fusion.name == AUTO:
        pairs = product(fusion.among or (), fusion.widths)
        heads = [settled_head(fusion, name, width) for name, width in pairs]
    for head in map(settle, heads):
        if head.target:
            width = width_step(head) if head.match_capacity else head.width
            head_parameters(replace(head, width=width), (1, 1), num_classes=2)


def head_flops(config: FusionConfig, widths: Sequence[int], num_classes: int) -> int:
    """Count the head's floating-point operations for one text: two for each entry of a product.

    Activations, norms and sums are not counted.
    """
    with torch.device("meta"):
        operator = build_operator(config, widths, num_classes).eval()
        layer = classification_layer(operator, num_classes)
        sources = [torch.empty(1, width) for width in widths]
        # The fused attention kernel of evaluation is not counted, that of training is.
        operator.train()
        with FlopCounterMode(display=False) as counter:
            layer(operator(sources))
    return counter.get_total_flops()


def matched_width(config: FusionConfig, widths: Sequence[int], num_classes: int) -> int:
    """Find the width at which a head has as many parameters as `concat` at `config.width`.

    Raises:
        UserError: if no width that the operator can split comes within 5 %.
    """
    return _matched_width(json.dumps(asdict(config)), tuple(widths), num_classes)


@lru_cache(maxsize=256)
def _matched_width(settings: str, widths: tuple[int, ...], num_classes: int) -> int:
    config = FusionConfig(**json.loads(settings))
    plain = replace(config, name="concat", target="", arguments={}, residual=False)
    target = head_parameters(plain, widths, num_classes)
    step = width_step(config)

    def size(multiple: int) -> int:
        return head_parameters(replace(config, width=multiple * step), widths, num_classes)

    def grown(multiple: int) -> int:
        # Parameters grow with the width, with one exception: where matmul's projections all have
        # the width of the residual form, it shares them and adds none.
        return max(size(multiple), size(max(1, multiple - 1)))

    low, high = 1, max(2, WIDEST // step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if grown(middle) <= target else (low, middle)
    near = range(max(1, low - 1), high + 1)
    best = min(near, key=lambda multiple: abs(size(multiple) - target))
    if abs(size(best) - target) > TOLERANCE * target:
        smaller = f", or arguments that allow other widths than multiples of {step}"
        raise UserError(
            f"fusion.match_capacity: {config.name} cannot have the {target:,} parameters of concat"
            f" at fusion.width={config.width}; the nearest width is {best * step} with"
            f" {size(best):,}; choose another fusion.width{smaller if step > 1 else ''}"
        )
    return best * step
