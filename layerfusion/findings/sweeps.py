"""Several sweeps on the same rows: what each chose, how that compares, and who leads over all."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from layerfusion.config.job import ACCURACY
from layerfusion.errors import UserError
from layerfusion.findings.choice import metric_words
from layerfusion.findings.compare import best_chosen
from layerfusion.findings.grouping import data_labels, file_names, grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob, numbered_as
from layerfusion.findings.names import read_settings, settings_marks
from layerfusion.findings.results import Results
from layerfusion.findings.settings import setting_text
from layerfusion.findings.tests import Finding, between_sweeps
from layerfusion.records.format import listing
from layerfusion.records.job import DataRecord
from layerfusion.statistics.ranks import Ranking, first_shares, rank_systems

MOST_SETTINGS = 30
"""Most settings of a leaderboard: those with the highest mean on test."""


@dataclass(frozen=True, eq=False)
class Shared:
    """A data set that several sweeps have with the same texts, labels and splits."""

    label: str
    key: str
    """The label as part of a file name or anchor."""
    groups: Mapping[str, DataGroup]
    """Name of each sweep that has it to its jobs there."""

    @cached_property
    def group(self) -> DataGroup:
        """The jobs of the first sweep."""
        return next(iter(self.groups.values()))

    @property
    def data(self) -> DataRecord:
        """The data, as the first sweep recorded it."""
        return self.group.data

    @cached_property
    def metric(self) -> str:
        """The figure that the sweeps are compared by; accuracy where they chose by others."""
        found = {group.judge.metric for group in self.groups.values()}
        return found.pop() if len(found) == 1 else ACCURACY

    @property
    def measure(self) -> str:
        """What a reader knows it as."""
        return metric_words(self.metric, self.data)

    @cached_property
    def chosen(self) -> dict[str, FinishedJob]:
        """What each sweep chose, by its own rule."""
        return {name: self._measured(group.best) for name, group in self.groups.items()}

    @property
    def jobs(self) -> list[FinishedJob]:
        """The jobs of all sweeps."""
        return [self._measured(job) for group in self.groups.values() for job in group.jobs]

    def _measured(self, job: FinishedJob) -> FinishedJob:
        return job if job.metric == self.metric else replace(job, metric=self.metric)


@dataclass(frozen=True, eq=False)
class SideBySide:
    """Several sweeps, and the data sets that they have in common."""

    sweeps: Mapping[str, Results]
    """Name of each sweep to its results."""

    @cached_property
    def shared(self) -> tuple[Shared, ...]:
        """The data sets that at least two sweeps have with the same rows."""
        found = {data: groups for data, groups in self._by_data.items() if len(groups) > 1}
        for groups in found.values():
            _require_same_labels(groups)
        labels = data_labels(found)
        shared = zip(
            labels.values(), file_names(labels.values(), "data"), found.values(), strict=True
        )
        return tuple(Shared(*one) for one in sorted(shared, key=lambda one: one[0]))

    @property
    def in_all(self) -> list[Shared]:
        """The data sets that every sweep has, with one sample of each."""
        return one_sample_each(x for x in self.shared if len(x.groups) == len(self.sweeps))

    @cached_property
    def alone(self) -> dict[str, list[tuple[str, DataGroup]]]:
        """Name of each data set to the sweeps whose rows of it no other sweep has."""
        found = [
            (data[0], *pair)
            for data, groups in self._by_data.items()
            if len(groups) == 1
            for pair in groups.items()
        ]
        by_name = grouped(sorted(found, key=lambda one: one[:2]), lambda one: one[0])
        return {name: [one[1:] for one in own] for name, own in by_name.items()}

    @cached_property
    def findings(self) -> dict[tuple[Shared, str, str], Finding]:
        """Every comparison of two choices on a data set, by the two sweeps, the later one first."""
        pairs = [
            (data, later, earlier)
            for data in self.shared
            for earlier, later in itertools.combinations(data.groups, 2)
        ]
        found = between_sweeps([(data.chosen[a], data.chosen[b]) for data, a, b in pairs])
        return dict(zip(pairs, found, strict=True))

    def wins(self, sweep: str) -> tuple[int, int]:
        """Count the comparisons in which the choice of a sweep is better, and probably better."""
        verdicts = [
            ("gain" if sweep == later else "loss", finding)
            for (_, later, earlier), finding in self.findings.items()
            if sweep in (later, earlier)
        ]
        sure = sum(finding.verdict == wins for wins, finding in verdicts)
        return sure, sum(finding.lean == wins != finding.verdict for wins, finding in verdicts)

    @property
    def chosen_by(self) -> list[DataGroup]:
        """The jobs on the shared data, each with the figure that its sweep chose by."""
        return [group for data in self.shared for group in data.groups.values()]

    @property
    def data(self) -> list[DataRecord]:
        """The data that the sweeps share, as each of them recorded it."""
        return [one.data for data in self.shared for one in data.groups.values()]

    @cached_property
    def _by_data(self) -> dict[tuple[str, str], dict[str, DataGroup]]:
        found: dict[tuple[str, str], dict[str, DataGroup]] = {}
        for name, results in self.sweeps.items():
            for group in _whole(results.groups):
                key = group.data.name, group.data.fingerprint
                found.setdefault(key, {})[name] = group
        return found


def of_one_folder(groups: Iterable[DataGroup]) -> list[Shared]:
    """Take the data sets of one folder as those of a single sweep, one sample of each."""
    return one_sample_each(Shared(group.label, group.key, {"": group}) for group in _whole(groups))


def one_sample_each(data: Iterable[Shared]) -> list[Shared]:
    """Keep one sample of each data set, the largest: ranks take data sets as independent."""
    found: dict[str, Shared] = {}
    for one in sorted(data, key=lambda one: (sum(one.data.rows.values()), one.key)):
        found[one.data.name] = one
    return sorted(found.values(), key=lambda one: one.label)


def _whole(groups: Iterable[DataGroup]) -> list[DataGroup]:
    """Leave out the samples of a learning curve, which are many of one data set."""
    return [group for group in groups if group.data.per_class is None]


def _require_same_labels(groups: Mapping[str, DataGroup]) -> None:
    """Refuse predictions that cannot be paired although their data have the same fingerprint.

    Raises:
        UserError: where the test labels of two sweeps differ.
    """
    first, *others = (group.jobs[0] for group in groups.values())
    for name, job in zip(list(groups)[1:], others, strict=True):
        if not np.array_equal(numbered_as(job, first).target, first.target):
            raise UserError(
                f"{job.folder}: other test labels of {groups[name].label} than {first.folder}, with"
                " the same fingerprint of the data; one of the two is damaged, run it again"
            )


# -- who leads over the data sets ---------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Systems that ran on every one of several data sets, ranked by their figures on test."""

    jobs: Mapping[str, Sequence[FinishedJob]]
    """Name of each system to its job on each data set."""
    data: Sequence[Shared]

    @property
    def names(self) -> list[str]:
        """Names of the systems. The rankings number them in this order."""
        return list(self.jobs)

    @cached_property
    def scores(self) -> np.ndarray:
        """Test figures. Shape: (data sets, systems)."""
        return np.array([[job.score.mean for job in own] for own in self.jobs.values()]).T

    @cached_property
    def ranking(self) -> Ranking:
        """The mean ranks, and which systems cannot be told apart."""
        return rank_systems(self.scores)

    @cached_property
    def first(self) -> np.ndarray:
        """Share of resampled seeds with which each has the best mean rank. Shape: (systems,)."""
        sets = range(len(self.data))
        return first_shares([[seeds_of(own[n]) for own in self.jobs.values()] for n in sets])


def seeds_of(job: FinishedJob) -> list[float]:
    """List the test figures of the seeds of a job."""
    return [seed.test[job.metric] for seed in job.record.seeds]


def common_settings(common: Sequence[Shared]) -> dict[str, list[FinishedJob]]:
    """Find the settings that some sweep ran on every data set, with their jobs.

    Jobs of one name that differ in a setting, such as the width of their heads, are told apart by
    it. Where no setting tells them apart it is the chosen one, and the name says of how many.
    """
    by_data = _told_apart([data.jobs for data in common])
    everywhere = [name for name in by_data[0] if all(name in jobs for jobs in by_data)]
    found = {name: [best_chosen(jobs[name]) for jobs in by_data] for name in everywhere}
    means = {name: float(np.mean([x.score.mean for x in jobs])) for name, jobs in found.items()}
    kept = sorted(found, key=lambda name: (-means[name], name))[:MOST_SETTINGS]
    return {name: found[name] for name in kept}


def _told_apart(jobs: Sequence[Sequence[FinishedJob]]) -> list[dict[str, list[FinishedJob]]]:
    """Name the settings of the jobs on each data set, by what differs on some data set.

    Returns:
        For each data set, name to the jobs of that name there.
    """
    named = [grouped(own, _setting) for own in jobs]
    found: list[dict[str, list[FinishedJob]]] = [{} for _ in jobs]
    for name in dict.fromkeys(name for own in named for name in own):
        same = [own.get(name, []) for own in named]
        settings = {job: _settings(job) for own in same for job in own}
        apart = [
            key
            for key in dict.fromkeys(key for one in settings.values() for key in one)
            if any(len({str(settings[job].get(key)) for job in own}) > 1 for own in same)
        ]

        told = {
            job: settings_marks({key: own[key] for key in apart if key in own})
            for job, own in settings.items()
        }
        title = {job: f"{name} ({', '.join(own)})" if own else name for job, own in told.items()}
        by_words = [grouped(own, title.__getitem__) for own in same]
        for words in dict.fromkeys(words for own in by_words for words in own):
            most = max(len({job.record.job for job in own.get(words, ())}) for own in by_words)
            many = f" (the chosen of up to {most} jobs)" if most > 1 else ""
            for place, own in zip(found, by_words, strict=True):
                if words in own:
                    place[words + many] = own[words]
    return found


def _settings(job: FinishedJob) -> dict[tuple[str, str], object]:
    """Return the settings of a job that its name leaves out, by model, if of one, and key."""
    record = job.record
    seeds = {"seeds": len(record.seeds), "seed": min(one.seed for one in record.seeds)}
    whole = {**record.settings, **seeds}
    texts = {("", key): setting_text(value) for key, value in whole.items()}
    return texts | {key: value for key, value in read_settings(job).items() if key[0]}


def _setting(job: FinishedJob) -> str:
    """Name the models, the selection and the fusion of a job, whatever its data set."""
    record = job.record
    models = list(record.considered) or list(record.backbone_names)
    what = record.selection
    if what == "fixed":
        what = ", ".join(f"{layer.backbone} {layer.layer}" for layer in record.layers)
    else:
        what = f"{what} of {listing(models)}"
    poolings = list(dict.fromkeys(layer.pooling for layer in record.layers))
    pooled = "" if poolings == ["mean"] else f", {listing(poolings)}"
    fusion = record.chosen_by or record.fusion
    return f"{what}{pooled}, {fusion}"
