"""A finished job as the report sees it: its record, and where its predictions are right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from layerfusion.assets.memo import sha256
from layerfusion.errors import UserError
from layerfusion.records.job import PREDICTIONS, LayerRecord, RunRecord
from layerfusion.statistics.significance import consensus

COLUMNS = ("seed", "row", "target", "pred", "prob")
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
    """Labels of the test rows. Shape: (rows,)."""
    correct: np.ndarray
    """Share of the seeds that were right on a row. Shape: (rows,)."""
    consensus: np.ndarray
    """True where the class with the highest mean probability over seeds is right.
    Shape: (rows,)."""
    baseline: np.ndarray | None = None
    """True where the baseline is right; None for older jobs, which did not keep its answers.
    Shape: (rows,)."""

    @property
    def sources(self) -> int:
        """Number of layers that the job fuses: K."""
        return len(self.record.layers)

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


def read_job(folder: Path, record: RunRecord) -> FinishedJob:
    """Read a job's predictions, by seed and row, and see where they are right.

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
    try:
        names = pq.read_schema(pa.BufferReader(content)).names
        kept = next((name for name in BASELINE if name in names), None)
        columns = [*COLUMNS, kept] if kept else list(COLUMNS)
        table = pq.read_table(pa.BufferReader(content), columns=columns)
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
    baseline = None
    if kept:
        baseline = np.zeros(rows, dtype=bool)
        baseline[row] = table.column(kept).to_numpy() == target
    return FinishedJob(record, labels, right, agreed, baseline)
