"""Layer sets that `fusion=auto` chooses among, all proposed from the same probes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from layerfusion.config.job import LayersConfig
from layerfusion.layers.budget import Budget
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.scores import ScoreTable
from layerfusion.layers.selection import Choice, Selection, select_by_score, select_greedy

EVERY_LAYER = "every layer"
"""Name of the set that only a stack is tried on: weights of many probes are quick to learn."""


def propose_layer_sets(
    config: LayersConfig, table: ScoreTable, similarity: Tensor, budget: Budget
) -> dict[str, Selection]:
    """Propose the best single layer, the best of each model, `adaptive`, `greedy`, and every layer.

    Every set keeps to the budget. A set with the same layers as an earlier one is left out.

    Args:
        config: the limits of the selections.
        table: scores with held-out probabilities, of layers that the budget allows one by one.
        similarity: linear CKA between the layers. Shape: (layers, layers).
        budget: what they may cost together.

    Returns:
        The way a set was found, and the set; the best single layer first.
    """
    by_probe = replace(config, score="probe")
    proposals = {
        "the best layer": select_by_score(
            replace(by_probe, name="top_k", k=1), table, similarity, budget
        ),
        "the best layer of each model": _one_of_each(table, budget),
        "adaptive": select_by_score(replace(by_probe, name="adaptive"), table, similarity, budget),
        "greedy": select_greedy(replace(by_probe, name="greedy"), table, similarity, budget),
        EVERY_LAYER: _every_layer(table, budget),
    }
    layer_sets: dict[str, Selection] = {}
    for name, selection in proposals.items():
        if all(set(selection.layers) != set(other.layers) for other in layer_sets.values()):
            layer_sets[name] = selection
    return layer_sets


def _one_of_each(table: ScoreTable, budget: Budget) -> Selection:
    """Take the best layer of each model, better models first, while the budget allows it."""
    choices: list[Choice] = []
    for layer, loss in _best_first(table):
        taken = [choice.layer for choice in choices]
        if layer.backbone in {other.backbone for other in taken}:
            continue
        if budget.allows([*taken, layer]):
            words = f"held-out log-loss {loss:.4g}, the lowest of its model"
            choices.append(Choice(layer, words))
    return Selection(tuple(choices))


def _every_layer(table: ScoreTable, budget: Budget) -> Selection:
    """Take all layers that the budget allows together, better ones first."""
    choices: list[Choice] = []
    for layer, loss in _best_first(table):
        if budget.allows([*(choice.layer for choice in choices), layer]):
            choices.append(Choice(layer, f"held-out log-loss {loss:.4g}"))
    return Selection(tuple(choices))


def _best_first(table: ScoreTable) -> list[tuple[LayerId, float]]:
    """List the layers with their held-out log-losses, the lowest first."""
    losses = table.values["log_loss"]
    return [(table.layers[n], float(losses[n])) for n in np.argsort(losses, kind="stable")]
