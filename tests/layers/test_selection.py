"""Selections on score tables made by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from layerfusion.config.job import BudgetConfig, LayersConfig
from layerfusion.embeddings.shape import ModelShape
from layerfusion.errors import UserError
from layerfusion.layers.budget import Budget, ModelCost
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.model_scores import gradient_entropy
from layerfusion.layers.probe import HeldOut
from layerfusion.layers.scores import ScoreTable
from layerfusion.layers.selection import (
    FIXED,
    behind,
    pooled_losses,
    select_by_score,
    select_greedy,
    select_plain,
)

SHAPES = {
    "small": ModelShape(("0", "1", "2"), 4, 16, 30, 10, (10, 10), (10, 10)),
    "deep": ModelShape(("0", "1", "2", "3", "norm"), 8, 16, 70, 10, (20,) * 3, (20,) * 3),
}
LAYERS = tuple(LayerId(name, layer, "mean") for name in SHAPES for layer in SHAPES[name].layers)
ROWS = 400


def budget(**limits: float) -> Budget:
    models = {
        name: ModelCost(
            shape, {x: 100.0 * shape.blocks_below(x) * shape.width for x in shape.layers}, 8.0
        )
        for name, shape in SHAPES.items()
    }
    return Budget(BudgetConfig(**limits), models)  # type: ignore[arg-type]


def held_out(
    sharpness: list[float], seed: int = 0, shared: float = 0.0, rows: int = ROWS
) -> tuple[HeldOut, ...]:
    """Two-class probes whose log-odds are sharpness · truth + noise, partly shared by all."""
    rng = np.random.default_rng(seed)
    target = torch.from_numpy(rng.integers(0, 2, rows))
    common = rng.normal(size=rows)
    held = []
    for sharp in sharpness:
        noise = shared * common + np.sqrt(1 - shared**2) * rng.normal(size=rows)
        odds = torch.from_numpy(sharp * (2 * target.numpy() - 1) + noise) * 2
        log_probs = torch.stack([-odds, odds], dim=1).div(2).log_softmax(dim=1).float()
        held.append(HeldOut(log_probs, target, 0.01, text_of=None))
    return tuple(held)


def table(held: tuple[HeldOut, ...], **scores: list[float]) -> ScoreTable:
    values = {
        "log_loss": np.array([one.log_loss for one in held]),
        "accuracy": np.array([one.accuracy for one in held]),
        **{name: np.array(value) for name, value in scores.items()},
    }
    return ScoreTable(LAYERS, values, held)


def repeated(held: tuple[HeldOut, ...], times: int = 9) -> tuple[HeldOut, ...]:
    """The same probes where each row counts so many times."""
    return tuple(
        HeldOut(
            one.log_probs.repeat(times, 1),
            one.target.repeat(times),
            one.strength,
            text_of=torch.arange(len(one.target)).repeat(times),
        )
        for one in held
    )


SHARP = [0.2, 0.5, 0.9, 0.1, 0.6, 1.0, 0.95, 0.7]
DIFFERENT = torch.eye(len(LAYERS))


def test_last_all_and_fixed_need_no_scores() -> None:
    last = select_plain(LayersConfig("last"), LAYERS, budget())
    assert [str(x) for x in last.layers] == ["small:2:mean", "deep:norm:mean"]
    assert select_plain(LayersConfig("all"), LAYERS, budget()).layers == list(LAYERS)
    fixed = LayersConfig("fixed", {"deep": [-1, "norm", -1], "small": [0]})
    found = select_plain(fixed, LAYERS, budget()).layers
    assert [str(x) for x in found] == ["small:0:mean", "deep:3:mean", "deep:norm:mean"]


def test_a_budget_lowers_last_and_all_and_refuses_what_is_fixed_above_it() -> None:
    capped = budget(max_layer=1)
    last = select_plain(LayersConfig("last"), LAYERS, capped)
    assert [x.layer for x in last.layers] == ["1", "1"]
    assert "within the budget" in last.choices[0].reason
    assert last.notes == (
        "layers.budget (max_layer=1) allows 4 of 8 layers, at most layer 1 of small, 1 of deep",
    )
    assert not select_plain(LayersConfig("last"), LAYERS, budget()).notes
    with pytest.raises(UserError, match=r"max_layer=1.*layer 3 of deep"):
        FIXED.select(
            LayersConfig("fixed", {"deep": [3]}), ScoreTable(LAYERS, {}), torch.empty(0, 0), capped
        )


def test_costs_are_those_of_the_highest_layer_of_each_model() -> None:
    costs = budget()
    together = costs.cost([LAYERS[1], LAYERS[2], LAYERS[4]])
    assert together.flops == 100 * (2 * 4 + 1 * 8)
    assert together.ms == pytest.approx(8.0 * 3 / 3 + 8.0 * 2 / 4)
    assert costs.cost([LAYERS[-1]]).flops == costs.cost([LAYERS[-2]]).flops


def test_a_budget_that_no_layer_meets_names_the_cheapest() -> None:
    with pytest.raises(UserError, match=r"ms_per_text=1\).* allows no layer: .*layer 0 of small"):
        budget(ms_per_text=1).affordable(LAYERS)
    unknown = Budget(
        BudgetConfig(ms_per_text=1), {"small": ModelCost(SHAPES["small"], {"0": 0.0}, None)}
    )
    with pytest.raises(UserError, match="flops_per_text instead"):
        unknown.affordable(LAYERS[:1])


def test_top_k_takes_the_best_and_passes_over_duplicates() -> None:
    similarity = DIFFERENT.clone()
    similarity[5, 6] = similarity[6, 5] = 0.998
    scores = table(held_out(SHARP))
    assert np.argsort(scores.values["log_loss"])[:3].tolist() == [5, 6, 2]
    config = LayersConfig("top_k", k=2)
    found = select_by_score(config, scores, similarity, budget())
    assert found.layers == [LAYERS[5], LAYERS[2]]
    assert found.notes == ("dropped layer 3 of deep: CKA .998 with layer 2 of deep",)
    weights = [choice.weight or 0 for choice in found.choices]
    assert sum(weights) == pytest.approx(1)
    assert weights[0] > weights[1] > 0
    keep = LayersConfig("top_k", k=2, max_similarity=1)
    assert select_by_score(keep, scores, similarity, budget()).layers == [LAYERS[5], LAYERS[6]]


def test_top_k_takes_what_scores_better_and_not_what_is_less_surely_worse() -> None:
    rng = np.random.default_rng(0)
    surely = 0.01 + 0.01 * rng.normal(size=ROWS)  # behind by little on nearly every row
    perhaps = 0.1 + 0.9 * rng.normal(size=ROWS)  # behind by ten times that, but not on every row
    far = [0.4 + 0.1 * n for n in range(5)]
    losses = [0.5 + 0.0 * surely, 0.5 + surely, 0.5 + perhaps, *(0.5 + x + 0 * surely for x in far)]
    target = torch.zeros(ROWS, dtype=torch.int64)
    held = tuple(
        HeldOut(torch.from_numpy(np.stack([-one, one], axis=1)), target, 1.0, text_of=None)
        for one in losses
    )
    scores = table(held)
    z = behind(scores, "probe", range(8))
    assert z[1] > z[2] > 0
    assert scores.values["log_loss"][1] < scores.values["log_loss"][2]
    found = select_by_score(LayersConfig("top_k", k=2), scores, DIFFERENT, budget())
    assert found.layers == [LAYERS[0], LAYERS[1]]
    similarity = DIFFERENT.clone()
    similarity[1, 2] = similarity[2, 1] = 0.99
    found = select_by_score(LayersConfig("top_k", k=3), scores, similarity, budget())
    assert found.layers == [LAYERS[0], LAYERS[1], LAYERS[3]]  # of two alike, the better stays
    assert "more than 100 standard errors" in found.choices[2].reason  # all but constant


def test_top_k_of_too_many_says_how_many_there_are() -> None:
    with pytest.raises(UserError, match=r"layers.k=9: there are 8 layers"):
        select_by_score(LayersConfig("top_k", k=9), table(held_out(SHARP)), DIFFERENT, budget())
    capped = budget(max_layer=1)
    limited = r"layers.k=5: there are 4 layers with .* within layers.budget \(max_layer=1\)"
    with pytest.raises(UserError, match=limited):
        select_by_score(LayersConfig("top_k", k=5), table(held_out(SHARP)), DIFFERENT, capped)


def test_adaptive_takes_one_layer_of_a_steep_profile_and_more_of_a_flat_one() -> None:
    config = LayersConfig("adaptive")
    steep = table(held_out([0.1, 0.1, 2.0, 0.1, 0.2, 0.3, 0.2, 0.1]))
    flat = table(held_out([1.0] * 8))
    alone = select_by_score(config, steep, DIFFERENT, budget())
    assert alone.layers == [LAYERS[2]]
    assert "the best" in alone.choices[0].reason
    several = select_by_score(config, flat, DIFFERENT, budget())
    assert len(several.layers) >= 4
    two = LayersConfig("adaptive", max_layers=2)
    assert len(select_by_score(two, flat, DIFFERENT, budget()).layers) == 2


def test_adaptive_takes_fewer_the_more_rows_it_is_sure_of() -> None:
    sharp = [0.8, 0.9, 1.0, 0.8, 0.85, 1.05, 1.0, 0.9]
    counts = [
        len(
            select_by_score(
                LayersConfig("adaptive"), table(held_out(sharp, rows=rows)), DIFFERENT, budget()
            ).layers
        )
        for rows in (40, 20_000)
    ]
    assert counts[1] < counts[0]


def test_the_distance_is_the_paired_standard_error() -> None:
    scores = table(held_out(SHARP, shared=0.9))
    distance = behind(scores, "probe", range(8))
    best = int(scores.values["log_loss"].argmin())
    for n in range(8):
        difference = scores.held_out[n].losses - scores.held_out[best].losses
        expected = 0.0
        if n != best:
            error = difference.numpy().std(ddof=1) / np.sqrt(ROWS)
            expected = float(difference.mean()) / error
        assert distance[n] == pytest.approx(expected)


def test_repeated_texts_make_no_layer_further_from_the_best() -> None:
    held = held_out(SHARP, shared=0.9)
    once = behind(table(held), "probe", range(8))
    assert behind(table(repeated(held)), "probe", range(8)) == pytest.approx(once)


def test_repeated_texts_make_greedy_no_surer() -> None:
    """A third layer gains by more than the error of nine times the rows, and not of the texts."""
    config = LayersConfig("greedy")
    held = held_out([0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.4, 0.4], shared=0.8, rows=100)
    once, again = (
        select_greedy(config, table(one), DIFFERENT, budget()) for one in (held, repeated(held))
    )
    assert [choice.words for choice in again.choices] == [choice.words for choice in once.choices]
    assert again.notes == once.notes
    as_if_all_differ = tuple(replace(one, text_of=None) for one in repeated(held))
    surer = select_greedy(config, table(as_if_all_differ), DIFFERENT, budget())
    assert len(surer.layers) > len(once.layers)


def test_scores_of_other_models_are_not_compared_where_they_mean_nothing() -> None:
    scores = table(held_out(SHARP), gradient=[1, 2, 3, 100, 200, 300, 400, 500.0])
    distance = behind(scores, "gradient", range(8))
    assert distance[2] == distance[7] == 0
    assert behind(scores, "gradient", [0, 1, 3, 4])[1] == 0
    scores = table(held_out(SHARP), logme=[1, 2, 3, 100, 200, 300, 400, 500.0])
    assert behind(scores, "logme", range(8))[2] > 2


def test_a_score_without_values_is_refused_with_its_reason() -> None:
    empty = table(held_out(SHARP), attention_entropy=[np.nan] * 8)
    lacking = ScoreTable(
        LAYERS, empty.values, empty.held_out, {"attention_entropy": "no attention"}
    )
    config = LayersConfig("top_k", score="attention_entropy")
    with pytest.raises(UserError, match="attention_entropy: no attention"):
        select_by_score(config, lacking, DIFFERENT, budget())
    some = table(
        held_out(SHARP), attention_entropy=[np.nan, 0.5, 0.4, np.nan, 0.9, 0.8, 0.7, np.nan]
    )
    two = LayersConfig("top_k", k=2, score="attention_entropy")
    found = select_by_score(two, some, DIFFERENT, budget())
    assert found.layers == [LAYERS[2], LAYERS[6]]  # low entropy is focused; the best of each model
    assert all(choice.reason.endswith("the best of its model") for choice in found.choices)


def test_the_budget_holds_for_the_layers_together() -> None:
    scores = table(held_out(SHARP))
    limit = budget(flops_per_text=1700)
    found = select_by_score(LayersConfig("top_k", k=3), scores, DIFFERENT, limit)
    assert limit.cost(found.layers).flops <= 1700
    assert LAYERS[5] in found.layers
    assert any("over the budget" in note for note in found.notes)


def test_what_the_budget_drops_does_not_make_adaptive_take_worse_layers() -> None:
    # Two equal layers, each of which takes the whole budget: one is taken, the other dropped.
    # All others are far behind both, and would be taken if the dropped one's weight were missed.
    close = table(held_out([0.1, 0.1, 1.0, 0.1, 0.1, 1.0, 0.1, 0.1]))
    limit = budget(flops_per_text=1700)
    assert limit.allows([LAYERS[2]])
    assert limit.allows([LAYERS[5]])
    assert not limit.allows([LAYERS[2], LAYERS[5]])
    found = select_by_score(LayersConfig("adaptive"), close, DIFFERENT, limit)
    assert len(found.layers) == 1
    assert found.layers[0] in (LAYERS[2], LAYERS[5])
    assert len(found.notes) == 1


def test_adaptive_takes_the_best_layer_where_no_weight_is_asked_for() -> None:
    found = select_by_score(
        LayersConfig("adaptive", mass=0.0), table(held_out(SHARP)), DIFFERENT, budget()
    )
    assert found.layers == [LAYERS[5]]


def test_greedy_is_the_best_of_each_step_by_brute_force() -> None:
    scores = table(held_out([0.5, 0.6, 0.8, 0.1, 0.5, 0.9, 0.85, 0.4], seed=3))
    found = select_greedy(LayersConfig("greedy"), scores, DIFFERENT, budget()).layers
    assert len(found) > 1
    for step in range(1, len(found) + 1):
        trials = {
            n: float(pooled_losses(scores, [*found[: step - 1], LAYERS[n]]).mean())
            for n in range(8)
            if LAYERS[n] not in found[: step - 1]
        }
        assert LAYERS[min(trials, key=trials.__getitem__)] == found[step - 1]
    losses = [float(pooled_losses(scores, found[: n + 1]).mean()) for n in range(len(found))]
    assert all(later < earlier for earlier, later in itertools.pairwise(losses))


def test_greedy_finds_a_weak_layer_that_complements_and_leaves_a_copy() -> None:
    held = list(held_out([0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.6], seed=1))
    held[6] = held[2]
    similarity = DIFFERENT.clone()
    similarity[2, 6] = similarity[6, 2] = 1.0
    found = select_greedy(LayersConfig("greedy"), table(tuple(held)), similarity, budget())
    assert found.layers[:2] == [LAYERS[2], LAYERS[7]]
    assert LAYERS[6] not in found.layers
    assert "a gain of" in found.choices[1].reason
    stopped, dropped = found.notes
    assert stopped.startswith(f"stopped at {len(found.layers)}: ")
    assert dropped == f"dropped {LAYERS[6].words}: CKA 1.000 with {LAYERS[2].words}"


def test_gradient_entropy_by_hand() -> None:
    gradient = np.array([1.0, 3.0, 5.0, 10.0, 20.0])
    entropy = np.array([np.nan, 0.2, 0.6, 0.9, 0.5])
    models = [np.array([0, 1, 2]), np.array([3, 4])]
    found = gradient_entropy(gradient, entropy, models, 0.25)
    assert np.isnan(found[0])
    assert found[1:].tolist() == pytest.approx([0.75, 0.25, 0.0, 1.0])


def test_one_held_out_row_says_nothing_of_an_error() -> None:
    scores = table(held_out(SHARP, rows=1))
    assert len(select_greedy(LayersConfig("greedy"), scores, DIFFERENT, budget()).layers) == 1


@pytest.mark.parametrize(
    ("k", "small", "deep"),
    [
        (1, ["2"], ["norm"]),
        (2, ["1", "2"], ["2", "norm"]),
        (4, ["0", "1", "2"], ["1", "2", "3", "norm"]),
        (9, ["0", "1", "2"], ["0", "1", "2", "3", "norm"]),
    ],
)
def test_even_takes_layers_at_equal_distances(k: int, small: list[str], deep: list[str]) -> None:
    found = select_plain(LayersConfig("even", k=k), LAYERS, budget()).layers
    assert [x.layer for x in found if x.backbone == "small"] == small
    assert [x.layer for x in found if x.backbone == "deep"] == deep
