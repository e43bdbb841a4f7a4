"""Fits probes of several layers at once for a profile."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from layerfusion.config.job import STRENGTHS
from layerfusion.config.user_code import call_user_code
from layerfusion.errors import UserError, short
from layerfusion.layers.budget import Budget
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.multi_layer import MultiLayerKind, MultiLayerProbe, find_multi_layer
from layerfusion.layers.scores import groups
from layerfusion.progress import steps
from layerfusion.records.profile import MultiLayerProfile

log = logging.getLogger(__name__)

NO_MODEL = "there is no layer of a language model"
"""Why no probe of several layers can be fitted where all sources are lexical."""


@dataclass(frozen=True)
class FittedTogether:
    """A probe of several layers, and what it says of train."""

    places: tuple[int, ...]
    """Positions of its layers among the candidates."""
    probe: MultiLayerProbe
    record: MultiLayerProfile

    @classmethod
    def fit(
        cls,
        kind: MultiLayerKind,
        candidates: Candidates,
        places: Sequence[int],
        strengths: Sequence[float],
    ) -> FittedTogether:
        """Fit a kind of probe on some of the candidates; `strengths` are those to choose among."""
        features = [candidates.features[n] for n in places]
        begun = time.perf_counter()
        rows = candidates.labels, candidates.fold_of, candidates.num_classes
        role = "probe of several layers"
        own = [strengths] if kind.takes_strengths else []
        probe = call_user_code(role, kind.fit, features, *rows, *own)
        if not isinstance(probe, MultiLayerProbe) or len(probe.shares) != len(places):
            raise UserError(
                f"{role} {kind.name}: it gave {short(probe)}; a MultiLayerProbe with a share for"
                f" each of {len(places)} layers is needed"
            )
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
    names: Sequence[str],
    candidates: Candidates,
    budget: Budget,
    strengths: Sequence[float] = STRENGTHS,
) -> list[FittedTogether]:
    """Fit the probes of several layers that `profile.multi_layer` names, on train.

    They see the layers of language models that the budget allows. A probe that adds vectors is
    fitted for each model and pooling, and that with the lowest held-out log-loss counts. A line
    says where the budget does not allow the layers of a probe together, so that it is left out.
    `strengths` are those of single layers, `layers.strengths`, for probes that have a C.
    """
    allowed = set(budget.affordable(candidates.layers))
    places = [
        n
        for n, layer in enumerate(candidates.layers)
        if layer in allowed and layer.backbone in candidates.models
    ]
    found = []
    for kind in map(find_multi_layer, names):
        owned = groups(candidates.layers).values() if kind.same_width else [places]
        sets = [own for every in owned if (own := [int(n) for n in every if n in places])]
        within = [own for own in sets if budget.allows([candidates.layers[n] for n in own])]
        if not within:
            limits = budget.limits()
            why = f"layers.budget ({limits}) allows no such layers together" if limits else NO_MODEL
            log.warning("profile.multi_layer: %s is left out: %s", kind.name, why)
            continue
        told = steps(within, f"models: {kind.name}")
        fitted = [FittedTogether.fit(kind, candidates, own, strengths) for own in told]
        found.append(min(fitted, key=lambda one: one.probe.held_out.log_loss))
    return found
