"""Finished jobs, grouped by the data they can be compared on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from layerfusion.config.job import HONEST
from layerfusion.errors import UserError, unknown
from layerfusion.findings.choice import Judge, judge_of
from layerfusion.findings.compare import best_chosen
from layerfusion.findings.grouping import data_labels, file_names, grouped
from layerfusion.findings.jobs import PROBE, FinishedJob, measured, numbered_as, read_job
from layerfusion.records.job import (
    METRICS,
    PREDICTIONS,
    DataRecord,
    Estimate,
    ProbeRecord,
    RunRecord,
    find_records,
)
from layerfusion.records.json_files import Damaged, damaged_told, warn_of


@dataclass(frozen=True, eq=False)
class Curve:
    """The layers of one model that were run alone, bottom up.

    Where none was, these are the layers that jobs were compared with.
    """

    label: str
    """The backbone, with what tells the curve from others of the same backbone."""
    backbone: str
    variant: int
    """Number of the curve among those of its backbone; another pooling makes a second one."""
    points: tuple[FinishedJob, ...]

    @property
    def layers(self) -> list[str]:
        """Every layer the model has, bottom up, whether it was run alone or not."""
        return self.points[0].record.backbones[self.backbone].layers

    @property
    def last(self) -> FinishedJob | None:
        """The job on the topmost layer; none where that layer was not run alone."""
        return self.points[-1] if self.points[-1].is_last else None

    @property
    def best(self) -> FinishedJob:
        """The layer that is chosen."""
        return best_chosen(self.points)


@dataclass(frozen=True)
class ProbeCurve:
    """The probes of the layers of one model, bottom up, on rows that they were not fitted on."""

    backbone: str
    pooling: str
    judged_on: str
    points: tuple[ProbeRecord, ...]


@dataclass(frozen=True, eq=False)
class DataGroup:
    """All honest jobs on the same rows, which can therefore be compared."""

    label: str
    """The data set's name; with its fingerprint where several samples share the name."""
    key: str
    """The label as part of a file name or anchor."""
    jobs: tuple[FinishedJob, ...]
    curves: tuple[Curve, ...]
    fused: tuple[FinishedJob, ...]
    """Jobs with more than one layer."""
    repeats: tuple[FinishedJob, ...]
    """Single-layer jobs that are no point of a curve: a selection by score took the layer, or a job
    with other settings stands for it."""
    models: tuple[str, ...]
    """Every backbone of the jobs that were read together, on these rows and on others."""
    test_texts: tuple[str, ...] = ()
    """Texts of the test rows, where the reader of the report asked for them."""

    @property
    def data(self) -> DataRecord:
        """The data, as any of the jobs recorded it."""
        return self.jobs[0].record.dataset

    @cached_property
    def judge(self) -> Judge:
        """What decides between the jobs."""
        return judge_of([job.record for job in self.jobs])

    @property
    def measure(self) -> str:
        """What a reader knows the figure as that the jobs are compared by."""
        return self.jobs[0].measure

    @property
    def rows(self) -> int:
        """Test rows."""
        return len(self.jobs[0].correct)

    @cached_property
    def singles(self) -> tuple[FinishedJob, ...]:
        """All points of all curves."""
        return tuple(job for curve in self.curves for job in curve.points)

    @cached_property
    def chosen(self) -> FinishedJob | None:
        """The single layer that is chosen; none where no layer was run alone."""
        return best_chosen(self.singles) if self.singles else None

    @cached_property
    def probed(self) -> bool:
        """True where no layer was run alone, and the probes of other jobs stand in."""
        return any(job.record.fusion == PROBE for job in self.singles)

    @cached_property
    def probe_curves(self) -> tuple[ProbeCurve, ...]:
        """The probes that selections and stacks have fitted, a curve for each model and pooling.

        Of several jobs the one that probed the most layers counts; on a tie, the chosen one.
        """
        found: dict[tuple[str, str], ProbeCurve] = {}
        for job in (self.best, *self.jobs):
            by_curve = grouped(job.record.probes, lambda one: (one.backbone, one.pooling))
            for key, points in by_curve.items():
                if key not in found or len(points) > len(found[key].points):
                    found[key] = ProbeCurve(*key, job.record.probed_on, tuple(points))
        return tuple(found.values())

    @property
    def model_probes(self) -> tuple[ProbeCurve, ...]:
        """The probes of the layers of models, without those of lexical sources."""
        lexical = {name for job in self.jobs for name in job.record.lexical}
        return tuple(curve for curve in self.probe_curves if curve.backbone not in lexical)

    @property
    def probed_on(self) -> str:
        """The rows that the probes of the curves were judged on, in words."""
        return " and ".join(dict.fromkeys(curve.judged_on for curve in self.probe_curves))

    @cached_property
    def best(self) -> FinishedJob:
        """The job that is chosen among all."""
        return best_chosen(self.jobs)

    @property
    def choosing_scores(self) -> list[Estimate]:
        """The figure of every job that chooses."""
        return [job.choosing_score for job in self.jobs]

    @cached_property
    def chosen_fusion(self) -> FinishedJob | None:
        """The fusion that is chosen; none where nothing was fused."""
        return best_chosen(self.fused) if self.fused else None

    def curve_of(self, job: FinishedJob) -> Curve:
        """Find the curve that a single-layer job is a point of."""
        return next(curve for curve in self.curves if job in curve.points)


def load_groups(runs: Path, damaged: Damaged | None = None) -> tuple[DataGroup, ...]:
    """Read every finished job of the honest protocol and group the jobs by the data they saw.

    Args:
        runs: folder with the jobs, at any depth.
        damaged: takes the jobs that cannot be read; None if that is an error.

    Raises:
        UserError: where there is no finished job, or one cannot be read.
    """
    found = find_records(runs, damaged)
    if not found and not damaged:
        raise no_job(runs)
    return group_jobs(found, damaged)


def one_group(runs: Path, dataset: str | None = None) -> DataGroup:
    """Read the finished jobs on one data set under a folder.

    Args:
        runs: folder with the jobs, at any depth.
        dataset: label of the data set; None if there is only one.

    Raises:
        UserError: where there is no finished job, or no such data set, or several without a label.

    Warns:
        UserWarning: of each job that cannot be read and is left out.
    """
    damaged: Damaged = {}
    groups = {group.label: group for group in load_groups(runs, damaged)}
    warn_of(damaged, left=bool(groups))
    if dataset is None and len(groups) == 1:
        return next(iter(groups.values()))
    if dataset not in groups:
        raise unknown("dataset", dataset, groups)
    return groups[dataset]


def group_jobs(
    found: Iterable[tuple[Path, RunRecord]], damaged: Damaged | None = None
) -> tuple[DataGroup, ...]:
    """Read the predictions of all honest jobs among some, and group the jobs by their data.

    Args:
        found: folder and record of each job; of several folders of one job, the first that can be
            read counts.
        damaged: takes the jobs whose predictions cannot be read; None if that is an error.
    """
    read: dict[str, tuple[Path, FinishedJob]] = {}
    for folder, record in found:
        if record.protocol == HONEST and record.job not in read:
            with damaged_told(folder / PREDICTIONS, damaged):
                read[record.job] = folder, read_job(folder, record)
    by_data: dict[tuple[str, str], list[FinishedJob]] = {}
    for data, own in grouped(read.values(), lambda pair: _data_of(pair[1])).items():
        labels = [numbered_as(job, own[0][1]).target.tobytes() for _, job in own]
        usual = Counter(labels).most_common(1)[0][0]
        for (folder, job), found_labels in zip(own, labels, strict=True):
            with damaged_told(folder / PREDICTIONS, damaged):
                if found_labels != usual:
                    raise UserError(
                        f"{folder / PREDICTIONS}: job {job.record.job} has other test labels than"
                        " other jobs with the same fingerprint of the data"
                    )
                by_data.setdefault(data, []).append(job)
    drawn = [data for data, own in by_data.items() if own[0].record.dataset.per_class is not None]
    labels = data_labels(sorted(by_data), drawn)
    keys = file_names(labels.values(), "data")
    jobs = [job for own in by_data.values() for job in own]
    models = tuple(sorted({name for job in jobs for name in job.record.backbone_names}))
    groups = []
    for (data, label), key in zip(labels.items(), keys, strict=True):
        own = sorted(by_data[data], key=_order)
        judge = judge_of([job.record for job in own])
        own = [measured(numbered_as(job, own[0]), judge.metric, judge.by_folds) for job in own]
        singles = [job for job in own if job.sources == 1]
        probed = [] if any(not job.record.scored for job in singles) else _references(own)
        curves, repeats = _curves(probed or singles)
        if probed:
            curves = tuple(replace(curve, label=f"{curve.label} ({PROBE})") for curve in curves)
            repeats = tuple(singles)
        fused = tuple(job for job in own if job.sources > 1)
        groups.append(DataGroup(label, key, tuple(own), curves, fused, repeats, models))
    return tuple(groups)


def no_job(runs: Path) -> UserError:
    """Say that a folder has nothing to report."""
    return UserError(f"{runs}: no finished job (a folder with {METRICS}) under it")


# -- grouping -----------------------------------------------------------------------------------


def _data_of(job: FinishedJob) -> tuple[str, str]:
    return job.record.dataset.name, job.record.dataset.fingerprint


def _order(job: FinishedJob) -> tuple[object, ...]:
    """Sort by the number of layers, then by content, never by where the folders lie."""
    layers = [(layer.backbone, layer.pooling) for layer in job.record.layers]
    return job.sources, layers, job.level, job.record.fusion_label, job.record.job


def _curves(singles: Sequence[FinishedJob]) -> tuple[tuple[Curve, ...], tuple[FinishedJob, ...]]:
    """Split single layers into curves by (backbone, pooling, operator, spec), and the rest.

    A selection by score that ended in a single layer was not run to look at that layer. It is a
    point of a curve only where no layer was asked for by name.
    """
    asked = [job for job in singles if not job.record.scored] or singles
    by_curve = grouped(asked, _curve_key)
    curves: list[Curve] = []
    for (key, jobs), label in zip(by_curve.items(), _distinct_labels(list(by_curve)), strict=True):
        variant = sum(curve.backbone == key[0] for curve in curves)
        by_layer = grouped(jobs, lambda job: job.layer.layer)
        points = sorted(map(best_chosen, by_layer.values()), key=lambda job: job.level)
        curves.append(Curve(label, key[0], variant, tuple(points)))
    points = {job for curve in curves for job in curve.points}
    repeats = [job for job in singles if job not in asked]
    return tuple(curves), (*repeats, *(job for job in asked if job not in points))


def _references(jobs: Sequence[FinishedJob]) -> list[FinishedJob]:
    """Take the single layers that jobs were compared with, each once.

    They stand in where no layer was run alone. Of several jobs that were compared with the same
    layer, as with other objectives, the one that is chosen counts.
    """
    found: dict[tuple[object, ...], FinishedJob] = {}
    for job in (best_chosen(jobs), *jobs):
        for alone in job.references:
            found.setdefault((*_curve_key(alone), alone.layer.layer), alone)
    return list(found.values())


def _curve_key(job: FinishedJob) -> tuple[str, str, str, str]:
    layer = job.layer
    spec = job.record.backbones[layer.backbone].spec_hash
    return layer.backbone, layer.pooling, job.record.fusion_label, spec


def _distinct_labels(keys: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """Name curves by backbone, and by as much of pooling, operator and spec as they need."""
    labels = []
    for key in keys:
        rivals = [other for other in keys if other[0] == key[0] and other != key]
        parts = []
        for index in (1, 2, 3):
            if any(other[index] != key[index] for other in rivals):
                parts.append(key[index] if index < 3 else f"spec {key[index][:6]}")
                rivals = [other for other in rivals if other[index] == key[index]]
        labels.append(f"{key[0]} ({', '.join(parts)})" if parts else key[0])
    return labels
