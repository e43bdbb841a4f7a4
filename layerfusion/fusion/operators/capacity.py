"""What a head costs, and the width at which it costs as much as another."""

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
from layerfusion.errors import UserError
from layerfusion.fusion.operators.base import FusionOperator
from layerfusion.fusion.operators.table import OPERATORS, build_operator

TOLERANCE = 0.05
"""Most that a head of the capacity of `concat` differs from it in parameters, as a share."""
WIDEST = 16_384


def classification_layer(operator: FusionOperator, num_classes: int) -> nn.Module:
    """What stands between an operator and the classes."""
    return nn.Identity() if operator.classifies else nn.Linear(operator.width, num_classes)


def head_parameters(config: FusionConfig, widths: Sequence[int], num_classes: int) -> int:
    """Trained parameters of operator and classification layer, without allocating them."""
    with torch.device("meta"):
        operator = build_operator(config, widths, num_classes)
        layers = nn.ModuleList([operator, classification_layer(operator, num_classes)])
    return sum(parameter.numel() for parameter in layers.parameters())


def check_widths(config: FusionConfig) -> None:
    """Raise a UserError where an operator cannot split the width that it is given.

    Of `fusion=auto`, every operator that `fusion.among` names at each of `fusion.widths`.
    """
    heads = [config]
    if config.name == AUTO:
        pairs = product(config.among, config.widths)
        heads = [replace(config, name=name, width=width) for name, width in pairs]
    for head in heads:
        if head.name in OPERATORS and not head.match_capacity:
            head_parameters(head, (1, 1), num_classes=2)


def head_flops(config: FusionConfig, widths: Sequence[int], num_classes: int) -> int:
    """Floating-point operations of the head for one text: two for each entry of a product.

    Activations, norms and sums are left out.
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
    """The width at which a head has as many parameters as `concat` has at `config.width`.

    Raises:
        UserError: where no width that the operator can split comes within 5 %.
    """
    return _matched_width(json.dumps(asdict(config)), tuple(widths), num_classes)


@lru_cache(maxsize=256)
def _matched_width(settings: str, widths: tuple[int, ...], num_classes: int) -> int:
    config = FusionConfig(**json.loads(settings))
    plain = replace(config, name="concat", residual=False)
    target = head_parameters(plain, widths, num_classes)
    step = OPERATORS[config.name].multiple_of(config)

    def size(multiple: int) -> int:
        return head_parameters(replace(config, width=multiple * step), widths, num_classes)

    def grown(multiple: int) -> int:
        # Parameters grow with the width, but for the one at which matmul's projections are all
        # as wide as the residual form needs them, which then adds none of its own.
        return max(size(multiple), size(max(1, multiple - 1)))

    low, high = 1, max(2, WIDEST // step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if grown(middle) <= target else (low, middle)
    near = range(max(1, low - 1), high + 1)
    best = min(near, key=lambda multiple: abs(size(multiple) - target))
    if abs(size(best) - target) > TOLERANCE * target:
        step_of = ", or a smaller fusion.side" if config.name == "matmul" else ""
        raise UserError(
            f"fusion.match_capacity: {config.name} cannot have the {target:,} parameters of concat"
            f" at fusion.width={config.width}; the nearest width is {best * step} with"
            f" {size(best):,}; choose another fusion.width{step_of}"
        )
    return best * step
