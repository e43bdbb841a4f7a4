from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config import OPERATORS as NAMES
from layerfusion.config import FusionConfig
from layerfusion.errors import UserError
from layerfusion.fusion.operators import (
    OPERATORS,
    ConcatFusion,
    FusionOperator,
    GatedFusion,
    build_operator,
)

WIDTHS = (3, 5, 3)
WIDTH = 4
BATCH = 6


def _sources(widths: Sequence[int] = WIDTHS, rows: int = BATCH) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, width, generator=generator) for width in widths]


def _trained(operator: FusionOperator) -> FusionOperator:
    """Random weights everywhere, as if trained: G starts at zero, which would hide its faults."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return operator


# An independent reference: numpy in float64, one row at a time.
def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _weights(operator: FusionOperator) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy() for name, value in operator.state_dict().items()}


def _reference_gated(operator: GatedFusion, sources: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    w = _weights(operator)
    fused, gates = [], []
    for row in range(len(sources[0])):
        z = [
            _gelu(
                w[f"projections.{k}.weight"] @ source[row].double().numpy()
                + w[f"projections.{k}.bias"]
            )
            for k, source in enumerate(sources)
        ]
        scores = (w["gate.weight"] @ np.concatenate(z) + w["gate.bias"]) / operator.temperature
        g = np.exp(scores) / np.exp(scores).sum()
        fused.append(sum(weight * vector for weight, vector in zip(g, z, strict=True)))
        gates.append(g)
    return np.array(fused), np.array(gates)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("widths", [(3,), (4, 4), WIDTHS])
def test_gated_equals_the_reference(widths: tuple[int, ...], temperature: float) -> None:
    operator = _trained(GatedFusion(widths, WIDTH, temperature))
    assert isinstance(operator, GatedFusion)
    sources = _sources(widths)
    fused, gates = operator.fuse(sources)
    expected_fused, expected_gates = _reference_gated(operator, sources)
    np.testing.assert_allclose(fused.detach().numpy(), expected_fused, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gates.detach().numpy(), expected_gates, rtol=1e-4, atol=1e-6)


def test_concat_equals_the_reference() -> None:
    operator = _trained(ConcatFusion(WIDTHS, WIDTH))
    sources = _sources()
    fused, gates = operator.fuse(sources)
    w = _weights(operator)
    x = np.concatenate([source.double().numpy() for source in sources], axis=1)
    expected = _gelu(x @ w["projection.weight"].T + w["projection.bias"])
    np.testing.assert_allclose(fused.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert gates is None


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_right(name: str) -> None:
    operator = _trained(build_operator(FusionConfig(name, width=WIDTH), WIDTHS)).double()
    sources = [source.double().requires_grad_() for source in _sources(rows=2)]
    parameters = tuple(operator.parameters())

    def fused(*arguments: Tensor) -> Tensor:
        return operator(list(arguments[: len(WIDTHS)]))

    assert torch.autograd.gradcheck(fused, (*sources, *parameters))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("widths", [(3,), (4, 4), WIDTHS])
def test_parameters_of_the_table_are_those_of_the_module(
    name: str, widths: tuple[int, ...]
) -> None:
    operator = build_operator(FusionConfig(name, width=WIDTH), widths)
    assert operator(_sources(widths)).shape == (BATCH, WIDTH)
    counted = sum(parameter.numel() for parameter in operator.parameters())
    assert OPERATORS[name].num_parameters(widths, WIDTH) == counted


def test_one_gated_source_is_its_projection_exactly() -> None:
    operator = _trained(GatedFusion([5], WIDTH, importance=[0.3]))
    (x,) = _sources([5])
    weights = operator.state_dict()
    expected = F.gelu(F.linear(x, weights["projections.0.weight"], weights["projections.0.bias"]))
    assert torch.equal(operator([x]), expected)


def test_gates_start_at_the_importance() -> None:
    importance = [2.0, 1.0, 5.0]
    _, gates = GatedFusion(WIDTHS, WIDTH, importance=importance).fuse(_sources())
    expected = torch.tensor([importance]).expand(BATCH, -1) / 8
    torch.testing.assert_close(gates, expected)


def test_gates_start_even_without_importance() -> None:
    _, gates = GatedFusion(WIDTHS, WIDTH).fuse(_sources())
    torch.testing.assert_close(gates, torch.full((BATCH, 3), 1 / 3))


def test_a_higher_temperature_makes_gates_more_even() -> None:
    spread = []
    for temperature in (0.5, 1.0, 4.0):
        operator = GatedFusion(WIDTHS, WIDTH, temperature, importance=[1, 2, 6])
        gates = operator.fuse(_sources())[1].detach()
        spread.append(float((gates.amax(1) - gates.amin(1)).max()))
    assert spread == sorted(spread, reverse=True)


def test_gated_does_not_depend_on_the_order_of_the_sources() -> None:
    operator = _trained(GatedFusion(WIDTHS, WIDTH))
    order = [2, 0, 1]
    permuted = GatedFusion([WIDTHS[k] for k in order], WIDTH)
    weights = operator.state_dict()
    moved = {
        f"projections.{new}.{part}": weights[f"projections.{old}.{part}"]
        for new, old in enumerate(order)
        for part in ("weight", "bias")
    }
    blocks = weights["gate.weight"].unflatten(1, (len(WIDTHS), WIDTH))
    moved["gate.weight"] = blocks[order][:, order].flatten(1)
    moved["gate.bias"] = weights["gate.bias"][order]
    permuted.load_state_dict(moved)

    sources = _sources()
    fused, gates = operator.fuse(sources)
    permuted_fused, permuted_gates = permuted.fuse([sources[k] for k in order])
    torch.testing.assert_close(permuted_fused, fused)
    assert gates is not None
    torch.testing.assert_close(permuted_gates, gates[:, order])


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_see_each_other(name: str) -> None:
    operator = _trained(build_operator(FusionConfig(name, width=WIDTH), WIDTHS))
    sources = _sources()
    alone = torch.cat([operator([x[row : row + 1] for x in sources]) for row in range(BATCH)])
    torch.testing.assert_close(operator(sources), alone)


def test_the_table_has_what_the_config_allows() -> None:
    assert tuple(OPERATORS) == NAMES


@pytest.mark.parametrize("importance", [[1.0, 2.0], [1.0, 0.0, 2.0], [1.0, math.nan, 2.0]])
def test_importance_must_be_one_positive_number_a_source(importance: list[float]) -> None:
    with pytest.raises(UserError, match=r"importance: .* 3 sources, found \["):
        build_operator(FusionConfig(), WIDTHS, importance)


def test_an_unknown_operator_names_those_there_are() -> None:
    with pytest.raises(UserError, match="no 'sum'; there are: gated, concat"):
        build_operator(FusionConfig("sum"), WIDTHS)


@pytest.mark.parametrize("name", NAMES)
def test_no_source_is_an_error(name: str) -> None:
    with pytest.raises(UserError, match="no source to fuse"):
        build_operator(FusionConfig(name), [])
