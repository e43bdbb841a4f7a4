"""A finished job as the report sees it: its record, and where its predictions are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from layerfusion.assets.memo import sha256
from layerfusion.config.job import ACCURACY
from layerfusion.errors import UserError
from layerfusion.findings.choice import metric_words
from layerfusion.records.job import (
    PREDICTIONS,
    BaselineRecord,
    CostRecord,
    Estimate,
    LayerRecord,
    ReferenceRecord,
    RunRecord,
)
from layerfusion.statistics.answers import consensus, right_rows
from layerfusion.statistics.f1 import f1_of_rows
from layerfusion.statistics.intervals import bootstrap_interval

COLUMNS = ("seed", "row", "target", "pred")
PROBABILITIES = "prob"
PROBE = "probe"
"""Fusion of a single layer that a job was compared with: what a stack has for one layer."""
TEXT = "text"
"""Column of the first row of test that has the same text; older files lack it."""
BASELINE = ("baseline", "floor")
"""Column of the baseline's predictions, and its name in older files; still older ones lack it."""


@dataclass(frozen=True, eq=False)
class FinishedJob:
    """A finished job and how often it was right on each test row.

    Accuracies are means over the seeds, as is `correct`. Significance tests need one answer a row.
    They take the `consensus` of the seeds, which is mostly a little more accurate than their mean.
    """

    record: RunRecord
    target: np.ndarray
    """Labels of the test rows. Shape: (rows,), or (rows, labels) where a row has several: true
    where it has the label."""
    correct: np.ndarray
    """Share of the seeds that were right on a row. Shape: (rows,). Of several labels, all have to
    be right, here and below."""
    consensus: np.ndarray
    """True where the answer of the mean probabilities over seeds is right. Shape: (rows,)."""
    baseline: np.ndarray | None = None
    """True where the baseline is right; None for older jobs, which did not keep its answers.
    Shape: (rows,)."""
    folder: Path | None = None
    by_folds: bool = False
    """True where the jobs on these data are chosen by folds of train: see `findings.choice`."""
    metric: str = ACCURACY
    """The figure that the jobs on these data are compared by: see `findings.choice.metric_of`."""
    references: tuple[FinishedJob, ...] = ()
    """The single layers that the job was compared with, each as a job of its own."""
    preds: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """Answers of each seed. Shape: (seeds, rows), or (seeds, rows, labels)."""
    baseline_preds: np.ndarray | None = None
    """Answers of the baseline, where they were kept. Shape: (rows,), or (rows, labels)."""
    text_of: np.ndarray | None = None
    """Number of the text of each test row; None for older jobs, whose rows are taken to have
    different texts. Shape: (rows,)."""

    @property
    def sources(self) -> int:
        """Number of layers that the job fuses: K."""
        return len(self.record.layers)

    @property
    def measure(self) -> str:
        """What a reader knows `metric` as."""
        return metric_words(self.metric, self.record.dataset)

    @property
    def score(self) -> Estimate:
        """Accuracy on test, or the F1 that the jobs are compared by."""
        return self.record.test[self.metric]

    @property
    def baseline_score(self) -> Estimate:
        """The same figure of the baseline."""
        return baseline_estimates(self.record.baseline)[self.metric]

    @property
    def rows_score(self) -> np.ndarray:
        """A number for each test row, whose mean is `score`. Shape: (rows,)."""
        if self.metric == ACCURACY:
            return self.correct
        return f1_of_rows(self.metric, self.target, self.preds)

    @property
    def choosing(self) -> Mapping[str, Estimate]:
        """Figures by which it is chosen, with log-loss: on validation, or on folds of train.

        Those of a single layer that a job was compared with are its probe's, on held-out rows.
        """
        folds = self.record.on_folds
        return folds.figures if self.by_folds and folds else self.record.validation

    @property
    def choosing_score(self) -> Estimate:
        """The one of these figures that chooses; of a probe only its accuracy is known."""
        return self.choosing.get(self.metric, self.choosing["accuracy"])

    @property
    def flops(self) -> float | None:
        """FLOPs of all models for one text, each up to its highest layer; None where unknown."""
        return self.record.flops_per_text

    @property
    def layer(self) -> LayerRecord:
        """The first layer, which is the only one of a single-layer job."""
        return self.record.layers[0]

    @property
    def level(self) -> int:
        """Position of `layer` among the layers of its model, bottom up."""
        return self.record.backbones[self.layer.backbone].layers.index(self.layer.layer)

    @property
    def is_last(self) -> bool:
        """Tell whether `layer` is the topmost one of its model."""
        return self.level == len(self.record.backbones[self.layer.backbone].layers) - 1


@dataclass(frozen=True, eq=False)
class JobPredictions:
    """What the heads of a job said of the test rows.

    Where rows have several labels, labels and answers have one more axis: they are true where a row
    has the label, or is said to have it.
    """

    target: np.ndarray
    """Labels. Shape: (rows,), or (rows, labels)."""
    preds: np.ndarray
    """Answers of each seed. Shape: (seeds, rows), or (seeds, rows, labels)."""
    probabilities: np.ndarray
    """Shape: (seeds, rows, classes)."""
    baseline: np.ndarray | None
    """Answers of the baseline; None for older jobs, which did not keep them. Shape: (rows,), or
    (rows, labels)."""
    references: Mapping[str, np.ndarray]
    """Answers of the single layers that the job was compared with, by column, in the shape of the
    labels."""
    text_of: np.ndarray | None
    """Number of the text of each row; None for older jobs, which did not keep it. Shape:
    (rows,)."""

    @property
    def multilabel(self) -> bool:
        """True where a row has any number of the labels."""
        return self.target.ndim == 2

    @property
    def mean(self) -> np.ndarray:
        """Mean probabilities over the seeds. Shape: (rows, classes), float64."""
        return self.probabilities.mean(axis=0, dtype=np.float64)


def read_job(folder: Path, record: RunRecord) -> FinishedJob:
    """Read a job's predictions, by seed and row, and see where they are right.

    Raises:
        UserError: where the file is missing or does not fit the record.
    """
    read = read_predictions(folder, record)
    answer = consensus(read.probabilities, multilabel=read.multilabel)
    right = None if read.baseline is None else right_rows(read.baseline, read.target)
    correct = right_rows(read.preds, read.target).mean(axis=0)
    references = tuple(_reference(record, one, read, right) for one in record.references)
    return FinishedJob(
        _without_empty_intervals(record, correct, right, read),
        read.target,
        correct,
        right_rows(answer, read.target),
        right,
        folder,
        references=references,
        preds=read.preds,
        baseline_preds=read.baseline,
        text_of=read.text_of,
    )


def numbered_as(job: FinishedJob, other: FinishedJob) -> FinishedJob:
    """Give a job's labels and answers the numbers of another job on the same data.

    Labels of one fingerprint may stand in another order. Where they are other labels, the job is
    returned as it is.
    """
    own, names = job.record.dataset.label_names, other.record.dataset.label_names
    if own == names or sorted(own) != sorted(names):
        return job
    places = [own.index(name) for name in names]
    numbers = np.array([names.index(name) for name in own])

    def renumbered(labels: np.ndarray) -> np.ndarray:
        return labels[..., places] if job.target.ndim == 2 else numbers[labels]

    baseline = job.baseline_preds
    return replace(
        job,
        target=renumbered(job.target),
        preds=renumbered(job.preds),
        baseline_preds=None if baseline is None else renumbered(baseline),
        references=tuple(numbered_as(one, other) for one in job.references),
    )


def measured(job: FinishedJob, metric: str, by_folds: bool) -> FinishedJob:
    """Compare a job, and its single layers, by a metric and on the rows that choose."""
    references = tuple(replace(one, metric=metric) for one in job.references)
    return replace(job, metric=metric, by_folds=by_folds, references=references)


def read_predictions(folder: Path, record: RunRecord) -> JobPredictions:
    """Read a job's predictions, by seed and row.

    Raises:
        UserError: where the file is missing or does not fit the record.
    """
    path = folder / PREDICTIONS
    if not path.is_file():
        raise UserError(f"{path}: missing; run job {record.job} again (remove its folder first)")
    content = path.read_bytes()
    if record.files.get(PREDICTIONS, sha256(content)) != sha256(content):
        raise UserError(
            f"{path}: it has changed since job {record.job} wrote it; the same command as before"
            " runs the job again"
        )
    table = _table(path, content, [one.column for one in record.references])
    rows, seeds = record.dataset.rows["test"], len(record.seeds)
    classes = len(record.dataset.label_names)
    names = table.column_names[:-1]
    seed, row = (_whole_numbers(path, table, name) for name in names[:2])
    order = np.lexsort((row, seed))
    if len(row) != seeds * rows or len(np.unique(seed)) != seeds or not (
        row[order].reshape(seeds, rows) == np.arange(rows)
    ).all():  # fmt: skip
        raise UserError(
            f"{path}: {len(row)} predictions, expected one for each of {rows} test rows and"
            f" {seeds} seeds"
        )
    text_of = None
    if TEXT in names:
        text_of = _whole_numbers(path, table, names.pop(names.index(TEXT)))[order][:rows]
    read = _sets if record.dataset.multilabel else _classes
    answers = {name: read(path, table, name, classes)[order] for name in names[2:]}
    by_name = {name: one.reshape(seeds, rows, *one.shape[1:]) for name, one in answers.items()}
    target, pred = by_name["target"], by_name["pred"]
    if (target != target[0]).any():
        raise UserError(f"{path}: the label of a test row is not the same for all seeds")
    shares = _lists(path, table, PROBABILITIES, f"the probabilities of {classes} classes", classes)
    if not pa.types.is_floating(shares.type) or shares.null_count:
        raise UserError(f"{path}: {PROBABILITIES} is not a number everywhere")
    probabilities = shares.to_numpy().reshape(-1, classes)[order].reshape(seeds, rows, classes)
    baseline = next((by_name[name][0] for name in BASELINE if name in by_name), None)
    references = {one.column: by_name[one.column][0] for one in record.references}
    return JobPredictions(target[0], pred, probabilities, baseline, references, text_of)


def _reference(
    record: RunRecord,
    one: ReferenceRecord,
    read: JobPredictions,
    baseline: np.ndarray | None,
) -> FinishedJob:
    """Make a job of a single layer that another job was compared with."""
    alone = replace(
        record,
        job=f"{record.job}-{one.column}",
        backbones={one.layer.backbone: one.backbone},
        layers=[one.layer],
        selection="fixed",
        looked_at_labels=False,
        fusion=PROBE,
        chosen_by="",
        seeds=record.seeds[:1],
        validation=one.validation,
        test=one.test,
        cost=CostRecord(one.head_parameters, None, None, one.head_flops),
        gates=None,
        candidates=[],
        pilot=None,
        recipe="",
        references=[],
        on_folds=None,
        settings={},
    )
    answer = read.references[one.column]
    right = right_rows(answer, read.target)
    return FinishedJob(
        alone,
        read.target,
        right.astype(float),
        right,
        baseline,
        preds=answer[None],
        baseline_preds=read.baseline,
        text_of=read.text_of,
    )


def baseline_estimates(baseline: BaselineRecord) -> dict[str, Estimate]:
    """The metrics of the baseline on test, in the form of those of a job."""
    intervals = {
        "accuracy": (baseline.low, baseline.high),
        "macro_f1": (baseline.macro_f1_low, baseline.macro_f1_high),
        "micro_f1": (baseline.micro_f1_low, baseline.micro_f1_high),
    }
    return {
        name: Estimate(value, None, *intervals.get(name, (None, None)))
        for name, value in baseline.test.items()
    }


def _without_empty_intervals(
    record: RunRecord, correct: np.ndarray, baseline: np.ndarray | None, read: JobPredictions
) -> RunRecord:
    """Replace intervals without width, which older versions gave where no resample could differ."""
    test, target, text_of = dict(record.test), read.target, read.text_of
    empty = [name for name, one in test.items() if one.low is not None and one.low == one.high]
    for name in empty:
        accuracy = name == "accuracy"
        ends = bootstrap_interval(correct, target, text_of=text_of) if accuracy else (None, None)
        test[name] = replace(test[name], low=ends[0], high=ends[1])
    floor = record.baseline
    if floor.low == floor.high and baseline is not None:
        low, high = bootstrap_interval(baseline.astype(float), target, text_of=text_of)
        floor = replace(floor, low=low, high=high)
    if floor.macro_f1_low is not None and floor.macro_f1_low == floor.macro_f1_high:
        floor = replace(floor, macro_f1_low=None, macro_f1_high=None)
    return replace(record, test=test, baseline=floor)


def _table(path: Path, content: bytes, more: Sequence[str]) -> pa.Table:
    """Read the columns of predictions, those that older jobs lack where they are, and some more."""
    columns = [*COLUMNS, PROBABILITIES]
    try:
        names = pq.read_schema(pa.BufferReader(content)).names
        kept = [name for name in BASELINE if name in names]
        texts = [TEXT] if TEXT in names else []
        columns[-1:-1] = [*texts, *kept[:1], *more]
        table = pq.read_table(pa.BufferReader(content), columns=columns)
    except (pa.ArrowException, OSError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{path}: not a table with the columns {columns} ({line})") from error
    if table.column_names != columns:
        raise UserError(f"{path}: found columns {table.column_names}, needed {columns}")
    return table


def _whole_numbers(path: Path, table: pa.Table, name: str) -> np.ndarray:
    column = table.column(name)
    if not pa.types.is_integer(column.type) or column.null_count:
        raise UserError(f"{path}: {name} is not a whole number everywhere")
    return column.to_numpy()


def _classes(path: Path, table: pa.Table, name: str, classes: int) -> np.ndarray:
    """Read a column of class indices. Shape: (rows,), int64."""
    found = _whole_numbers(path, table, name)
    if ((found < 0) | (found >= classes)).any():
        raise UserError(f"{path}: a label or an answer is none of the {classes} classes")
    return found.astype(np.int64)


def _sets(path: Path, table: pa.Table, name: str, labels: int) -> np.ndarray:
    """Read a column of sets of labels. Shape: (rows, labels), bool."""
    found = _lists(path, table, name, f"true or false for each of {labels} labels", labels)
    if not pa.types.is_boolean(found.type) or found.null_count:
        raise UserError(f"{path}: {name} is not true or false everywhere")
    return found.to_numpy(zero_copy_only=False).reshape(-1, labels)


def _lists(path: Path, table: pa.Table, name: str, what: str, size: int) -> pa.Array:
    """Take the members of a column of lists of one size, one after the other."""
    column = table.column(name).combine_chunks()
    if not pa.types.is_fixed_size_list(column.type) or column.type.list_size != size:
        raise UserError(f"{path}: {name} is {column.type}, expected {what}")
    if column.null_count:
        raise UserError(f"{path}: {name} is missing in {column.null_count} rows")
    return column.flatten()
