"""Judges a job on folds of train, where validation has too few rows to choose between jobs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import HONEST, MACRO_F1, MICRO_F1, TrainConfig
from layerfusion.errors import UserError
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.labels import answers, right_rows
from layerfusion.progress import STANDING, steps
from layerfusion.records.format import percent
from layerfusion.records.job import FEW_ROWS, Estimate, FoldsRecord
from layerfusion.runs.heads import fit_heads
from layerfusion.runs.inputs import prepare_texts
from layerfusion.runs.long_texts import settled
from layerfusion.statistics.intervals import bootstrap_interval, metric_intervals
from layerfusion.statistics.metrics import evaluate
from layerfusion.statistics.resampling import independent_rows
from layerfusion.texts import TextDataset, fingerprint

log = logging.getLogger(__name__)
PACKAGE = "layerfusion"


def wants_folds(config: TrainConfig, dataset: TextDataset, *, in_sweep: bool) -> bool:
    """Tell whether a job has to be judged on folds: see `TrainConfig.by_folds`."""
    if config.by_folds is not None:
        return config.by_folds
    train, validation = (
        independent_rows(len(dataset.splits[name]), dataset.splits[name].unit_of)
        for name in ("train", "validation")
    )
    unlimited = config.layers.pilot is None and config.time_limit is None
    few = validation < min(FEW_ROWS, train)
    return in_sweep and unlimited and few and config.protocol == HONEST


@dataclass(frozen=True, eq=False)
class HeldOutRows:
    """Predictions of rows of train that nothing of the job had seen."""

    log_probs: Tensor
    """Shape: (rows, classes)."""
    target: Tensor
    """Labels of the rows."""
    text_of: np.ndarray
    """Number of the text of each row. Shape: (rows,), int64."""
    folds: int


def judge_on_folds(config: TrainConfig, dataset: TextDataset) -> FoldsRecord | None:
    """Judge a job on rows of train that nothing of it had seen, fold by fold.

    A job is fitted anew without each fold, with one seed: layers, the race of `fusion=auto`, head.
    Validation has the part that it has in the job: heads stop on it, and stacks learn from it at
    the end. The vectors of all texts are in the cache, so that no model runs again.

    Args:
        config: the job.
        dataset: its texts.

    Returns:
        The figures; None, with a line that says why, where train without a fold has too few rows
        for the job.
    """
    log.info(
        "judging on folds of train: all is fitted anew without each (by_folds=false leaves it out)",
        extra=STANDING,
    )
    try:
        with _only_warnings():
            held_out = _fitted_anew(config, dataset)
    except UserError as error:
        log.info("not judged on folds of train: %s", error)
        return None
    target = held_out.target.numpy()
    figures = evaluate(held_out.log_probs, target)
    right = right_rows(held_out.log_probs, held_out.target).double().numpy()
    text_of = held_out.text_of
    low, high = bootstrap_interval(right, target, config.seed, text_of=text_of)
    said = answers(held_out.log_probs, multilabel=dataset.multilabel).numpy()
    ends = metric_intervals(target, said[None], config.seed, text_of=text_of)
    f1 = {
        name: Estimate(figures[name], None, *ends.get(name, (None, None)))
        for name in (MACRO_F1, MICRO_F1)
        if name in figures
    }
    log.info(
        "judged on %d folds of train: %.1f %% of %d rows right%s",
        held_out.folds,
        100 * figures["accuracy"],
        len(target),
        f", macro-F1 {percent(f1[MACRO_F1])}" if config.objective == MACRO_F1 else "",
    )
    return FoldsRecord(
        held_out.folds,
        len(target),
        {
            "accuracy": Estimate(figures["accuracy"], None, low, high),
            **f1,
            "log_loss": Estimate(figures["log_loss"], None),
        },
        independent_rows(len(target), text_of),
    )


def _fitted_anew(config: TrainConfig, dataset: TextDataset) -> HeldOutRows:
    """Fit all of a job without each fold, and predict that fold."""
    # How long texts are read is settled: each fold has the vectors that the cache holds.
    one_seed = replace(settled(config, dataset), seeds=1)
    train = dataset.splits["train"]
    fold_of = stratified_folds(
        train.labels, train.units, config.layers.folds, seed=config.seed
    ).numpy()
    folds = int(fold_of.max()) + 1
    logits = [
        _logits_of(one_seed, _without(dataset, fold_of == fold))
        for fold in steps(range(folds), "folds of train")
    ]
    rows = np.concatenate([np.flatnonzero(fold_of == fold) for fold in range(folds)])
    found = torch.cat(logits)  # those of labels are log-probabilities already
    log_probs = found if dataset.multilabel else found.log_softmax(dim=1)
    target, text_of = train.labels[rows], train.unit_of[rows]
    return HeldOutRows(log_probs, torch.from_numpy(target), text_of, folds)


def _logits_of(config: TrainConfig, dataset: TextDataset) -> Tensor:
    """Choose layers and fusion, fit a head, and predict test. Shape: (rows of test, classes)."""
    (head,) = fit_heads(config, prepare_texts(config, dataset)).values()
    return head.logits["test"]


def _without(dataset: TextDataset, fold: np.ndarray) -> TextDataset:
    """Take a fold out of train, and put it in the place of test."""
    train = dataset.splits["train"]
    splits = {**dataset.splits, "train": train.take(~fold), "test": train.take(fold)}
    return replace(
        dataset,
        splits=splits,
        fingerprint=fingerprint(splits, dataset.label_names),
        train_order=None,
    )


@contextmanager
def _only_warnings() -> Iterator[None]:
    """Keep the choices within a fold from being told as if they were those of the job."""
    package = logging.getLogger(PACKAGE)
    level = package.level
    package.setLevel(logging.WARNING)
    try:
        yield
    finally:
        package.setLevel(level)
