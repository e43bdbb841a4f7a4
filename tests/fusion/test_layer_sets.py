"""Layer sets proposed from held-out predictions made by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.fusion.layer_sets import LayerSet, propose_layer_sets
from layerfusion.layers.budget import Budget
from layerfusion.layers.layer_id import LayerId
from tests.layers.test_selection import LAYERS, budget, held_out

SHARPNESS = [0.2, 0.9, 0.3, 0.2, 0.5, 0.8, 1.0, 0.4]


def _predictions(sharpness: list[float]) -> tuple[Tensor, Tensor]:
    held = held_out(sharpness)
    return torch.stack([one.log_probs for one in held]), held[0].target


def _propose(
    sharpness: list[float], limits: Budget, few: int = 4, members: int | None = None
) -> dict[str, LayerSet]:
    sets = propose_layer_sets(LAYERS, *_predictions(sharpness), limits, few=few, members=members)
    return {one.name: one for one in sets}


def test_layer_sets_are_the_best_one_of_each_model_a_few_and_all() -> None:
    found = _propose(SHARPNESS, budget())
    assert found["the best layer"].selection.layers == [LAYERS[6]]
    assert set(found["the best layer of each model"].selection.layers) == {LAYERS[1], LAYERS[6]}
    few = found["layers that complement each other"].selection.layers
    assert len(few) == 4
    assert few[0] == LAYERS[6]
    assert set(found["every layer"].selection.layers) == set(LAYERS)
    sets = [frozenset(one.selection.layers) for one in found.values()]
    assert len(set(sets)) == len(sets)
    assert [name for name, one in found.items() if not one.only_stacked] == list(found)[:3]


def test_layers_that_hardly_differ_between_texts_are_in_no_set() -> None:
    varying = [1, 2, 4, 7]  # the best layer, 6, is not among them
    found = propose_layer_sets(LAYERS, *_predictions(SHARPNESS), budget(), few=4, usable=varying)
    taken = {layer for one in found for layer in one.selection.layers}
    assert taken == {LAYERS[n] for n in varying}
    predictions = _predictions(SHARPNESS)
    assert all({*one.choose(*predictions, 1.0)} <= {*varying} for one in found)


def test_layers_complement_each_other_by_the_texts_whatever_repeats_them() -> None:
    generator = torch.Generator().manual_seed(3)
    target = torch.randint(3, (30,), generator=generator)
    said = 0.5 * F.one_hot(target, 3) + torch.randn(len(LAYERS), 30, 3, generator=generator)
    said = said.log_softmax(dim=2)

    def few(copies: int, distinct: float) -> list[LayerId]:
        rows = said.repeat(1, copies, 1), target.repeat(copies)
        found = propose_layer_sets(LAYERS, *rows, budget(), few=6, distinct=distinct)
        (one,) = (x for x in found if x.name == "layers that complement each other")
        return one.selection.layers

    assert few(10, 1 / 10) == few(1, 1.0) != few(10, 1.0)


def test_every_layer_is_offered_for_less_too() -> None:
    limits = budget()
    found = _propose(SHARPNESS, limits)
    whole = limits.cost(found["every layer"].selection.layers).flops
    half = found["every layer within 50% of their FLOPs"].selection.layers
    assert 1 < len(half) < len(LAYERS)
    assert limits.cost(half).flops <= whole / 2


def test_every_layer_set_keeps_the_budget_and_the_number_of_members() -> None:
    limits = budget(flops_per_text=900)  # the deep model's blocks cost 800 each
    for one in _propose(SHARPNESS, limits).values():
        assert limits.allows(one.selection.layers)
    sizes = {
        name: len(one.selection.layers)
        for name, one in _propose(SHARPNESS, budget(), members=3).items()
    }
    assert max(sizes.values()) == 3
    assert "every layer" not in sizes


def test_a_rule_sees_only_the_rows_that_it_is_given() -> None:
    log_probs, target = _predictions(SHARPNESS)
    inside = torch.arange(len(target)) % 2 == 0
    poisoned = log_probs.clone()
    poisoned[:, ~inside] = poisoned[:, ~inside].flip(0)
    for one in _propose(SHARPNESS, budget()).values():
        chosen = one.choose(log_probs[:, inside], target[inside], 1.0)
        assert chosen == one.choose(poisoned[:, inside], target[inside], 1.0)
