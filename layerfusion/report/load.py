"""Finished jobs, grouped by the data they can be compared on."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from layerfusion.config import PLAIN
from layerfusion.errors import UserError
from layerfusion.protocol import HONEST
from layerfusion.report.compare import best_on_validation
from layerfusion.runs.record import PREDICTIONS, DataRecord, LayerRecord, RunRecord, find_records
from layerfusion.runs.significance import consensus

COLUMNS = ("seed", "row", "target", "pred", "prob")
FLOOR = "floor"
"""A column that predictions made before it lack."""


@dataclass(frozen=True, eq=False)
class Job:
    """A finished job and how often it was right on each test row.

    Accuracies are means over the seeds, as is `correct`. Significance tests need one answer a row
    and take the `consensus`, which is another system than the mean of the seeds, and mostly a
    little better.
    """

    record: RunRecord
    target: np.ndarray
    """Labels of the test rows. Shape: (rows,)."""
    correct: np.ndarray
    """Share of the seeds that were right on a row. Shape: (rows,)."""
    consensus: np.ndarray
    """Whether the class of the highest mean probability over the seeds is right. Shape: (rows,)."""
    floor: np.ndarray | None = None
    """Whether the floor is right on a row; none where an older job did not keep it. Shape: (rows,).
    """

    @property
    def sources(self) -> int:
        """How many layers it fuses: K."""
        return len(self.record.layers)

    @property
    def layer(self) -> LayerRecord:
        """The first layer; of a single-layer job, its only one."""
        return self.record.layers[0]

    @property
    def level(self) -> int:
        """Position of `layer` among the layers of its model, bottom up."""
        return self.record.backbones[self.layer.backbone].layers.index(self.layer.layer)

    @property
    def is_last(self) -> bool:
        """Whether `layer` is the topmost one of its model."""
        return self.level == len(self.record.backbones[self.layer.backbone].layers) - 1


@dataclass(frozen=True, eq=False)
class Curve:
    """The layers of one model that were run alone, bottom up."""

    label: str
    """The backbone, and whatever sets it apart from other curves of the same backbone."""
    backbone: str
    variant: int
    """0 for the first curve of a backbone, 1 for the next (another pooling, for example)."""
    points: tuple[Job, ...]

    @property
    def layers(self) -> list[str]:
        """Every layer the model has, bottom up, whether it was run alone or not."""
        return self.points[0].record.backbones[self.backbone].layers

    @property
    def last(self) -> Job | None:
        """The job on the topmost layer, where there is one."""
        return self.points[-1] if self.points[-1].is_last else None

    @property
    def best(self) -> Job:
        """The layer that validation chooses."""
        return best_on_validation(self.points)


@dataclass(frozen=True, eq=False)
class DataGroup:
    """All honest jobs that saw the same rows, hence can be compared."""

    label: str
    """The data set's name; with its fingerprint where several samples share the name."""
    key: str
    """The label as part of a file name or anchor."""
    jobs: tuple[Job, ...]
    curves: tuple[Curve, ...]
    fused: tuple[Job, ...]
    """Jobs with more than one layer."""
    repeats: tuple[Job, ...]
    """Single-layer jobs that are no point of a curve: a selection by score took the layer, or the
    curve shows it by another job (other settings)."""

    @property
    def data(self) -> DataRecord:
        """The data, as any of the jobs recorded it."""
        return self.jobs[0].record.dataset

    @property
    def rows(self) -> int:
        """Test rows."""
        return len(self.jobs[0].correct)

    @property
    def singles(self) -> tuple[Job, ...]:
        """All points of all curves."""
        return tuple(job for curve in self.curves for job in curve.points)

    @property
    def chosen(self) -> Job | None:
        """The single layer that validation chooses, where any was run alone."""
        return best_on_validation(self.singles) if self.singles else None

    def curve_of(self, job: Job) -> Curve:
        """The curve that a single-layer job is a point of."""
        return next(curve for curve in self.curves if job in curve.points)


def load_groups(runs: Path, only: Collection[str] | None = None) -> tuple[DataGroup, ...]:
    """Read every finished job of the honest protocol and group the jobs by the data they saw.

    Args:
        runs: the folder.
        only: hashes of the jobs to read; all where None.

    Raises:
        UserError: where there is no finished job, or one lacks its predictions.
    """
    by_data: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for folder, record in finished(runs, only):
        if record.protocol == HONEST:
            data = record.dataset
            by_data[data.name, data.fingerprint].append(read_job(folder, record))
    labels = _labels(sorted(by_data))
    keys = _file_names(labels.values())
    return tuple(
        _group(label, key, by_data[identity])
        for (identity, label), key in zip(labels.items(), keys, strict=True)
    )


def finished(runs: Path, only: Collection[str] | None = None) -> list[tuple[Path, RunRecord]]:
    """Folder and record of every finished job under a folder, each job once, of any protocol.

    Raises:
        UserError: where there is none.
    """
    found = find_records(runs) if runs.is_dir() else []
    if not found:
        raise UserError(f"{runs}: no finished job (a folder with metrics.json) under it")
    unique: dict[str, tuple[Path, RunRecord]] = {}
    for folder, record in found:
        if only is None or record.job in only:
            unique.setdefault(record.job, (folder, record))
    return list(unique.values())


def read_job(folder: Path, record: RunRecord) -> Job:
    """Read a job's predictions, by seed and row, and settle where they are right.

    Raises:
        UserError: where the file is missing or does not fit the record.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        raise UserError(f"{path}: missing; run job {record.job} again (remove its folder first)")
    try:
        kept = FLOOR in pq.read_schema(path).names
        table = pq.read_table(path, columns=[*COLUMNS, FLOOR] if kept else list(COLUMNS))
    except (pa.ArrowException, OSError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path}: not a table with the columns {COLUMNS} ({line})") from error
    if not set(COLUMNS) <= set(table.column_names):
        raise UserError(f"{path}: found columns {table.column_names}, needed {list(COLUMNS)}")
    seed, row, target, pred = (table.column(name).to_numpy() for name in COLUMNS[:4])
    rows, seeds = record.dataset.rows["test"], len(record.seeds)
    counts = np.bincount(row, minlength=rows)
    if len(counts) != rows or not (counts == seeds).all() or len(np.unique(seed)) != seeds:
        raise UserError(
            f"{path}: {len(row)} predictions, expected one for each of {rows} test rows and"
            f" {seeds} seeds"
        )
    labels = np.empty(rows, dtype=np.int64)
    labels[row] = target
    right = np.bincount(row, weights=pred == target, minlength=rows) / seeds
    classes = len(record.dataset.label_names)
    prob = table.column("prob").combine_chunks()
    if not pa.types.is_fixed_size_list(prob.type) or prob.type.list_size != classes:
        raise UserError(
            f"{path}: prob is {prob.type}, expected the probabilities of {classes} classes"
        )
    by_seed = np.lexsort((row, seed))
    probabilities = prob.flatten().to_numpy().reshape(-1, classes)[by_seed]
    agreed = consensus(probabilities.reshape(seeds, rows, classes)) == labels
    floor = None
    if kept:
        floor = np.zeros(rows, dtype=bool)
        floor[row] = table.column(FLOOR).to_numpy() == target
    return Job(record, labels, right, agreed, floor)


# -- grouping -----------------------------------------------------------------------------------


def _group(label: str, key: str, jobs: Sequence[Job]) -> DataGroup:
    for job in jobs:
        if not np.array_equal(job.target, jobs[0].target):
            raise UserError(
                f"{label}: jobs {jobs[0].record.job} and {job.record.job} have the same"
                " fingerprint but other test labels"
            )
    jobs = sorted(jobs, key=_order)
    curves, repeats = _curves([job for job in jobs if job.sources == 1])
    fused = tuple(job for job in jobs if job.sources > 1)
    return DataGroup(label, key, tuple(jobs), curves, fused, repeats)


def _order(job: Job) -> tuple[object, ...]:
    """Independent of where the folders lie: few layers first, then by content."""
    layers = [(layer.backbone, layer.pooling) for layer in job.record.layers]
    return job.sources, layers, job.level, job.record.fusion, job.record.job


def _curves(singles: Sequence[Job]) -> tuple[tuple[Curve, ...], tuple[Job, ...]]:
    """Curves by (backbone, pooling, operator, spec), and the jobs that are no point of one.

    A selection by score that settled on one layer is no look at that layer, so where layers were
    asked for by name it is left out of the curves.
    """
    by_curve: dict[tuple[str, str, str, str], dict[str, list[Job]]] = {}
    asked = [job for job in singles if job.record.selection in PLAIN] or list(singles)
    for job in asked:
        by_curve.setdefault(_curve_key(job), defaultdict(list))[job.layer.layer].append(job)
    curves: list[Curve] = []
    repeats = [job for job in singles if job not in asked]
    labels = _distinct_labels(list(by_curve))
    for (key, by_layer), label in zip(by_curve.items(), labels, strict=True):
        variant = sum(curve.backbone == key[0] for curve in curves)
        points = [best_on_validation(jobs) for jobs in by_layer.values()]
        repeats += [job for jobs in by_layer.values() for job in jobs if job not in points]
        points.sort(key=lambda job: job.level)
        curves.append(Curve(label, key[0], variant, tuple(points)))
    return tuple(curves), tuple(repeats)


def _curve_key(job: Job) -> tuple[str, str, str, str]:
    layer = job.layer
    spec = job.record.backbones[layer.backbone].spec_hash
    return layer.backbone, layer.pooling, job.record.fusion, spec


def _distinct_labels(keys: Sequence[tuple[str, str, str, str]]) -> list[str]:
    """The backbone, followed by no more of pooling, operator and spec than tells keys apart."""
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


def _labels(identities: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Label by (name, fingerprint): the name, and what tells it from its namesakes."""
    names = Counter(name for name, _ in identities)
    return {
        (name, fingerprint): f"{name} (data {fingerprint[:8]})" if names[name] > 1 else name
        for name, fingerprint in identities
    }


def _file_names(labels: Iterable[str]) -> list[str]:
    """Labels as distinct lower-case file names."""
    names: list[str] = []
    for label in labels:
        base = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "data"
        name, count = base, 1
        while name in names:
            count += 1
            name = f"{base}-{count}"
        names.append(name)
    return names
