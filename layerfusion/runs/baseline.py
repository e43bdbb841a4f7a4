"""The baseline that any model has to beat: TF-IDF and logistic regression on the whole text."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from layerfusion.assets.memo import computed_once, hash_of, read_facts, write_facts
from layerfusion.config.job import MACRO_F1, MICRO_F1, REGRESSION
from layerfusion.fusion.objective import costs
from layerfusion.layers.labels import answers, is_multilabel, log_probabilities, right_rows
from layerfusion.layers.lexical_regression import (
    C_VALUES,
    LexicalRegression,
    count,
    predict_folds,
)
from layerfusion.progress import counted
from layerfusion.records.job import BaselineRecord
from layerfusion.statistics.intervals import metric_intervals
from layerfusion.statistics.metrics import evaluate
from layerfusion.texts.dataset import TextDataset
from layerfusion.texts.groups import ALWAYS_LEARNED, deal_groups, has_groups
from layerfusion.texts.sampling import first_rows, strata
from layerfusion.texts.tfidf import FEATURES, PRUNE_ROWS

log = logging.getLogger(__name__)

BASELINE_VERSION = 6
"""Raise it with any change to this file that changes a baseline."""

FOLDS = 3
CHOICE_WORK = 60e6
"""Largest number of characters × classes in a cross-validation: about a minute on one core. If
train has more, the choice is made on a stratified sample of it, but the fit uses all rows."""


@dataclass(frozen=True)
class _Choice:
    features: str
    c: float
    cross_validation: dict[str, float]


def compute_baseline(
    dataset: TextDataset, cache: Path, seed: int = 0
) -> tuple[BaselineRecord, np.ndarray]:
    """Return the baseline of a data set, which is computed once and kept in `cache/floors`.

    Features and regularisation are chosen by stratified cross-validation on train and validation,
    whose folds share no text; the classifier is then fitted on both and evaluated on test.

    Args:
        dataset: the texts.
        cache: folder of the caches.
        seed: seed of the folds, the solver and the bootstrap.

    Returns:
        The record, and the predicted class indices of the test rows, shape (rows,), or the labels
        named, shape (rows, labels).
    """
    path = cache / "floors" / f"{_key(dataset, seed)}.json"
    # Jobs of a sweep start together and need the same baseline, so one computes it, the rest wait.
    return computed_once(
        path, lambda: _told(dataset, seed), _write, lambda path: _read(path, dataset)
    )


def _told(dataset: TextDataset, seed: int) -> tuple[BaselineRecord, np.ndarray]:
    with counted("baseline"):
        return _compute(dataset, seed)


def _key(dataset: TextDataset, seed: int) -> str:
    learned, test = _texts_of(dataset)
    units = [unit for name in ("train", "validation") for unit in dataset.splits[name].units]
    settings = {
        # Where no text is repeated, baselines from before texts were dealt together still hold.
        **({"dealt": "texts"} if _repeats(learned) or _repeats(test) else {}),
        **({"dealt": "groups"} if has_groups(units) else {}),
        **({"intervals": MICRO_F1} if dataset.multilabel else {}),
        "version": BASELINE_VERSION,
        "features": FEATURES,
        "c": C_VALUES,
        "folds": FOLDS,
        "choice_work": CHOICE_WORK,
        "prune_rows": PRUNE_ROWS,
        "data": dataset.coding,
        "rows": {name: len(split.texts) for name, split in dataset.splits.items()},
        "seed": seed,
    }
    return hash_of(settings, spaced=True)[:32]


def _texts_of(dataset: TextDataset) -> tuple[list[str], Sequence[str]]:
    """Return the texts that a baseline learns from, and those of test."""
    train, validation, test = (dataset.splits[name] for name in ("train", "validation", "test"))
    return [*train.texts, *validation.texts], test.texts


def _repeats(texts: Sequence[str]) -> bool:
    return len(set(texts)) < len(texts)


def _write(path: Path, computed: tuple[BaselineRecord, np.ndarray]) -> None:
    write_facts(path, {"record": asdict(computed[0]), "preds": computed[1].tolist()})


def _read(path: Path, dataset: TextDataset) -> tuple[BaselineRecord, np.ndarray] | None:
    """Read a cached baseline; None if there is none, or it is damaged."""
    content = read_facts(path, "baseline")
    if content is None:
        return None
    try:
        record = BaselineRecord(**content["record"])
        preds = np.asarray(content["preds"], dtype=dataset.splits["test"].labels.dtype)
    except (ValueError, KeyError, TypeError):
        log.warning("baseline: %s is damaged; computing it again", path)
        return None
    rows = dataset.splits["test"].labels
    same = (preds == rows).reshape(len(rows), -1).all(axis=1) if preds.shape == rows.shape else None
    accuracy = -1.0 if same is None else float(same.mean())
    if not np.isclose(accuracy, record.test.get("accuracy", -2.0)):
        log.warning("baseline: %s does not belong to %s; computing it again", path, dataset.name)
        return None
    return record, preds


def _compute(dataset: TextDataset, seed: int) -> tuple[BaselineRecord, np.ndarray]:
    log.info("baseline: TF-IDF and logistic regression on %s …", dataset.name)
    started = time.perf_counter()
    train, validation, test = (dataset.splits[name] for name in ("train", "validation", "test"))
    texts, tested = _texts_of(dataset)
    target = np.concatenate([train.labels, validation.labels])
    num_classes = len(dataset.label_names)

    units = [*train.units, *validation.units]
    choice = _choose(texts, units, target, num_classes, seed)
    regression = LexicalRegression.fit(
        choice.features, texts, target, choice.c, num_classes=num_classes, seed=seed
    )
    multilabel = dataset.multilabel
    log_probs = regression.vectors(tested)
    if multilabel:
        log_probs = log_probabilities(log_probs, multilabel=True)
    preds = answers(log_probs, multilabel=multilabel).numpy()
    intervals = metric_intervals(test.labels, preds[None], seed, text_of=test.unit_of)
    macro_f1, micro_f1 = (intervals.get(name, (None, None)) for name in (MACRO_F1, MICRO_F1))
    record = BaselineRecord(
        features=choice.features,
        c=choice.c,
        cross_validation=choice.cross_validation,
        test=evaluate(log_probs, test.labels),
        low=intervals["accuracy"][0],
        high=intervals["accuracy"][1],
        seconds=time.perf_counter() - started,
        macro_f1_low=macro_f1[0],
        macro_f1_high=macro_f1[1],
        micro_f1_low=micro_f1[0],
        micro_f1_high=micro_f1[1],
    )
    return record, preds


def _choose(
    texts: Sequence[str],
    units: Sequence[Hashable],
    target: np.ndarray,
    num_classes: int,
    seed: int,
) -> _Choice:
    """Choose the features and the C with the best cross-validated accuracy, the first on a tie.

    Of several labels a text, it is micro-F1: hardly any text may have all of them right.
    """
    work = sum(map(len, texts)) * (num_classes if num_classes > 2 else 1)
    stratum = strata(target)
    sample = _deal(stratum, texts, math.ceil(work / CHOICE_WORK), seed) == 0
    some, target = list(itertools.compress(texts, sample)), target[sample]
    fold_of = _folds(target, list(itertools.compress(units, sample)), seed)
    judged = torch.from_numpy(fold_of != ALWAYS_LEARNED)
    truth = torch.from_numpy(target)[judged]
    worth: dict[tuple[str, float], float] = {}
    kinds = [(count(name, some), REGRESSION) for name in FEATURES]
    predicted = predict_folds(kinds, target, fold_of, num_classes=num_classes, seed=seed)
    for name, by_strength in zip(FEATURES, predicted, strict=True):
        for c, log_probs in by_strength.items():
            said = torch.from_numpy(log_probs)[judged]
            if is_multilabel(truth):
                worth[name, c] = 1 - float(costs(MICRO_F1, said, truth).mean())
            else:
                worth[name, c] = float(right_rows(said, truth).double().mean())
    features, c = max(worth, key=lambda candidate: worth[candidate])
    listed = {f"{name}, C={c:g}": value for (name, c), value in worth.items()}
    return _Choice(features, c, listed)


def _folds(target: np.ndarray, units: Sequence[Hashable], seed: int) -> np.ndarray:
    """Deal rows to folds by texts, or by groups where two of these can be held out.

    Args:
        target: class indices, shape (rows,), or labels, shape (rows, labels).
        units: as for `_deal`.
        seed: seed of the deal.

    Returns:
        The fold of each row, or `ALWAYS_LEARNED`. Shape: (rows,), int64.
    """
    if has_groups(units):
        fold_of = deal_groups(target, units, FOLDS, seed=seed)
        if fold_of.max() > 0:
            return fold_of
    return _deal(strata(target), units, FOLDS, seed)


def _deal(target: np.ndarray, units: Sequence[Hashable], parts: int, seed: int) -> np.ndarray:
    """Assign each text to a part, class by class, so that every part has its share of each class.

    All rows of a text, or group, are in the part of the first of them: a part is judged by what has
    not seen it. Unlike scikit-learn's StratifiedGroupKFold, this allows classes with fewer texts
    than parts.

    Args:
        target: class by which each row is dealt. Shape: (rows,).
        units: what tells apart independent rows, as `Split.units`.
        parts: number of parts.
        seed: seed of the deal.

    Returns:
        The part of each row. Shape: (rows,), int64.
    """
    first, of_row = np.unique(first_rows(units), return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(first))
    by_class = shuffled[np.argsort(target[first[shuffled]], kind="stable")]
    part = np.empty(len(first), dtype=np.int64)
    part[by_class] = np.arange(len(first)) % parts
    return part[of_row]
