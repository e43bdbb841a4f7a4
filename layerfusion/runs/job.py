"""Runs one job, from its config to the record of its result."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from layerfusion.assets.files import temporary_beside, write_atomically
from layerfusion.config.job import AS_PUBLISHED, AUTO, HONEST, LimitConfig, TrainConfig
from layerfusion.embeddings.latency import read_latency
from layerfusion.embeddings.source import Source
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.published.heads import padded_cost, train_as_published
from layerfusion.records.gates import gate_record
from layerfusion.records.job import (
    CLAIMED_PREDICTIONS,
    CONFIG,
    METRICS,
    PREDICTIONS,
    BackboneRecord,
    BaselineRecord,
    CostRecord,
    DataRecord,
    Estimate,
    LayerRecord,
    RunRecord,
    read_record,
    write_record,
)
from layerfusion.runs.baseline import compute_baseline
from layerfusion.runs.bundle import BUNDLE, has_bundle, save_bundle
from layerfusion.runs.heads import Trained, Watch, train_heads
from layerfusion.runs.identity import job_id, recipe_id, sweep_of
from layerfusion.runs.inputs import (
    SPLITS,
    Inputs,
    dataset_of,
    find,
    open_sources,
    prepare,
)
from layerfusion.runs.resources import forget_peak_memory, peak_memory
from layerfusion.statistics.intervals import bootstrap_interval, mean_sd, metric_intervals
from layerfusion.statistics.significance import consensus
from layerfusion.texts import TextDataset, fingerprint
from layerfusion.tracking.lineage import ingredients
from layerfusion.tracking.tracker import open_tracker

log = logging.getLogger(__name__)

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The C version if yaml has it, since its speed matters in a sweep of short jobs."""

PACKAGES = ("layerfusion", "torch", "transformers", "lightning", "hydra-core", "scikit-learn")


def run_job(config: TrainConfig, folder: Path, watch: Watch | None = None) -> RunRecord:
    """Run a job, or read its record if it has finished before.

    Args:
        config: the job.
        folder: folder for `config.yaml`, `predictions.parquet` and finally `metrics.json`.
        watch: function that gives the callbacks of each training run.

    Raises:
        UserError: for any mistake that the user can correct.
    """
    group = sweep_of(config, folder)
    published = config.protocol == AS_PUBLISHED
    keeps = not published and (group is None if config.bundle is None else config.bundle)
    if (folder / METRICS).exists():
        record = read_record(folder)
        if not still_holds(record, config):
            log.info("%s: its texts or models have changed since, so it runs again", folder)
        elif keeps and not has_bundle(folder):
            log.info("%s: it saved no classifier, so it runs again", folder)
        else:
            log.info("finished before: %s", folder)
            return record
        (folder / METRICS).unlink()
    if group is None:
        # A missing file is reported without starting a W&B run. In a sweep, the job's run shows it.
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
        inputs = prepare(config)
        tracker.uses(ingredients(inputs.dataset, inputs.sources))
        baseline_record, baseline_preds = compute_baseline(
            inputs.dataset, Path(config.paths.cache), seed=config.seed
        )
        if published:
            trained = train_as_published(config, inputs, tracker)
        else:
            trained = train_heads(config, inputs, tracker, watch)
        record = _record(config, inputs, baseline_record, trained)
        predictions = CLAIMED_PREDICTIONS if published else PREDICTIONS
        _write_predictions(folder / predictions, trained, baseline_preds)
        if keeps:
            save_bundle(folder / BUNDLE, config, inputs, trained.heads, bundle_facts(record))
        write_record(record, folder)
        preds = trained.probabilities[0].argmax(axis=1)
        confusion = (trained.target, preds, record.dataset.label_names)
        tracker.finish_with(record, None if published else confusion)
    return record


def still_holds(record: RunRecord, config: TrainConfig) -> bool:
    """Return True if the texts and the models of a config are still those of its record."""
    dataset = dataset_of(config)
    if dataset.fingerprint != record.dataset.fingerprint:
        return False
    sources = open_sources(config, dataset)
    return record.considered == {name: spec_hashes(source) for name, source in sources.items()}


def spec_hashes(source: Source) -> list[str]:
    """Return the names of a source's stores, in the order of the poolings."""
    return [store.name for store in source.stores.values()]


def describe(config: TrainConfig) -> str:
    """Return a job's name for display: data set, layers, backbones and operator."""
    layers = config.layers.name
    if config.protocol != HONEST:
        layers = f"{config.protocol}, {layers}"
    if layers == "fixed":
        parts = [f"{name}[{','.join(map(str, v))}]" for name, v in config.layers.fixed.items()]
        return f"{config.dataset.name} {'+'.join(parts)} {config.fusion.name}"
    return f"{config.dataset.name} {layers} of {'+'.join(config.backbone)} {config.fusion.name}"


def bundle_facts(record: RunRecord) -> dict[str, Any]:
    """Return facts that tell a reader of a classifier how it was trained."""
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


def _write_predictions(path: Path, trained: Trained, baseline_preds: np.ndarray) -> None:
    """Write one row for each seed and test row.

    The columns are seed, row, target, pred, prob (the probability of each class) and baseline. The
    baseline has no seeds, so its prediction for a test row is repeated for each seed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    seeds, rows, classes = trained.probabilities.shape
    table = pa.table(
        {
            "seed": np.repeat([record.seed for record in trained.seeds], rows),
            "row": np.tile(np.arange(rows), seeds),
            "target": np.tile(trained.target, seeds),
            "pred": trained.probabilities.argmax(axis=2).reshape(-1),
            "prob": pa.FixedSizeListArray.from_arrays(trained.probabilities.reshape(-1), classes),
            "baseline": np.tile(baseline_preds, seeds),
        }
    )
    with temporary_beside(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


# -- the record ---------------------------------------------------------------------------------


def _record(
    config: TrainConfig, inputs: Inputs, baseline_record: BaselineRecord, trained: Trained
) -> RunRecord:
    dataset = inputs.dataset
    estimates: dict[str, dict[str, Estimate]] = {}
    for split in ("validation", "test"):
        runs = [getattr(record, split) for record in trained.seeds]
        estimates[split] = {
            name: Estimate(*mean_sd([run[name] for run in runs])) for name in runs[0]
        }
    backbones = {
        name: _backbone_record(inputs, inputs.sources[name])
        for name in dict.fromkeys(layer.backbone for layer in inputs.selection.layers)
    }
    if trained.published is None:
        _add_intervals(estimates["test"], trained, config.seed)
    else:
        for name, (low, high) in trained.intervals.items():
            estimates["test"][name] = replace(estimates["test"][name], low=low, high=high)
        backbones = {
            name: padded_cost(record, inputs.sources[name], dataset)
            for name, record in backbones.items()
        }
    gates = (
        [None] * len(inputs.selection.choices)
        if trained.gates is None
        else trained.gates.mean(axis=0).tolist()
    )
    return RunRecord(
        job=job_id(config),
        protocol=config.protocol,
        dataset=data_record(dataset, config.limit),
        backbones=backbones,
        selection=config.layers.name,
        layers=[
            LayerRecord(
                backbone=choice.layer.backbone,
                layer=choice.layer.layer,
                pooling=choice.layer.pooling,
                depth=inputs.sources[choice.layer.backbone].shape.depth(choice.layer.layer),
                width=inputs.sources[choice.layer.backbone].shape.width,
                reason=choice.reason,
                mean_gate=gate,
                weight=choice.weight,
            )
            for choice, gate in zip(inputs.selection.choices, gates, strict=True)
        ],
        fusion=_fusion_name(config, inputs),
        seeds=trained.seeds,
        validation=estimates["validation"],
        test=estimates["test"],
        baseline=baseline_record,
        cost=CostRecord(
            trained.head_parameters,
            trained.seconds,
            peak_memory(),
            trained.head_flops,
            *trained.head_milliseconds,
        ),
        versions=versions(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        considered={name: spec_hashes(source) for name, source in inputs.sources.items()},
        selection_notes=list(inputs.selection.notes),
        fusion_notes=[*(inputs.decision.reasons if inputs.decision else []), *trained.notes],
        pilot=inputs.pilot,
        candidates=inputs.decision.candidates if inputs.decision else [],
        gates=None
        if trained.gates is None
        else gate_record(
            trained.gates,
            trained.target,
            dataset.splits["test"].texts,
            dataset.label_names,
            trained.gate_epochs,
        ),
        recipe=recipe_id(config),
        lexical=list(config.lexical),
        published=trained.published,
    )


def _fusion_name(config: TrainConfig, inputs: Inputs) -> str:
    return f"auto: {inputs.fusion.name}" if config.fusion.name == AUTO else inputs.fusion.name


def _add_intervals(test: dict[str, Estimate], trained: Trained, seed: int) -> None:
    """Add intervals over test rows to the test figures, and the consensus of the seeds."""
    target = trained.target
    intervals = metric_intervals(target, trained.probabilities.argmax(axis=2), seed)
    for name, (low, high) in intervals.items():
        test[name] = replace(test[name], low=low, high=high)
    right = consensus(trained.probabilities) == target
    low, high = bootstrap_interval(right, target, seed)
    test["consensus"] = Estimate(float(right.mean()), None, low, high)


def data_record(dataset: TextDataset, limit: LimitConfig) -> DataRecord:
    """Build the record of a data set."""
    return DataRecord(
        name=dataset.name,
        origin=dataset.origin,
        fingerprint=dataset.fingerprint,
        label_names=list(dataset.label_names),
        rows={split: len(dataset.splits[split].texts) for split in SPLITS},
        available=dict(dataset.available),
        sampled=dataset.sampled,
        overlap=dataset.overlap,
        notes=list(dataset.notes),
        test_fingerprint=fingerprint({"test": dataset.splits["test"]}, dataset.label_names),
        per_class=limit.per_class,
        draw=0 if limit.per_class is None else limit.draw,
    )


def _backbone_record(inputs: Inputs, source: Source) -> BackboneRecord:
    shape = source.shape
    hashes = [key for split in SPLITS for key in inputs.hashes[split]]
    chosen = [layer for layer in inputs.selection.layers if layer.backbone == source.name]
    highest = max((x.layer for x in chosen), key=shape.layers.index)
    store = source.stores[chosen[0].pooling]
    counts = store.tokens(hashes)
    used = {(x.pooling, x.layer) for x in chosen}
    seconds = store.seconds_per_text(hashes, shape.layers[-1])
    unique = set(hashes)
    latency = read_latency(store.folder) if isinstance(store, EmbeddingStore) else None
    return BackboneRecord(
        origin=source.origin,
        spec=json.loads(store.spec.canonical()),
        spec_hash=store.name,
        num_blocks=shape.num_blocks,
        layers=list(shape.layers),
        highest_layer=highest,
        texts=len(hashes),
        tokens=int(counts.seen.sum()),
        cut_texts=int((counts.cut > 0).sum()),
        cut_tokens=int(counts.cut.sum()),
        parameters=shape.parameters(highest),
        flops_per_text=shape.flops(highest, source.pass_lengths(counts.seen.tolist()))
        / len(hashes),
        milliseconds_per_text=None if seconds is None else 1000 * seconds,
        store_bytes=round(sum(source.stores[p].bytes_per_text([x]) for p, x in used) * len(unique)),
        milliseconds_one=_milliseconds(latency.one, highest) if latency else None,
        milliseconds_batch=_milliseconds(latency.batch, highest) if latency else None,
    )


def _milliseconds(seconds: Mapping[str, float], layer: str) -> float | None:
    return 1000 * seconds[layer] if layer in seconds else None


def versions() -> dict[str, str]:
    """Return the versions behind a result: Python, the machine and the relevant packages."""
    return {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        **_packages(),
    }


@cache
def _packages() -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in PACKAGES}
