"""One job: from a config to the record of its result."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from layerfusion.assets.files import temporary_beside, write_atomically
from layerfusion.config.job import HONEST, TrainConfig
from layerfusion.records.job import BUNDLE, CONFIG, METRICS, RunRecord, read_record, write_record
from layerfusion.runs.baseline import compute_baseline
from layerfusion.runs.bundle import has_bundle, save_bundle
from layerfusion.runs.heads import TrainingResult
from layerfusion.runs.identity import job_id, refuse_other_job, sweep_of
from layerfusion.runs.inputs import dataset_of, find, open_sources
from layerfusion.runs.protocol import CallbackFactory, protocol_of
from layerfusion.runs.recording import make_record, spec_hashes
from layerfusion.runs.resources import forget_peak_memory
from layerfusion.tracking.lineage import ingredients
from layerfusion.tracking.tracker import open_tracker

log = logging.getLogger(__name__)

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The fast one where yaml was built with it: in a sweep of short jobs it shows."""


def run_job(
    config: TrainConfig, folder: Path, callbacks: CallbackFactory | None = None
) -> RunRecord:
    """Run a job, or read its record where it has finished before.

    Args:
        config: the job.
        folder: its folder; `config.yaml`, `predictions.parquet` and, last, `metrics.json` go there.
        callbacks: makes the callbacks of each training run.

    Raises:
        UserError: for anything that the user can mend.
    """
    group = sweep_of(config, folder)
    protocol = protocol_of(config)
    asked = group is None if config.bundle is None else config.bundle
    keeps = protocol.keeps_classifier and asked
    if (folder / METRICS).exists():
        record = read_record(folder)
        refuse_other_job(folder, record.job, job_id(config))
        if not still_holds(record, config):
            log.info("%s: its texts or models have changed since, so it runs again", folder)
        elif keeps and not has_bundle(folder):
            log.info("%s: it has kept no classifier, so it runs again", folder)
        else:
            log.info("finished before: %s", folder)
            return record
        (folder / METRICS).unlink()
    if group is None:
        # What it lacks is told in one line, without a W&B run; jobs of a sweep show it in theirs.
        find(config)
    folder.mkdir(parents=True, exist_ok=True)
    settings = asdict(config)
    write_atomically(folder / CONFIG, yaml.dump(settings, Dumper=DUMPER, sort_keys=False).encode())
    forget_peak_memory()
    with open_tracker(
        config.logger,
        folder=folder,
        name=describe(config),
        group=group,
        job_type="train",
        tags=[config.protocol, config.dataset.name, config.fusion.name, *config.backbone],
        config=settings,
    ) as tracker:
        inputs = protocol.prepare(config)
        tracker.uses(ingredients(inputs.dataset, inputs.sources))
        baseline, baseline_preds = compute_baseline(
            inputs.dataset, Path(config.paths.cache), seed=config.seed
        )
        result = protocol.train(config, inputs, tracker, callbacks)
        record = make_record(config, inputs, baseline, result)
        _write_predictions(folder / protocol.predictions, result, baseline_preds)
        if keeps:
            save_bundle(folder / BUNDLE, config, inputs, result.heads, bundle_facts(record))
        write_record(record, folder)
        preds = result.probabilities[0].argmax(axis=1)
        confusion = (result.target, preds, record.dataset.label_names)
        tracker.finish_with(record, confusion if protocol.keeps_classifier else None)
    return record


def still_holds(record: RunRecord, config: TrainConfig) -> bool:
    """Whether the texts and the models behind a job's config are still those of its record."""
    dataset = dataset_of(config)
    if dataset.fingerprint != record.dataset.fingerprint:
        return False
    sources = open_sources(config, dataset)
    return record.considered == {name: spec_hashes(source) for name, source in sources.items()}


def describe(config: TrainConfig) -> str:
    """A job's name for people: data set, layers, backbones, operator."""
    layers = config.layers.name
    if config.protocol != HONEST:
        layers = f"{config.protocol}, {layers}"
    if layers == "fixed":
        parts = [f"{name}[{','.join(map(str, v))}]" for name, v in config.layers.fixed.items()]
        return f"{config.dataset.name} {'+'.join(parts)} {config.fusion.name}"
    return f"{config.dataset.name} {layers} of {'+'.join(config.backbone)} {config.fusion.name}"


def bundle_facts(record: RunRecord) -> dict[str, Any]:
    """What a reader of a classifier should know of its making."""
    return {
        "job": record.job,
        "dataset": record.dataset.name,
        "fingerprint": record.dataset.fingerprint,
        "fusion": record.fusion,
        "test_accuracy": asdict(record.test["consensus"]),
        "test_rows": record.dataset.rows["test"],
        "versions": record.versions,
        "created": record.created,
    }


# -- files ---------------------------------------------------------------------------------------


def _write_predictions(path: Path, result: TrainingResult, baseline_preds: np.ndarray) -> None:
    """Write a row for each seed and test row.

    Its columns: seed, row, target, pred, the probability of each class, baseline.

    The baseline has no seeds: what it predicts of a row stands beside each of them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    seeds, rows, classes = result.probabilities.shape
    table = pa.table(
        {
            "seed": np.repeat([record.seed for record in result.seeds], rows),
            "row": np.tile(np.arange(rows), seeds),
            "target": np.tile(result.target, seeds),
            "pred": result.probabilities.argmax(axis=2).reshape(-1),
            "prob": pa.FixedSizeListArray.from_arrays(result.probabilities.reshape(-1), classes),
            "baseline": np.tile(baseline_preds, seeds),
        }
    )
    with temporary_beside(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
