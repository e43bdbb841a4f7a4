"""What a head costs, and the width at which it costs as much as another."""

from __future__ import annotations

from dataclasses import replace

import pytest

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.config.operators import operator_names
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.head import classifier_settings
from layerfusion.fusion.operators.capacity import head_flops, head_parameters, matched_width

NAMES = operator_names()
RESIDUAL = [name for name in NAMES if name != "late"]


@pytest.mark.parametrize("num_classes", [2, 8, 52])
@pytest.mark.parametrize("widths", [(384,), (384, 576), (384, 576, 768, 384)])
@pytest.mark.parametrize("name", NAMES)
def test_matched_heads_have_the_same_capacity(
    name: str, widths: tuple[int, ...], num_classes: int
) -> None:
    target = head_parameters(FusionConfig("concat"), widths, num_classes)
    for residual in (False, True):
        if residual and name not in RESIDUAL:
            continue
        config = FusionConfig(name, match_capacity=True, residual=residual)
        width = matched_width(config, widths, num_classes)
        found = head_parameters(replace(config, width=width), widths, num_classes)
        # Without the residual, no two heads differ by more than 5 %.
        assert abs(found - target) <= (0.05 if residual else 0.025) * target


@pytest.mark.parametrize("width", [448, 464, 512, 640])
def test_a_residual_matmul_that_shares_its_projections_at_one_width_is_matched_beside_it(
    width: int,
) -> None:
    """There its parameters fall: 15 · side and 17 · side have more of them than side²."""
    widths, classes = (256, 256), 52
    config = FusionConfig("matmul", width=width, match_capacity=True, residual=True)
    target = head_parameters(FusionConfig("concat", width=width), widths, classes)

    def off(matched: int) -> int:
        return abs(head_parameters(replace(config, width=matched), widths, classes) - target)

    assert off(matched_width(config, widths, classes)) <= 0.05 * target
    assert off(matched_width(config, widths, classes)) == min(map(off, range(16, 801, 16)))


@pytest.mark.parametrize("name", NAMES)
def test_the_classifier_has_the_parameters_that_are_counted(name: str) -> None:
    widths = (384, 576)
    for matched in (False, True):
        config = FusionConfig(name, match_capacity=matched)
        head = FusionClassifier(widths, 8, **classifier_settings(config, TrainerConfig()))
        width = matched_width(config, widths, 8) if matched else config.width
        assert head.num_parameters == head_parameters(replace(config, width=width), widths, 8)


def test_a_capacity_that_cannot_be_matched_says_what_is_nearest() -> None:
    config = FusionConfig("matmul", width=20, match_capacity=True)
    with pytest.raises(UserError, match=r"cannot have the .* the nearest width is 16 with"):
        matched_width(config, (384, 384), 2)


def test_flops_are_those_of_the_products() -> None:
    widths, classes = (384, 576), 8
    last = 2 * 256 * classes
    inward = 2 * sum(widths) * 256
    assert head_flops(FusionConfig("concat"), widths, classes) == inward + last
    assert head_flops(FusionConfig("sum"), widths, classes) == inward + last
    gate = 2 * 2 * 256 * 2
    mix = 2 * 2 * 256
    assert head_flops(FusionConfig("gated"), widths, classes) == inward + gate + mix + last
    assert head_flops(FusionConfig("matmul"), widths, classes) == inward + 2 * 16**3 + last
