"""From a finished training to the record of its job."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch

from layerfusion.assets.paths import folders_looked_in
from layerfusion.config.identity import job_id, recipe_id, recorded_settings, user_code
from layerfusion.config.job import AUTO, STACKS, LimitConfig, TrainConfig
from layerfusion.embeddings.latency import middle_length, read_latency
from layerfusion.embeddings.lexical import LexicalSource, LexicalStore
from layerfusion.embeddings.source import Source, Store
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.layers.folds import possible_folds
from layerfusion.layers.labels import answers
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.selection import Choice, Selection, find_selection
from layerfusion.records.gates import gate_record
from layerfusion.records.job import (
    LATENCY_BATCH,
    BackboneRecord,
    BaselineRecord,
    CostRecord,
    DataRecord,
    Estimate,
    LayerRecord,
    ProbeRecord,
    ReferenceRecord,
    RunRecord,
)
from layerfusion.runs.heads import TrainedReference, TrainingResult
from layerfusion.runs.inputs import Inputs
from layerfusion.runs.long_texts import decided_readings
from layerfusion.runs.protocol import protocol_of
from layerfusion.runs.resources import peak_memory
from layerfusion.statistics.intervals import mean_sd, metric_intervals
from layerfusion.statistics.metrics import evaluate
from layerfusion.statistics.resampling import independent_rows
from layerfusion.texts import TextDataset, fingerprint
from layerfusion.texts.languages import writing_of
from layerfusion.texts.table import SPLITS

PACKAGES = ("layerfusion", "torch", "transformers", "lightning", "hydra-core", "scikit-learn")
"""Packages whose versions a record keeps."""


def spec_hashes(source: Source) -> list[str]:
    """Return the names of a source's stores, in the order of the poolings."""
    return [store.name for store in source.stores.values()]


def make_record(
    config: TrainConfig, inputs: Inputs, baseline: BaselineRecord, result: TrainingResult
) -> RunRecord:
    """Gather everything that a reader of a result may want to trace.

    Args:
        config: the job.
        inputs: its texts, sources and selected layers.
        baseline: what TF-IDF and logistic regression reach on the same rows.
        result: of the training.
    """
    protocol, dataset = protocol_of(config), inputs.dataset
    estimates: dict[str, dict[str, Estimate]] = {}
    for split in ("validation", "test"):
        runs = [getattr(record, split) for record in result.seeds]
        estimates[split] = {
            name: Estimate(*mean_sd([run[name] for run in runs])) for name in runs[0]
        }
    backbones = {
        name: protocol.backbone_record(
            _backbone_record(inputs, inputs.sources[name]), inputs.sources[name], dataset
        )
        for name in dict.fromkeys(layer.backbone for layer in inputs.selection.layers)
    }
    gates = (
        [None] * len(inputs.selection.choices)
        if result.gates is None
        else result.gates.mean(axis=0).tolist()
    )
    return RunRecord(
        job=job_id(config),
        protocol=config.protocol,
        dataset=data_record(dataset, config.limit),
        backbones=backbones,
        selection=config.layers.name,
        looked_at_labels=find_selection(config.layers.name).looks_at_labels,
        layers=[
            LayerRecord(
                backbone=choice.layer.backbone,
                layer=choice.layer.layer,
                pooling=choice.layer.pooling,
                depth=inputs.sources[choice.layer.backbone].shape.depth(choice.layer.layer),
                width=_width(inputs, inputs.sources[choice.layer.backbone]),
                reason=choice.reason,
                mean_gate=gate,
                weight=choice.weight,
            )
            for choice, gate in zip(inputs.selection.choices, gates, strict=True)
        ],
        fusion=inputs.fusion.name,
        chosen_by=AUTO if config.fusion.name == AUTO else "",
        decision=inputs.decision.reasons if inputs.decision else [],
        seeds=result.seeds,
        validation=estimates["validation"],
        test=protocol.test_estimates(estimates["test"], result, config.seed),
        baseline=baseline,
        cost=CostRecord(
            head_parameters=result.head_parameters,
            train_seconds=result.seconds,
            peak_memory_bytes=peak_memory(),
            head_flops=result.head_flops,
            head_milliseconds=result.head_milliseconds[0],
            head_milliseconds_batch=result.head_milliseconds[1],
        ),
        versions=versions(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        considered={name: spec_hashes(source) for name, source in inputs.sources.items()},
        selection_notes=list(inputs.selection.notes),
        fusion_notes=result.notes,
        pilot=inputs.pilot,
        candidates=inputs.decision.candidates if inputs.decision else [],
        probes=[
            ProbeRecord(
                **_place(inputs, one.layer),
                accuracy=one.accuracy,
                low=one.low,
                high=one.high,
                log_loss=one.log_loss,
            )
            for one in inputs.selection.probes
        ],
        probed_on=_probed_on(config, inputs) if inputs.selection.probes else "",
        references=[_reference(inputs, result, one) for one in result.references],
        gates=None
        if result.gates is None
        else gate_record(
            result.gates,
            result.target,
            dataset.splits["test"].texts,
            dataset.label_names,
            result.gate_epochs,
        ),
        recipe=recipe_id(config),
        lexical=list(config.lexical),
        protocol_facts=result.protocol_facts,
        time_notes=inputs.deadline.notes(),
        reading=inputs.reading,
        long_texts=decided_readings(config, inputs.sources),
        settings=recorded_settings(config),
        looked_in=folders_looked_in(),
        code=user_code(config),
    )


def data_record(dataset: TextDataset, limit: LimitConfig) -> DataRecord:
    """Build the record of a data set."""
    writing = writing_of(dataset.splits["train"].texts)
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
        multilabel=dataset.multilabel,
        languages=writing.languages,
        written=writing.words,
        worth={
            split: independent_rows(len(rows), rows.unit_of)
            for split, rows in dataset.splits.items()
        },
    )


def _place(inputs: Inputs, layer: LayerId) -> dict[str, Any]:
    depth = inputs.sources[layer.backbone].shape.depth(layer.layer)
    names = {"backbone": layer.backbone, "layer": layer.layer, "pooling": layer.pooling}
    return {**names, "depth": depth}


def _probed_on(config: TrainConfig, inputs: Inputs) -> str:
    if config.layers.held_out == "validation" and config.fusion.name != AUTO:
        return "validation"
    if inputs.pilot is not None:
        return f"folds of {inputs.pilot.rows[-1]:,} rows of train, the pilot's sample"
    train = inputs.dataset.splits["train"]
    folds = possible_folds(
        np.asarray(train.labels), train.units, config.layers.folds, seed=config.seed
    )
    return f"{folds} folds of train"


def _reference(
    inputs: Inputs, result: TrainingResult, reference: TrainedReference
) -> ReferenceRecord:
    """Build the record of a single layer, as if it had been the job's choice."""
    probed = reference.probed
    source = inputs.sources[probed.layer.backbone]
    alone = replace(inputs, selection=Selection((Choice(probed.layer, "reference"),)))
    test = evaluate(reference.logits, result.target)
    preds = answers(reference.logits, multilabel=result.target.ndim == 2).numpy()
    ends = metric_intervals(result.target, preds[None], text_of=result.text_of)
    return ReferenceRecord(
        LayerRecord(
            **_place(inputs, probed.layer),
            width=source.shape.width,
            reason="reference",
            mean_gate=None,
        ),
        _backbone_record(alone, source),
        {
            "accuracy": Estimate(probed.accuracy, None, probed.low, probed.high),
            "log_loss": Estimate(probed.log_loss, None),
        },
        {name: Estimate(value, None, *ends.get(name, ())) for name, value in test.items()},
        reference.column,
        reference.parameters,
        reference.flops,
    )


def _is_regression(inputs: Inputs, source: Source) -> bool:
    """Tell a lexical source of a stack, whose regression on the counts needs no dense vectors."""
    return inputs.fusion.name in STACKS and isinstance(source, LexicalSource)


def _width(inputs: Inputs, source: Source) -> int:
    """Width of what a head reads of a source; log-probabilities in the case of a regression."""
    return len(inputs.dataset.label_names) if _is_regression(inputs, source) else source.shape.width


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
    lengths = counts.seen
    if shape.is_given:
        lengths = [len(text) for split in SPLITS for text in inputs.dataset.splits[split].texts]
    one, batch = _latency(store, highest, hashes, middle_length(lengths))
    size = sum(source.stores[p].bytes_per_text([x]) for p, x in used)
    if _is_regression(inputs, source):  # its weights are counted with those of the head
        seconds, size, parameters = None, 0, 0
    elif isinstance(store, LexicalStore):
        parameters = store.parameters
    elif shape.is_given:
        parameters = None
    else:
        parameters = shape.parameters(highest)
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
        parameters=parameters,
        flops_per_text=None
        if shape.is_given
        else shape.flops(highest, source.pass_lengths(counts.seen.tolist())) / len(hashes),
        milliseconds_per_text=None if not seconds else 1000 * seconds,
        store_bytes=round(size * len(unique)),
        milliseconds_one=one,
        milliseconds_batch=batch,
        unknown_share=counts.unknown_share,
    )


def _latency(
    store: Store, layer: str, hashes: Sequence[bytes], length: int
) -> tuple[float | None, float | None]:
    """Return the milliseconds of one text and of a batch of a length; None where not measured.

    Words are counted text by text, so that a batch takes as many times longer as it has texts. The
    regression of a stack takes less than what is said here, which includes the projection.
    """
    if isinstance(store, EmbeddingStore):
        latency = read_latency(store.folder, length)
        timed = (latency.one, latency.batch) if latency else ({}, {})
        one, batch = (1000 * part[layer] if layer in part else None for part in timed)
        return one, batch
    seconds = store.seconds_per_text(hashes, layer)
    return (None, None) if seconds is None else (1000 * seconds, 1000 * seconds * LATENCY_BATCH)


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
