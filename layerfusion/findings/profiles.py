"""Findings from a layer profile: its sources, its scores and their best layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

from layerfusion.findings.grouping import grouped
from layerfusion.records.profile import LayerProfile, Profile

ADAPTIVE = "adaptive"
"""The selection whose layers the figures mark."""


def sources(profile: Profile) -> dict[str, list[int]]:
    """Map each source (a model under a pooling) to the positions of its layers, bottom up."""
    return grouped(range(len(profile.layers)), lambda place: profile.layers[place].source)


def score_names(profile: Profile) -> list[str]:
    """List the scores that some layer has, accuracy and log-loss of the probe first."""
    found = dict.fromkeys(name for layer in profile.layers for name in layer.scores)
    first = [name for name in ("accuracy", "log_loss") if name in found]
    return [*first, *(name for name in found if name not in first)]


def low_is_good(profile: Profile, score: str) -> bool:
    """Tell whether the best layer has the lowest value of a score."""
    return score in profile.score_facts and profile.score_facts[score].low_is_good


def best_place(profile: Profile, score: str, places: Sequence[int]) -> int | None:
    """Find the layer that a score ranks first; the lower one of equals, none without a value."""
    sign = 1 if low_is_good(profile, score) else -1
    values = [(profile.layers[place].scores.get(score), place) for place in places]
    scored = [(sign * value, place) for value, place in values if value is not None]
    return min(scored)[1] if scored else None


def ranks(values: Sequence[float | None], *, low_is_good: bool) -> np.ndarray:
    """Rank values, 1 the best; equals share the mean of theirs, NaN stands where there is none.

    Returns:
        The ranks. Shape: (values,).
    """
    signed = np.array([np.nan if value is None else float(value) for value in values])
    return rankdata(signed if low_is_good else -signed, nan_policy="omit")


def best_and_last(profile: Profile) -> list[tuple[str, LayerProfile | None, LayerProfile]]:
    """Find the best layer by held-out accuracy, if any, and the last layer of each source."""
    found = []
    for source, places in sources(profile).items():
        best = best_place(profile, "accuracy", places)
        layer = None if best is None else profile.layers[best]
        found.append((source, layer, profile.layers[places[-1]]))
    return found


def lead(best: LayerProfile | None, last: LayerProfile) -> float | None:
    """Held-out accuracy of the best layer less that of the last one."""
    high, low = (layer.scores.get("accuracy") if layer else None for layer in (best, last))
    return None if high is None or low is None else high - low


def missing_scores(profile: Profile) -> list[str]:
    """Say which scores some layers lack, or all of them, and why: one sentence for each reason."""
    given = {name for layer in profile.layers for name in layer.scores}
    by_reason = grouped(profile.missing, lambda name: profile.missing[name])
    return [
        f"No {' or '.join(some)}{' of some layers' if given & set(some) else ''}: {why}."
        for why, some in by_reason.items()
    ]


def marked_layers(profile: Profile) -> set[int]:
    """Positions of the layers that the selection `adaptive` takes: those that figures mark."""
    return {place for x in profile.selections if x.name == ADAPTIVE for place in x.layers}
