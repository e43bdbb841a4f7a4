"""Layer sets that `fusion=auto` chooses among, all proposed from the same probes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from layerfusion.config.job import LayersConfig
from layerfusion.layers.budget import Budget
from layerfusion.layers.scores import ScoreTable
from layerfusion.layers.selection import Choice, Selection, select_by_score, select_greedy


def propose_layer_sets(
    config: LayersConfig, table: ScoreTable, similarity: Tensor, budget: Budget
) -> dict[str, Selection]:
    """Propose the best single layer, the best layer of each model, `adaptive` and `greedy`.

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
    }
    layer_sets: dict[str, Selection] = {}
    for name, selection in proposals.items():
        if all(set(selection.layers) != set(other.layers) for other in layer_sets.values()):
            layer_sets[name] = selection
    return layer_sets


def _one_of_each(table: ScoreTable, budget: Budget) -> Selection:
    """Take the best layer of each model, better models first, while the budget allows it."""
    losses = table.values["log_loss"]
    choices: list[Choice] = []
    for n in np.argsort(losses, kind="stable"):
        layer = table.layers[n]
        taken = [choice.layer for choice in choices]
        if layer.backbone in {other.backbone for other in taken}:
            continue
        if budget.allows([*taken, layer]):
            words = f"held-out log-loss {losses[n]:.4g}, the lowest of its model"
            choices.append(Choice(layer, words))
    return Selection(tuple(choices))
