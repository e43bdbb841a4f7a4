"""Layer sets of layers proposed from score tables made by hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from layerfusion.config.job import LayersConfig
from layerfusion.layers.layer_sets import propose_layer_sets
from layerfusion.layers.selection import select_greedy
from tests.layers.test_selection import LAYERS, budget, held_out, table

SHARPNESS = [0.2, 0.9, 0.3, 0.2, 0.5, 0.8, 1.0, 0.4]
DIFFERENT = torch.eye(len(LAYERS))


def test_layer_sets_are_the_best_layer_one_of_each_model_and_the_selections() -> None:
    scores = table(held_out(SHARPNESS))
    layer_sets = propose_layer_sets(LayersConfig(), scores, DIFFERENT, budget())
    losses = scores.values["log_loss"]
    best = LAYERS[int(losses.argmin())]
    assert next(iter(layer_sets)) == "the best layer"
    assert layer_sets["the best layer"].layers == [best]
    small = min(range(3), key=lambda n: losses[n])
    deep = min(range(3, 8), key=lambda n: losses[n])
    assert set(layer_sets["the best layer of each model"].layers) == {LAYERS[small], LAYERS[deep]}
    sets = [frozenset(layer_set.layers) for layer_set in layer_sets.values()]
    assert len(set(sets)) == len(sets)
    lone = replace(LayersConfig(), name="greedy")
    greedy = select_greedy(lone, scores, DIFFERENT, budget())
    assert set(greedy.layers) in [set(layer_set.layers) for layer_set in layer_sets.values()]


def test_a_set_found_before_is_left_out() -> None:
    # One layer knows everything and the others nothing: whoever chooses, chooses it.
    layer_sets = propose_layer_sets(
        LayersConfig(), table(held_out([0.0] * 7 + [9.0])), DIFFERENT, budget()
    )
    assert "adaptive" not in layer_sets
    assert [len(layer_set.layers) for layer_set in layer_sets.values()].count(1) == 1


def test_every_layer_set_keeps_the_budget() -> None:
    limited = budget(flops_per_text=900)
    scores = table(held_out(SHARPNESS))
    affordable = limited.affordable(LAYERS)
    assert len(affordable) == len(LAYERS) - 3  # the deep model's blocks cost 800 each
    places = [LAYERS.index(layer) for layer in affordable]
    part = table(tuple(scores.held_out[n] for n in places), names=[])
    part = type(part)(tuple(affordable), part.values, part.held_out)
    for layer_set in propose_layer_sets(
        LayersConfig(), part, torch.eye(len(places)), limited
    ).values():
        assert limited.allows(layer_set.layers)
