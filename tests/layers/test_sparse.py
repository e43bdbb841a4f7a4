"""The selection `sparse` on score tables made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from layerfusion.config.job import LayersConfig
from layerfusion.layers.log_linear import log_losses
from layerfusion.layers.probe import HeldOut
from layerfusion.layers.sparse import SPARSE, path
from tests.layers.test_selection import DIFFERENT, LAYERS, SHARP, budget, held_out, repeated, table

CONFIG = LayersConfig("sparse")


def test_the_weights_are_the_minimum() -> None:
    held = held_out(SHARP, seed=1, shared=0.5)
    log_probs = torch.stack([one.log_probs for one in held]).double()
    target = held[0].target

    def loss(weights: np.ndarray) -> float:
        losses = log_losses(log_probs, target, torch.from_numpy(weights))
        return float(losses.mean()) + 0.01 * float(weights.sum())

    found = path(log_probs, target, [0.1, 0.01])[-1].numpy()
    best = minimize(loss, np.full(len(SHARP), 0.1), bounds=[(0, None)] * len(SHARP))
    assert loss(found) <= best.fun + 1e-5
    assert (found == 0).any()


def test_a_layer_that_guesses_is_left_out() -> None:
    selection = SPARSE.select(
        CONFIG, table(held_out([0, 0, 1, 0, 0, 1, 0, 0])), DIFFERENT, budget()
    )
    assert {str(layer) for layer in selection.layers} == {"small:2:mean", "deep:2:mean"}
    assert selection.weights is not None
    assert abs(sum(selection.weights) - 1) < 1e-9


def test_layers_that_see_apart_are_taken_together_and_copies_are_not() -> None:
    apart = SPARSE.select(CONFIG, table(held_out([0.8] * 8)), DIFFERENT, budget())
    same = held_out([0.8])[0]
    copies = SPARSE.select(CONFIG, table((same,) * 8), DIFFERENT, budget())
    assert len(apart.layers) == 8
    assert len(copies.layers) == 1


def test_where_nothing_is_better_than_guessing_one_layer_is_taken() -> None:
    target = torch.arange(40) % 2
    even = held_out([0.0] * 8, rows=40)
    half = torch.full((40, 2), 0.5).log()
    useless = tuple(HeldOut(half, target, one.strength, text_of=None) for one in even)
    assert len(SPARSE.select(CONFIG, table(useless), DIFFERENT, budget()).layers) == 1


def test_the_budget_and_the_largest_number_hold() -> None:
    held = table(held_out([0.8] * 8))
    few = SPARSE.select(LayersConfig("sparse", max_layers=3), held, DIFFERENT, budget())
    assert len(few.layers) == 3
    assert sum("no room for more" in note for note in few.notes) == len(LAYERS) - 3
    low = SPARSE.select(CONFIG, held, DIFFERENT, budget(max_layer=1))
    assert {layer.layer for layer in low.layers} <= {"0", "1"}


def test_repeated_texts_change_nothing() -> None:
    held = held_out(SHARP, seed=1, shared=0.5, rows=100)
    once, again = (
        SPARSE.select(CONFIG, table(one), DIFFERENT, budget()) for one in (held, repeated(held))
    )
    assert again.notes == once.notes
    assert again.layers == once.layers
    assert again.weights == pytest.approx(once.weights, abs=1e-3)
