"""The heads of a job under `protocol=as_published`, and what a script would claim for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch
from lightning.pytorch.loggers import Logger

from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.backbone import choose_device
from layerfusion.embeddings.source import Source
from layerfusion.published.inputs import published_splits, train_order
from layerfusion.published.padded import PADDED_MEAN, padded_addresses, padded_lengths
from layerfusion.published.record import PublishedRecord
from layerfusion.published.selection_bias import HALVINGS, selection_bias
from layerfusion.published.settings import PUBLISHED_TRAINER
from layerfusion.published.training import EpochDone, fit_as_published
from layerfusion.records.job import BackboneRecord, SeedRecord
from layerfusion.runs.heads import TrainingResult
from layerfusion.runs.inputs import Inputs, read_features, read_targets
from layerfusion.statistics.intervals import bootstrap_interval, paired_interval
from layerfusion.texts import TextDataset
from layerfusion.tracking.tracker import Tracker

CLAIMED, LAST_EPOCH = "claimed_accuracy", "last_epoch_accuracy"
SPLIT_HALF, BIAS = "split_half_accuracy", "selection_bias"
"""Names of test figures; none of them is `accuracy`, so that no reader takes one for it."""


@dataclass(frozen=True)
class PublishedResult(TrainingResult):
    """The heads of a job under the published protocol and what they say of test."""

    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals over test rows, for each figure of test."""


def train_as_published(config: TrainConfig, inputs: Inputs, tracker: Tracker) -> PublishedResult:
    """Train a head a seed on train and validation together, its epoch chosen on test.

    For each seed: the best test accuracy over the epochs, which is what would be claimed; that of
    the last epoch; that of an epoch chosen on other test rows (`published.selection_bias`); and the
    selection bias, which is the first less the third. Their intervals over test rows take the
    epochs as they were chosen: they hold the chance in the rows, not the bias of choosing on them.
    """
    features, targets = read_features(inputs), read_targets(inputs)
    order = torch.from_numpy(np.argsort(train_order(inputs.dataset)))
    train = (
        [
            torch.cat(parts)[order]
            for parts in zip(features["train"], features["validation"], strict=True)
        ],
        torch.cat([targets["train"], targets["validation"]])[order],
    )
    test = (features["test"], targets["test"])
    target = targets["test"].numpy()
    text_of = inputs.dataset.splits["test"].unit_of
    accelerator = config.trainer.accelerator
    device = choose_device({"gpu": "cuda"}.get(accelerator, accelerator))
    seeds, curves, probabilities, parameters, flops = [], [], [], 0, 0
    right: dict[str, list[np.ndarray]] = {CLAIMED: [], LAST_EPOCH: [], SPLIT_HALF: []}
    for seed in range(config.seed, config.seed + config.seeds):
        fit = fit_as_published(
            train,
            test,
            config.fusion,
            num_classes=len(inputs.dataset.label_names),
            seed=seed,
            device=device,
            epoch_done=_shown(tracker.lightning_logger(f"seed{seed}")),
        )
        bias = selection_bias(fit.correct, target, text_of=text_of, seed=seed)
        curve = fit.correct.mean(axis=1).tolist()
        figures = {
            CLAIMED: bias.claimed,
            LAST_EPOCH: curve[-1],
            SPLIT_HALF: bias.split_half,
            BIAS: bias.bias,
        }
        right[CLAIMED].append(fit.correct[fit.claimed])
        right[LAST_EPOCH].append(fit.correct[-1])
        right[SPLIT_HALF].append(bias.rows)
        epochs = len(curve)
        seeds.append(SeedRecord(seed, fit.claimed + 1, epochs, fit.seconds, {}, figures))
        curves.append(curve)
        probabilities.append(fit.probabilities)
        parameters, flops = fit.parameters, fit.flops
    facts = PublishedRecord(
        residual=config.fusion.residual,
        padding={name: _padding(source, inputs.dataset) for name, source in inputs.sources.items()},
        epochs=int(PUBLISHED_TRAINER["max_epochs"]),
        halvings=HALVINGS,
        test_accuracy_by_epoch=curves,
    )
    return PublishedResult(
        seeds=seeds,
        target=target,
        text_of=text_of,
        probabilities=np.stack(probabilities),
        gates=None,
        gate_epochs=[],
        head_parameters=parameters,
        head_flops=flops,
        seconds=sum(record.seconds for record in seeds),
        notes=[],
        protocol_facts=asdict(facts),
        intervals=_intervals(right, target, text_of, config.seed),
    )


def padded_cost(record: BackboneRecord, source: Source, dataset: TextDataset) -> BackboneRecord:
    """A backbone's record with the FLOPs of its padding, which passed through the model too."""
    _, lengths = _lengths(source, dataset)
    flops = source.shape.flops(record.highest_layer, lengths)
    return replace(record, flops_per_text=flops / len(lengths))


def _intervals(
    right: Mapping[str, Sequence[np.ndarray]], target: np.ndarray, text_of: np.ndarray, seed: int
) -> dict[str, tuple[float, float]]:
    """Stratified bootstraps over test rows, a row with all its seeds; of the bias, in pairs.

    Args:
        right: figure to what each row has of it, a seed. Shapes: (rows,).
        target: class indices. Shape: (rows,).
        text_of: number of the text of each row. Shape: (rows,).
        seed: of the resampling.
    """
    by_row = {name: np.mean(rows, axis=0) for name, rows in right.items()}
    found = {
        name: bootstrap_interval(rows, target, seed, text_of=text_of)
        for name, rows in by_row.items()
    }
    bias = paired_interval(by_row[CLAIMED], by_row[SPLIT_HALF], target, text_of=text_of, seed=seed)
    return {**found, BIAS: (bias.low, bias.high)}


def _padding(source: Source, dataset: TextDataset) -> float:
    """Share of the positions averaged that are padding, over train and test."""
    tokens, lengths = _lengths(source, dataset)
    return 1 - sum(tokens) / sum(lengths)


def _lengths(source: Source, dataset: TextDataset) -> tuple[list[int], list[int]]:
    """Tokens of every text, and the positions that it took with its padding."""
    tokens: list[int] = []
    lengths: list[int] = []
    for texts in published_splits(dataset).values():
        seen = source.stores[PADDED_MEAN].tokens(padded_addresses(texts)).seen.tolist()
        tokens += seen
        lengths += padded_lengths(seen)
    return tokens, lengths


def _shown(logger: Logger | None) -> EpochDone:
    """Shows the epochs of a run where there is a logger."""

    def show(epoch: int, loss: float, accuracy: float) -> None:
        if logger is not None:
            figures = {"epoch": epoch, "train_loss": loss, "test_accuracy_as_published": accuracy}
            logger.log_metrics(figures, epoch)

    return show
