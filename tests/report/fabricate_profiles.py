"""Layer profiles that nobody computed: made-up figures with the shape of real ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from layerfusion.records.profile import (
    BEST_BY,
    Accuracy,
    BackboneProfile,
    LayerProfile,
    ModelPair,
    MultiLayerProfile,
    Profile,
    Regret,
    ScoreFacts,
    SelectionProfile,
)
from tests.report.fabricate import dataset

Source = tuple[str, str]
NO_ATTENTION = "layer 0 and the final norm have no attention of their own"
LOW_IS_GOOD = ("log_loss", "attention_entropy")
SECONDS = {
    "log_loss": 24.0,
    "accuracy": 24.0,
    "logme": 7.5,
    "h_score": 8.0,
    "fisher": 0.7,
    "effective_rank": 5.0,
    "gradient": 74.0,
    "attention_entropy": 26.0,
    "gradient_entropy": 100.0,
}


def stack(blocks: int, *, norm: bool = False) -> list[str]:
    return [*(str(n) for n in range(blocks + 1)), *(["norm"] if norm else [])]


MODELS = {"minilm": stack(6), "smollm2": stack(30, norm=True)}


def profile(
    name: str = "toy",
    models: Mapping[str, Sequence[str]] = MODELS,
    poolings: Sequence[str] = ("mean",),
    *,
    judged: bool = False,
    seed: int = 0,
    **changes: Any,
) -> Profile:
    """Accuracy rises, then falls with depth; the other scores follow it more or less."""
    rng = np.random.default_rng(seed)
    layers: list[LayerProfile] = []
    for number, (backbone, names) in enumerate(models.items()):
        for pooling in poolings:
            top = 0.76 + 0.02 * (number % 4) + 0.02 * (pooling == "last")
            layers += [_layer(backbone, names, n, pooling, top, rng) for n in range(len(names))]
    if judged:
        layers = [replace(layer, test=_test(layer)) for layer in layers]
    made = Profile(
        job=hashlib.sha256(repr((name, *models, *poolings, seed)).encode()).hexdigest()[:12],
        dataset=dataset(name),
        backbones={x: BackboneProfile(f"wheel {x}", 6, list(y), {}, {}) for x, y in models.items()},
        rows=450,
        held_out="5 folds of train",
        layers=layers,
        similarity=_similarity(layers),
        spearman=_spearman(layers, rng),
        seconds=dict(SECONDS),
        missing=dict.fromkeys(("attention_entropy", "gradient_entropy"), NO_ATTENTION),
        pairs=_pairs(layers),
        selections=_selections(layers, judged=judged),
        versions={"python": "3.12.1"},
        created="2026-01-05T10:00:00+00:00",
        score_facts={name: ScoreFacts(name in LOW_IS_GOOD, False) for name in SECONDS},
    )
    return replace(made, **changes)


def together(profile: Profile) -> Profile:
    """The profile with two probes of several layers, judged if its layers are."""
    places = list(range(len(profile.layers)))
    known = next((x for x in profile.selections if x.name == "adaptive"), None)
    probes = []
    for name, lead in (("scalar_mix", 0.5), ("group_lasso", 0.995)):
        shares = [lead, *((1 - lead) / (len(places) - 1) for _ in places[1:])]
        one = MultiLayerProfile(name, places, shares, 0.81, 0.412, 0.01, 3.2)
        if known is not None:
            one = replace(one, test=known.test, regret=known.regret, over_last=known.over_last)
        probes.append(one)
    return replace(profile, multi_layer=probes)


def judge(
    profile: Profile,
    regrets: Mapping[str, tuple[float, float, float]],
    *,
    over_last: tuple[float, float, float] = (0.01, 0.0, 0.02),
    p: float | None = 0.5,
) -> Profile:
    """The profile with exactly these selections, judged to these regrets, each of a layer alone."""
    selections = [
        SelectionProfile(
            name=name,
            layers=[number % len(profile.layers)],
            reasons=["made up"],
            notes=[],
            test=Accuracy(0.8 - regret[0], 0.75, 0.85),
            regret=Regret(*regret, cross_fitted=regret[0] - 0.005, p=p),
            over_last=over_last,
            best_by=_best_by(name),
        )
        for number, (name, regret) in enumerate(regrets.items())
    ]
    return replace(profile, selections=selections)


def _best_by(name: str) -> str:
    return name.removeprefix(BEST_BY) if name.startswith(BEST_BY) else ""


def _layer(
    backbone: str,
    names: Sequence[str],
    n: int,
    pooling: str,
    top: float,
    rng: np.random.Generator,
) -> LayerProfile:
    blocks = max([int(x) for x in names if x != "norm"], default=0)
    depth = 1.0 if names[n] == "norm" else int(names[n]) / max(blocks, 1)
    quality = -0.2 * (1 - depth) ** 3 - 0.05 * depth**4
    noise = rng.normal(size=9) * 0.008
    attends = names[n] not in ("0", "norm")
    scores: dict[str, float | None] = {
        "log_loss": 0.42 - 1.2 * quality + noise[0],
        "accuracy": top + quality + noise[1],
        "logme": -0.5 + quality + noise[2],
        "h_score": 0.5 + 2 * quality + 4 * noise[3],
        "fisher": 0.01 * np.exp(8 * quality + 10 * noise[4]),
        "effective_rank": 300 - 200 * depth + 2000 * noise[5],
        "gradient": 10 - 4 * depth + 60 * noise[6],
        "attention_entropy": 0.4 - 0.2 * depth + 8 * noise[7] if attends else None,
        "gradient_entropy": 0.5 + 20 * noise[8] if attends else None,
    }
    scores = {name: None if value is None else float(value) for name, value in scores.items()}
    return LayerProfile(backbone, names[n], pooling, depth, scores, 0.01, 1e8 * n, 1.5 * n)


def _test(layer: LayerProfile) -> Accuracy:
    accuracy = (layer.scores["accuracy"] or 0.5) - 0.01
    return Accuracy(accuracy, accuracy - 0.02, accuracy + 0.02)


def _similarity(layers: Sequence[LayerProfile]) -> list[list[float]]:
    def between(a: LayerProfile, b: LayerProfile) -> float:
        near = float(np.exp(-4 * (a.depth - b.depth) ** 2))
        alike = (1.0 if a.backbone == b.backbone else 0.55) * (
            1.0 if a.pooling == b.pooling else 0.7
        )
        return near * alike

    return [[between(a, b) for b in layers] for a in layers]


def _spearman(
    layers: Sequence[LayerProfile], rng: np.random.Generator
) -> dict[str, dict[str, float | None]]:
    names = [name for name in layers[0].scores if name != "accuracy"]
    found = dict.fromkeys(layer.source for layer in layers)
    return {source: {name: float(rng.uniform(-1, 1)) for name in names} for source in found}


def _pairs(layers: Sequence[LayerProfile]) -> list[ModelPair]:
    first = {layer.backbone: n for n, layer in reversed(list(enumerate(layers)))}
    return [
        ModelPair(a, b, first[a], first[b], 0.28, 0.66, 0.084) for a, b in combinations(first, 2)
    ]


def _selections(layers: Sequence[LayerProfile], *, judged: bool) -> list[SelectionProfile]:
    ranked = sorted(range(len(layers)), key=lambda n: layers[n].scores["log_loss"] or 9.0)
    names = [name for name in layers[0].scores if layers[ranked[0]].scores[name] is not None]
    taken = {
        "last": [len(layers) - 1],
        **{f"best by {name}": [ranked[n % len(ranked)]] for n, name in enumerate(names)},
        "top_k": ranked[:4],
        "adaptive": ranked[:3],
        "greedy": ranked[:2],
    }
    best = max(layer.test.mean for layer in layers if layer.test) if judged else 0.0
    return [
        _selection(name, places, layers, best, 0.015 * (len(places) - 1), judged=judged)
        for name, places in taken.items()
    ]


def _selection(
    name: str,
    places: list[int],
    layers: Sequence[LayerProfile],
    best: float,
    gain: float,
    *,
    judged: bool,
) -> SelectionProfile:
    reasons = [f"{layers[n].name}: held-out log-loss" for n in places]
    one = SelectionProfile(
        name,
        places,
        reasons,
        ["dropped layer 3"] if len(places) > 1 else [],
        best_by=_best_by(name),
    )
    test = layers[places[0]].test
    last = layers[-1].test
    if not judged or test is None or last is None:
        return one
    accuracy = test.mean + gain
    regret = best - accuracy
    return replace(
        one,
        test=Accuracy(accuracy, accuracy - 0.02, accuracy + 0.02),
        regret=Regret(regret, regret - 0.012, regret + 0.012, regret - 0.006, p=0.25),
        over_last=(accuracy - last.mean, accuracy - last.mean - 0.01, accuracy - last.mean + 0.01),
    )
