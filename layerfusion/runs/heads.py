"""The heads of a job, one a seed, trained or stacked from probes; test is looked at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import STACKED, TrainConfig
from layerfusion.embeddings.backbone import choose_device
from layerfusion.embeddings.shape import BATCH
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.head_files import Head, OperatorHead, StackHead
from layerfusion.fusion.stacking import fit_stack, refit
from layerfusion.fusion.training import fit
from layerfusion.layers.held_out import held_out_probes
from layerfusion.records.job import SeedRecord
from layerfusion.runs.inputs import Inputs, read_features
from layerfusion.runs.protocol import CallbackFactory
from layerfusion.runs.select_layers import candidates_of
from layerfusion.statistics.metrics import evaluate
from layerfusion.tracking.tracker import Tracker

JUDGED = ("validation", "test")
CALLS = 5
"""Of which the fastest says how long a head takes."""


@dataclass(frozen=True)
class TrainingResult:
    """The heads of a job and what they say of test."""

    seeds: list[SeedRecord]
    target: np.ndarray
    """Labels of test. Shape: (rows,)."""
    probabilities: np.ndarray
    """Of test. Shape: (seeds, rows, classes), float32."""
    gates: np.ndarray | None
    """Of each test row, mean over the seeds. Shape: (rows, sources)."""
    gate_epochs: list[list[list[float]]]
    """Of each seed and epoch, the mean gate of each source over validation."""
    head_parameters: int
    head_flops: int
    """For one text."""
    seconds: float
    notes: list[str]
    heads: list[Head] = field(default_factory=list)
    """One a seed; empty where nobody should use them."""
    protocol_facts: dict[str, Any] = field(default_factory=dict)
    """Facts that only this protocol has, for the record."""
    head_milliseconds: tuple[float | None, float | None] = (None, None)
    """For one text and for a batch of 32; none: not measured."""


@dataclass(frozen=True)
class _SeedResult:
    """One seed's head and what it says."""

    head: Head
    logits: Mapping[str, Tensor]
    """Split to logits. Shapes: (rows, classes)."""
    gates: Tensor | None
    """Of test. Shape: (rows, sources)."""
    parameters: int
    flops: int
    seconds: float
    milliseconds: tuple[float, float]
    """For one text and for a batch of 32."""
    gate_epochs: list[list[float]] = field(default_factory=list)
    best_epoch: int = 0
    epochs: int = 0
    note: str = ""


def train_heads(
    config: TrainConfig, inputs: Inputs, tracker: Tracker, callbacks: CallbackFactory | None = None
) -> TrainingResult:
    """Make one head a seed on the selected layers, its training watched by callbacks."""
    features, targets = read_features(inputs)
    if inputs.fusion.name == STACKED:
        heads = _stack(config, inputs, features, targets)
    else:
        heads = _train(config, inputs, features, targets, tracker, callbacks)
    records = []
    for seed, head in heads.items():
        metrics = {split: evaluate(head.logits[split], targets[split]) for split in JUDGED}
        records.append(SeedRecord(seed, head.best_epoch, head.epochs, head.seconds, **metrics))
    gates = [head.gates.numpy() for head in heads.values() if head.gates is not None]
    return TrainingResult(
        seeds=records,
        target=targets["test"].numpy(),
        probabilities=np.stack(
            [head.logits["test"].float().softmax(dim=1).numpy() for head in heads.values()]
        ),
        gates=np.mean(gates, axis=0) if gates else None,
        gate_epochs=[head.gate_epochs for head in heads.values() if head.gate_epochs],
        head_parameters=max(head.parameters for head in heads.values()),
        head_flops=max(head.flops for head in heads.values()),
        seconds=sum(record.seconds for record in records),
        notes=[f"seed {seed}: {head.note}" for seed, head in heads.items() if head.note],
        head_milliseconds=next(iter(heads.values())).milliseconds,
        heads=[head.head for head in heads.values()],
    )


def milliseconds(
    predict: Callable[[Sequence[Tensor]], object], features: Sequence[Tensor]
) -> tuple[float, float]:
    """What a trained head takes for one text and for a batch of 32, the fastest of a few calls."""
    taken = []
    for rows in (1, BATCH):
        some = [source[:rows] for source in features]
        # Rows come round again where test has fewer.
        some = [source.repeat(-(-rows // len(source)), 1)[:rows] for source in some]
        times = []
        for _ in range(CALLS):
            begun = time.perf_counter()
            predict(some)
            times.append(time.perf_counter() - begun)
        taken.append(1000 * min(times))
    return taken[0], taken[1]


def _train(
    config: TrainConfig,
    inputs: Inputs,
    features: Mapping[str, list[Tensor]],
    targets: Mapping[str, Tensor],
    tracker: Tracker,
    callbacks: CallbackFactory | None,
) -> dict[int, _SeedResult]:
    """Seed to a head trained by gradient descent, its epoch chosen on validation."""
    data = FusionDataModule(features, targets, batch_size=config.trainer.batch_size)
    heads = {}
    for seed in range(config.seed, config.seed + config.seeds):
        fitted = fit(
            data,
            inputs.fusion,
            config.trainer,
            num_classes=len(inputs.dataset.label_names),
            seed=seed,
            names=[str(layer) for layer in inputs.selection.layers],
            importance=inputs.selection.weights,
            logger=tracker.lightning_logger(f"seed{seed}"),
            callbacks=callbacks(seed - config.seed) if callbacks else (),
        )
        said = {split: fitted.classifier.predict_logits(data.features[split]) for split in JUDGED}
        heads[seed] = _SeedResult(
            OperatorHead(fitted.classifier, data.standardiser),
            {split: logits for split, (logits, _) in said.items()},
            said["test"][1],
            fitted.classifier.num_parameters,
            fitted.classifier.num_flops,
            fitted.seconds,
            milliseconds(fitted.classifier.predict_logits, data.features["test"]),
            fitted.classifier.gate_epochs,
            fitted.best_epoch,
            fitted.epochs,
        )
    return heads


def _stack(
    config: TrainConfig,
    inputs: Inputs,
    features: Mapping[str, list[Tensor]],
    targets: Mapping[str, Tensor],
) -> dict[int, _SeedResult]:
    """Seed to a stack of probes; the seed deals the folds that the probes are held out by.

    Validation judges a stack of train; test judges, and the job keeps, that stack refitted on both.
    """
    device = choose_device(config.extract.device)
    layers = replace(config.layers, held_out="folds")
    known = [
        torch.cat(pair) for pair in zip(features["train"], features["validation"], strict=True)
    ]
    labels = torch.cat([targets["train"], targets["validation"]])
    heads = {}
    for seed in range(config.seed, config.seed + config.seeds):
        begun = time.perf_counter()
        dealt = replace(config, seed=seed, layers=layers)
        chosen = inputs.selection.layers
        candidates = candidates_of(dealt, inputs.dataset, inputs.sources, chosen)
        held, _ = held_out_probes(candidates, layers, device)
        stack = fit_stack(
            features["train"],
            targets["train"],
            held,
            num_classes=len(inputs.dataset.label_names),
            seed=seed,
            device=device,
        )
        kept = refit(stack, known, labels, held, device=device)
        log_probs, gates = kept.predict(features["test"])
        heads[seed] = _SeedResult(
            StackHead(kept),
            {"validation": stack.predict(features["validation"])[0], "test": log_probs},
            gates if len(chosen) > 1 else None,
            kept.num_parameters,
            kept.num_flops,
            time.perf_counter() - begun,
            milliseconds(kept.predict, features["test"]),
            note=stack.reason,
        )
    return heads
