"""The curvature of a log-linear pool, in which classes that matter little are left out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from layerfusion.fusion import pool_fitting as pool
from layerfusion.layers.log_linear import log_losses, slope_and_curvature

SOURCES, ROWS = 10, 300


def _said(classes: int, margin: float) -> tuple[Tensor, Tensor]:
    """Sources that give one class of each text odds of e^margin against any other, nearly."""
    generator = torch.Generator().manual_seed(0)
    likely = torch.randint(classes, (ROWS, 1), generator=generator)
    odds = torch.zeros(ROWS, classes).scatter_(1, likely, margin)
    target = torch.multinomial(odds.softmax(dim=1), 1, generator=generator)[:, 0]
    noise = 0.3 * torch.randn(SOURCES, ROWS, classes, generator=generator)
    return (odds + noise).log_softmax(dim=2), target


CASES = pytest.mark.parametrize(
    ("classes", "margin"), [(2, 1.0), (2, 9.5), (150, 6.0), (150, 9.5), (150, 12.0)]
)


@CASES
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_no_more_than_a_tenth_of_the_curvature_along_the_weights_is_left_out(
    classes: int, margin: float, scale: float
) -> None:
    said, target = _said(classes, margin)
    weights = torch.full((SOURCES,), scale / SOURCES, dtype=torch.float64)
    gradient, hessian = slope_and_curvature(said, target, weights)

    def loss(some: Tensor) -> Tensor:
        return log_losses(said.double(), target, some).mean()

    torch.testing.assert_close(gradient, torch.func.grad(loss)(weights), rtol=1e-4, atol=1e-6)
    whole = torch.func.hessian(loss)(weights)
    along = torch.ones(SOURCES, dtype=torch.float64)
    assert 0.9 <= float(along @ hessian @ along) / float(along @ whole @ along) <= 1.0001


@CASES
def test_the_weights_of_a_pool_take_a_few_steps(
    classes: int, margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def counted(*arguments: Tensor) -> tuple[Tensor, Tensor]:
        steps.append(arguments)
        return slope_and_curvature(*arguments)

    monkeypatch.setattr(pool, "slope_and_curvature", counted)
    pool.anchored_weights(*_said(classes, margin))
    assert len(steps) <= 6
