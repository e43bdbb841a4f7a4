"""Jobs that nobody ran on texts with several labels: made-up records and predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from layerfusion.records.job import PREDICTIONS, DataRecord, Estimate, RunRecord, write_record
from layerfusion.statistics.answers import answers, consensus, right_rows
from layerfusion.statistics.intervals import bootstrap_interval, mean_sd, metric_intervals
from layerfusion.statistics.metrics import evaluate
from tests.report.fabricate import Source, dataset, write_job

LABELS = ["sport", "music", "science", "food"]
SHARES = np.array([0.5, 0.3, 0.15, 0.05])


def set_dataset(name: str = "tags", *, rows: int = 240, **kwargs: Any) -> DataRecord:
    return dataset(name, rows=rows, **{"label_names": LABELS, "multilabel": True, **kwargs})


def true_labels(rows: int) -> np.ndarray:
    """The labels of the test rows; some have none. Shape: (rows, labels), bool."""
    return np.random.default_rng(7).random((rows, len(LABELS))) < SHARES


def lists(values: np.ndarray) -> pa.Array:
    """A column of lists of one size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[-1])


def write_set_job(
    runs: Path,
    data: DataRecord,
    sources: Sequence[Source],
    noise: float,
    validation: float,
    *,
    seeds: int = 3,
    **kwargs: Any,
) -> RunRecord:
    """Write a job whose figures are those of its predictions; more noise makes more mistakes.

    How hard a row is does not depend on the job.
    """
    made = write_job(runs, data, sources, 0.7, validation, seeds=seeds, **kwargs)
    rows = data.rows["test"]
    target = true_labels(rows)
    hard = np.random.default_rng(8).normal(size=target.shape)
    own = np.random.default_rng(int(made.job, 16)).normal(size=(seeds, *target.shape))
    logits = 4.0 * target - 2.0 + noise * (hard + 0.4 * own)
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    given = answers(probabilities, multilabel=True)
    each = [evaluate(np.log(one.astype(float)), target) for one in probabilities]
    ends = metric_intervals(target, given, text_of=None)
    test = {
        name: Estimate(*mean_sd([one[name] for one in each]), *ends.get(name, ()))
        for name in each[0]
    }
    right = right_rows(consensus(probabilities, multilabel=True), target)
    test["consensus"] = Estimate(
        float(right.mean()), None, *bootstrap_interval(right, target, text_of=None)
    )
    words = 4.0 * target - 2.0 + 2.6 * hard
    floor = evaluate(-np.logaddexp(0, -words), target)
    floor_ends = metric_intervals(target, (words >= 0)[None], text_of=None)
    low, high = floor_ends["accuracy"]
    micro_low, micro_high = floor_ends["micro_f1"]
    record = replace(
        made,
        test=test,
        seeds=[replace(seed, test=one) for seed, one in zip(made.seeds, each, strict=True)],
        baseline=replace(
            made.baseline,
            test=floor,
            low=low,
            high=high,
            micro_f1_low=micro_low,
            micro_f1_high=micro_high,
        ),
    )
    folder = runs / f"{data.name}-{made.job}"
    table = pa.table(
        {
            "seed": np.repeat(np.arange(seeds), rows),
            "row": np.tile(np.arange(rows), seeds),
            "target": lists(np.concatenate([target] * seeds)),
            "pred": lists(given),
            "prob": lists(probabilities),
            "baseline": lists(np.concatenate([words >= 0] * seeds)),
        }
    )
    pq.write_table(table, folder / PREDICTIONS)
    write_record(record, folder)
    return record


def write_set_sweep(runs: Path, data: DataRecord) -> None:
    """Layers of two models alone, and three fusions of both."""
    for model, layer, noise in (
        ("minilm", "0", 2.4),
        ("minilm", "3", 1.6),
        ("minilm", "4", 1.5),
        ("minilm", "6", 1.7),
        ("mpnet", "0", 2.5),
        ("mpnet", "6", 1.6),
        ("mpnet", "12", 1.45),
    ):
        write_set_job(runs, data, [(model, layer)], noise, 0.9 - noise / 5)
    both = [("minilm", "4"), ("mpnet", "12")]
    for fusion, noise in (("gated", 1.2), ("concat", 1.3), ("mean", 1.35)):
        write_set_job(runs, data, both, noise, 0.9 - noise / 5, fusion=fusion)
