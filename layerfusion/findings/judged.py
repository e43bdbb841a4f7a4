"""Regrets of selections and scores over many profiles that were judged on test."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from layerfusion.findings.grouping import data_labels, grouped
from layerfusion.records.format import listing
from layerfusion.records.profile import (
    Accuracy,
    MultiLayerProfile,
    Profile,
    SelectionProfile,
)
from layerfusion.statistics.intervals import Difference
from layerfusion.statistics.significance import ALPHA

PROBE = "log_loss"
"""The default score of selections; the other scores are compared with it."""
NEGLIGIBLE = 0.01
"""Largest loss of a score that counts as good as the probe. Its interval has to exclude more."""
NO_LOSS = (
    "Worth their price here, at no more than the probe's and with a loss of more than"
    f" {100 * NEGLIGIBLE:.0f} point ruled out"
)
GAINS = "Worth their price here, as they gain"
UNDECIDED = "Undecided, as no loss shows but one is not ruled out either"
AT_A_LOSS = "Cheaper than the probe, at a loss"
NOTHING_GAINED = "Not worth their price here, as no gain shows"


@dataclass(frozen=True, eq=False)
class NamedProfile:
    """A layer profile with its name: one data set, some models under some poolings."""

    data: str
    """The data set's name; with its fingerprint where several samples share the name."""
    sources: str
    """Models and, unless it is the mean alone, poolings."""
    profile: Profile

    @property
    def label(self) -> str:
        """A name that no other profile of the report has."""
        return f"{self.data}: {self.sources}"

    @property
    def is_judged(self) -> bool:
        """Whether the profile looked at test once all its choices were made."""
        return any(selection.regret for selection in self.profile.selections)

    @property
    def choices(self) -> list[SelectionProfile | MultiLayerProfile]:
        """The judged selections, and the judged probes of several layers."""
        every = [*self.profile.selections, *self.profile.multi_layer]
        return [one for one in every if one.regret]

    def choice(self, name: str) -> SelectionProfile | MultiLayerProfile | None:
        """Find a judged selection, or probe of several layers, by its name."""
        return next((one for one in self.choices if one.name == name), None)

    @property
    def hindsight(self) -> Accuracy | None:
        """What the best single layer in hindsight has on test; None where that is not known."""
        best = self.profile.hindsight
        return None if best is None else self.profile.layers[best].test


@dataclass(frozen=True)
class SelectionRow:
    """A selection, or a probe of several layers, over all profiles that have it."""

    name: str
    regret: Difference
    cross_fitted: float
    over_last: Difference | None
    layers: float
    """Mean number of layers."""
    by_profile: tuple[SelectionProfile | MultiLayerProfile | None, ...]

    @property
    def count(self) -> int:
        """Number of profiles in which the selection was judged."""
        return sum(one is not None for one in self.by_profile)

    @property
    def best_by(self) -> str:
        """The score of which this takes the one best layer; empty for other selections."""
        return next((selection.best_by for selection in self.by_profile if selection), "")

    @property
    def behind(self) -> tuple[int, int] | None:
        """Profiles where some single layer is significantly better, and profiles tested."""
        told = [one.regret.p for one in self.by_profile if one and one.regret]
        tested = [p for p in told if p is not None]
        return (sum(p < ALPHA for p in tested), len(tested)) if tested else None


@dataclass(frozen=True)
class ScoreRow:
    """A score over all profiles that have it."""

    name: str
    spearman: tuple[float, float] | None
    """Mean and lowest rank correlation with probe accuracy over the models of each data set."""
    choice: SelectionRow
    """The selection `best by SCORE`."""
    against: Difference | None
    """Accuracy of its choice less that of the probe's choice; none for the probe itself."""
    seconds: float | None
    """Seconds that the score took, mean over the profiles that know it."""
    dearer: float | None
    """Seconds more than the probe took, mean over the profiles that know both."""

    @property
    def worth(self) -> str:
        """Whether the score is worth its price, in words; nothing where that is not known.

        It is if it costs no more than the probe and does not lose a point, or if it costs more and
        gains; the 95 % intervals decide.
        """
        if self.dearer is None or self.against is None:
            return ""
        verdict = self.against.verdict
        if self.dearer > 0:
            return GAINS if verdict == "gain" else NOTHING_GAINED
        if verdict == "loss":
            return AT_A_LOSS if self.dearer < 0 else NOTHING_GAINED
        return NO_LOSS if self.against.low >= -NEGLIGIBLE else UNDECIDED


def named_profiles(profiles: Sequence[Profile]) -> tuple[NamedProfile, ...]:
    """Sort profiles and give them names that tell them apart."""
    data = data_labels((x.dataset.name, x.dataset.fingerprint) for x in profiles)
    named = [(data[x.dataset.name, x.dataset.fingerprint], _sources(x), x) for x in profiles]
    seen = Counter((name, sources) for name, sources, _ in named)
    found = []
    for name, sources, profile in named:
        job = f", job {profile.job[:6]}" if seen[name, sources] > 1 else ""
        found.append(NamedProfile(name, f"{sources}{job}", profile))
    return tuple(sorted(found, key=lambda x: (x.data, len(x.profile.backbones), x.sources)))


def selection_rows(judged: Sequence[NamedProfile]) -> tuple[SelectionRow, ...]:
    """Make one row for each selection, by mean regret; those that some profiles lack come last."""
    names = dict.fromkeys(x.name for entry in judged for x in entry.choices)
    rows = [row for name in names if (row := _selection_row(name, judged))]
    return tuple(sorted(rows, key=lambda row: (row.count < len(judged), row.regret.mean)))


def score_rows(
    judged: Sequence[NamedProfile], rows: Sequence[SelectionRow]
) -> tuple[ScoreRow, ...]:
    """Make one row for each score, in the order of the selections that take its best layer."""
    probe = next((row for row in rows if row.best_by == PROBE), None)
    found = []
    for row in rows:
        if name := row.best_by:
            having = [entry for entry, x in zip(judged, row.by_profile, strict=True) if x]
            # 0 in the record stands for not known.
            seconds = [(x.profile.seconds.get(name), x.profile.seconds.get(PROBE)) for x in having]
            more = [a - b for a, b in seconds if a and b]
            found.append(
                ScoreRow(
                    name,
                    _spearman(name, judged),
                    row,
                    _against(row, probe, judged) if probe and name != PROBE else None,
                    _mean([price for price, _ in seconds if price]),
                    _mean(more) if name != PROBE else None,
                )
            )
    return tuple(found)


def mean_over_profiles(
    values: Sequence[tuple[float, float, float]], data: Sequence[str], rows: int
) -> Difference:
    """Average (value, low, high) over profiles, with a 95 % interval of the mean.

    The standard deviation of a profile's value is (high - low) / 3.92, from its paired bootstrap
    over test rows. Profiles of one data set share its test rows, so their errors count as fully
    correlated; data sets are independent: mean ± 1.96 · √(Σ_data (Σ_profiles sd)²) / n. The
    interval is too wide rather than too narrow. It tells how the mean would change with other test
    rows of the same data sets, not with other data sets or models: there are too few profiles to
    resample them. A single profile keeps its own interval.

    Args:
        values: one for each profile.
        data: the data set of each profile.
        rows: number of different test rows.
    """
    if len(values) == 1:
        return Difference(*values[0], rows)
    mean = math.fsum(value for value, _, _ in values) / len(values)
    together: dict[str, float] = {}
    for name, (_, low, high) in zip(data, values, strict=True):
        together[name] = together.get(name, 0.0) + (high - low) / 2
    half = math.sqrt(math.fsum(one * one for one in together.values())) / len(values)
    return Difference(mean, mean - half, mean + half, rows)


# -- parts --------------------------------------------------------------------------------------


def _sources(profile: Profile) -> str:
    poolings = list(dict.fromkeys(layer.pooling for layer in profile.layers))
    models = listing(list(profile.backbones))
    return models if poolings == ["mean"] else f"{models} ({', '.join(poolings)})"


def _test_rows(judged: Sequence[NamedProfile]) -> int:
    """Count the test rows of the data sets of some profiles, each data set once."""
    return sum({x.data: x.profile.dataset.rows.get("test", 0) for x in judged}.values())


def _selection_row(name: str, judged: Sequence[NamedProfile]) -> SelectionRow | None:
    by_profile = tuple(entry.choice(name) for entry in judged)
    present = [(entry, x) for entry, x in zip(judged, by_profile, strict=True) if x]
    regrets = [x.regret for _, x in present if x.regret]
    if not regrets:
        return None
    rows = _test_rows([entry for entry, _ in present])
    data = [entry.data for entry, _ in present]
    over = [x.over_last for _, x in present if x.over_last]
    return SelectionRow(
        name=name,
        regret=mean_over_profiles([(x.mean, x.low, x.high) for x in regrets], data, rows),
        cross_fitted=fmean(x.cross_fitted for x in regrets),
        over_last=mean_over_profiles(over, data, rows) if len(over) == len(data) else None,
        layers=sum(len(x.layers) for _, x in present) / len(present),
        by_profile=by_profile,
    )


def _against(
    row: SelectionRow, probe: SelectionRow, judged: Sequence[NamedProfile]
) -> Difference | None:
    """Compare the accuracies of two choices, over the profiles that have both.

    The variance of the difference is at most the sum of the variances of the two regrets: on a test
    row both choices differ from the same hindsight layer, hence never to opposite sides, and their
    covariance is not negative (apart from the product of the two regrets). Choices of the same
    layers do not differ at all.
    """
    values, shared = [], []
    for entry, choice, other in zip(judged, row.by_profile, probe.by_profile, strict=True):
        if choice and other and choice.regret and other.regret:
            a, b = choice.regret, other.regret
            same = set(choice.layers) == set(other.layers)
            half = 0.0 if same else math.hypot(a.high - a.low, b.high - b.low) / 2
            mean = 0.0 if same else b.mean - a.mean
            values.append((mean, mean - half, mean + half))
            shared.append(entry)
    data = [entry.data for entry in shared]
    return mean_over_profiles(values, data, _test_rows(shared)) if values else None


def _spearman(name: str, judged: Sequence[NamedProfile]) -> tuple[float, float] | None:
    """Average the rank correlations; a model in several profiles of a data set counts once."""
    found = grouped(
        (
            (entry.data, source, value)
            for entry in judged
            for source, by_score in entry.profile.spearman.items()
            if (value := by_score.get(name)) is not None
        ),
        lambda one: one[:2],
    )
    means = [fmean(value for *_, value in values) for values in found.values()]
    return (fmean(means), min(means)) if means else None


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
