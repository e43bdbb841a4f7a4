"""Teams of layers proposed from score tables made by hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from layerfusion.config.job import LayersConfig
from layerfusion.layers.selection import select_greedy
from layerfusion.layers.teams import propose_teams
from tests.layers.test_selection import LAYERS, budget, held_out, table

SHARPNESS = [0.2, 0.9, 0.3, 0.2, 0.5, 0.8, 1.0, 0.4]
DIFFERENT = torch.eye(len(LAYERS))


def test_teams_are_the_best_layer_one_of_each_model_and_the_selections() -> None:
    scores = table(held_out(SHARPNESS))
    teams = propose_teams(LayersConfig(), scores, DIFFERENT, budget())
    losses = scores.values["log_loss"]
    best = LAYERS[int(losses.argmin())]
    assert next(iter(teams)) == "the best layer"
    assert teams["the best layer"].layers == [best]
    small = min(range(3), key=lambda n: losses[n])
    deep = min(range(3, 8), key=lambda n: losses[n])
    assert set(teams["the best layer of each model"].layers) == {LAYERS[small], LAYERS[deep]}
    sets = [frozenset(team.layers) for team in teams.values()]
    assert len(set(sets)) == len(sets)
    lone = replace(LayersConfig(), name="greedy")
    greedy = select_greedy(lone, scores, DIFFERENT, budget())
    assert set(greedy.layers) in [set(team.layers) for team in teams.values()]


def test_a_set_found_before_is_left_out() -> None:
    # One layer knows everything and the others nothing: whoever chooses, chooses it.
    teams = propose_teams(LayersConfig(), table(held_out([0.0] * 7 + [9.0])), DIFFERENT, budget())
    assert "adaptive" not in teams
    assert [len(team.layers) for team in teams.values()].count(1) == 1


def test_every_team_keeps_the_budget() -> None:
    limited = budget(flops_per_text=900)
    scores = table(held_out(SHARPNESS))
    affordable = limited.affordable(LAYERS)
    assert len(affordable) == len(LAYERS) - 3  # the deep model's blocks cost 800 each
    places = [LAYERS.index(layer) for layer in affordable]
    part = table(tuple(scores.held_out[n] for n in places), names=[])
    part = type(part)(tuple(affordable), part.values, part.held_out)
    for team in propose_teams(LayersConfig(), part, torch.eye(len(places)), limited).values():
        assert limited.allows(team.layers)
