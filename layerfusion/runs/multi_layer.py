"""Fits probes of several layers at once for a profile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from layerfusion.layers.budget import Budget
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.multi_layer import MultiLayerKind, MultiLayerProbe, find_multi_layer
from layerfusion.layers.scores import groups
from layerfusion.records.profile import MultiLayerProfile


@dataclass(frozen=True)
class FittedTogether:
    """A probe of several layers, and what it says of train."""

    places: tuple[int, ...]
    """Positions of its layers among the candidates."""
    probe: MultiLayerProbe
    record: MultiLayerProfile

    @classmethod
    def fit(
        cls, kind: MultiLayerKind, candidates: Candidates, places: Sequence[int]
    ) -> FittedTogether:
        """Fit a kind of probe on some of the candidates."""
        features = [candidates.features[n] for n in places]
        begun = time.perf_counter()
        probe = kind.fit(features, candidates.labels, candidates.fold_of, candidates.num_classes)
        record = MultiLayerProfile(
            name=kind.name,
            layers=list(places),
            shares=list(probe.shares),
            accuracy=probe.held_out.accuracy,
            log_loss=probe.held_out.log_loss,
            strength=probe.held_out.strength,
            seconds=round(time.perf_counter() - begun, 1),
        )
        return cls(tuple(places), probe, record)


def fit_multi_layer_probes(
    names: Sequence[str], candidates: Candidates, budget: Budget
) -> list[FittedTogether]:
    """Fit the probes of several layers that `profile.multi_layer` names, on train.

    They see the layers of language models that the budget allows together. A probe that adds
    vectors is fitted for each model and pooling, and that with the lowest held-out log-loss counts.
    """
    allowed = set(budget.affordable(candidates.layers))
    places = [
        n
        for n, layer in enumerate(candidates.layers)
        if layer in allowed and layer.backbone in candidates.models
    ]
    if not places or not budget.allows([candidates.layers[n] for n in places]):
        return []
    found = []
    for kind in map(find_multi_layer, names):
        sets = [places]
        if kind.same_width:
            owned = groups(candidates.layers).values()
            sets = [own for every in owned if (own := [int(n) for n in every if n in places])]
        fitted = [FittedTogether.fit(kind, candidates, own) for own in sets]
        found.append(min(fitted, key=lambda one: one.probe.held_out.log_loss))
    return found
