"""The compact form of L-BFGS against the recursion that it stands for."""

from __future__ import annotations

import torch
from torch import Tensor

from layerfusion.layers.logistic import HISTORY, History, dot

LAYERS, COLUMNS, WIDTH = 2, 3, 7


def _two_loops(pairs: list[tuple[Tensor, Tensor]], gradient: Tensor, diagonal: Tensor) -> Tensor:
    """Nocedal and Wright, *Numerical Optimization*, algorithm 7.4, for one problem."""
    usable = [(step, rise) for step, rise in pairs if float((step * rise).sum()) > 0]
    shares = []
    for step, rise in reversed(usable):
        shares.append((step * gradient).sum() / (step * rise).sum())
        gradient = gradient - shares[-1] * rise
    result = gradient / diagonal
    if pairs and float((pairs[-1][0] * pairs[-1][1]).sum()) > 0:
        step, rise = pairs[-1]
        result *= min(1.0, float((step * rise).sum() / (rise.square() / diagonal).sum()))
    for (step, rise), share in zip(usable, reversed(shares), strict=True):
        result = result + step * (share - (rise * result).sum() / (step * rise).sum())
    return result


def test_the_last_steps_of_each_problem_give_what_the_two_loops_give() -> None:
    """Old steps are forgotten, problems end early, stand still, or go where nothing rises."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    mix = drawn(LAYERS, COLUMNS * WIDTH, COLUMNS * WIDTH)
    hessian = mix @ mix.mT / 10 + torch.eye(COLUMNS * WIDTH, dtype=torch.float64)
    left = torch.arange(4)
    history = History(drawn(LAYERS, 4, COLUMNS, WIDTH))
    pairs: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for number in range(5 * HISTORY):
        if number in (HISTORY + 3, 3 * HISTORY):
            kept = torch.arange(len(left)) != 1
            history, left = history.take(kept), left[kept]
        size = (LAYERS, len(left), COLUMNS, WIDTH)
        step, gradient, diagonal = drawn(*size), drawn(*size), drawn(*size).abs() + 0.1
        step *= (drawn(LAYERS, len(left)) > -1)[:, :, None, None]
        rise = (step.flatten(2) @ hessian).unflatten(2, (COLUMNS, WIDTH))
        rise *= torch.where(drawn(LAYERS, len(left)) > -1.5, 1.0, -1.0)[:, :, None, None]
        history.add(step, rise)
        found = history.solve(gradient, diagonal)
        assert bool((dot(found, gradient) > 0).all())
        for layer in range(LAYERS):
            for place, problem in enumerate(left.tolist()):
                known = pairs.setdefault((layer, problem), [])
                known.append((step[layer, place], rise[layer, place]))
                expected = _two_loops(
                    known[-HISTORY:], gradient[layer, place], diagonal[layer, place]
                )
                torch.testing.assert_close(found[layer, place], expected)
