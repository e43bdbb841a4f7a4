"""Folds of train, so that selections learn and judge on different rows and never look at test."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from layerfusion.errors import UserError
from layerfusion.layers.probe import NEVER
from layerfusion.texts.groups import ALWAYS_LEARNED, deal_groups, has_groups, refuse_few
from layerfusion.texts.sampling import first_rows, strata

log = logging.getLogger(__name__)

RARE_NAMED = 5
"""At most this many classes with few texts are named in the message."""


def stratified_folds(
    labels: np.ndarray,
    texts: Sequence[Hashable],
    folds: int,
    *,
    seed: int,
    names: Sequence[str] = (),
) -> Tensor:
    """Assign the rows of train to folds, class by class.

    Rows with the same text share a fold, so that no row is judged by a probe that has seen its
    text. A class with a single text is part of every fit and never held out. Where rows have
    groups, these share a fold instead: see `deal_groups`.

    Args:
        labels: class indices, shape (rows,), or labels, shape (rows, labels); see `dealt_by`.
        texts: the texts, or anything that tells them apart: their hashes, or `Split.units`.
        folds: number of folds, at least 2. No more are dealt than `possible_folds` says.
        seed: draws the order of the rows.
        names: names of the classes, for the message about those with few texts.

    Returns:
        The fold in which each row is held out, -1 if it never is. Shape: (rows,), int64.

    Raises:
        UserError: if no class has two different texts, or groups.
    """
    if has_groups(texts):
        return torch.from_numpy(_folds_of_groups(labels, texts, folds, seed))
    rng = np.random.default_rng(seed)
    first, unique = _first_rows(texts)
    classes = dealt_by(labels[unique])
    fold_of = np.full(len(labels), NEVER)
    counts = np.bincount(classes)
    folds = _possible(folds, counts)
    dealt = 0
    for label in np.flatnonzero(counts > 1):
        rows = rng.permutation(unique[classes == label])
        fold_of[rows] = (dealt + np.arange(len(rows))) % folds
        dealt += len(rows)
    if labels.ndim == 2:
        _log_rare("labels", labels[unique].sum(axis=0), folds, names)
    else:
        _log_rare("classes", counts, folds, names)
    return torch.from_numpy(fold_of[[first[text] for text in texts]])


def _folds_of_groups(
    labels: np.ndarray, units: Sequence[Hashable], folds: int, seed: int
) -> np.ndarray:
    """Deal whole groups to folds, and say how many are always learned from."""
    fold_of = _deal(labels, units, folds, seed)
    kept = fold_of == ALWAYS_LEARNED
    if kept.any():
        log.info(
            "selection: %d of %d groups of train, with %d rows, are never held out: some class has"
            " too few others",
            len(set(first_rows(units)[kept])),
            len(set(units)),
            kept.sum(),
        )
    return np.where(kept, NEVER, fold_of)


def _deal(labels: np.ndarray, units: Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    fold_of = deal_groups(labels, units, folds, seed=seed)
    refuse_few(fold_of, f"layers.folds={folds}: ")
    return fold_of


def possible_folds(labels: np.ndarray, texts: Sequence[Hashable], folds: int, *, seed: int) -> int:
    """Return the number of folds that are dealt: `folds`, or what the largest class has texts for.

    With more folds than that, some would hold out no row. Groups are dealt to no more folds than
    there are of them.

    Args:
        labels: as for `stratified_folds`.
        texts: as there.
        folds: as there.
        seed: as there; it may matter where there are few groups.

    Raises:
        UserError: if no class has two different texts, or groups.
    """
    if has_groups(texts):
        return int(_deal(labels, texts, folds, seed).max()) + 1
    _, unique = _first_rows(texts)
    return _possible(folds, np.bincount(dealt_by(labels[unique])))


def dealt_by(labels: np.ndarray) -> np.ndarray:
    """Return the class by which each row is dealt to the folds.

    That is its class in `strata`. Of rows with several labels, those that are alone in theirs are
    dealt together, unless no other row has any of their labels: else a row would never be held out
    because one of its labels is rare.

    Args:
        labels: those of rows with different texts; class indices, shape (rows,), or labels, shape
            (rows, labels).

    Returns:
        Shape: (rows,), int64.

    Example:
        >>> dealt_by(np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=bool)).tolist()
        [5, 5, 3]
    """
    classes = strata(labels)
    if labels.ndim == 1:
        return classes
    alone = np.bincount(classes)[classes] == 1
    shares = labels[:, labels.sum(axis=0) > 1].any(axis=1)
    return np.where(alone & shares, labels.shape[1] + 1, classes)


def _possible(folds: int, counts: np.ndarray) -> int:
    most = int(counts.max())
    if most < 2:
        raise UserError(
            f"layers.folds={folds}: no class has two different texts in train; folds need two"
        )
    return min(folds, most)


def _first_rows(texts: Sequence[Hashable]) -> tuple[dict[Hashable, int], np.ndarray]:
    """Map each text to the first row that has it, and list these rows in ascending order."""
    first = {text: row for row, text in reversed(list(enumerate(texts)))}
    return first, np.array(sorted(first.values()))


def _log_rare(kind: str, counts: np.ndarray, folds: int, names: Sequence[str]) -> None:
    rare = [c for c in np.argsort(counts, kind="stable").tolist() if 0 < counts[c] < folds]
    if not rare:
        return
    names = names or list(map(str, range(len(counts))))
    words = [f"{names[c]} {counts[c]}" for c in rare[:RARE_NAMED]]
    more = f" and {len(rare) - RARE_NAMED} more" if len(rare) > RARE_NAMED else ""
    log.info(
        "selection: %d of %d %s have fewer than layers.folds=%d texts in train (%s%s); they"
        " are judged in as many folds as they have texts%s",
        len(rare),
        int((counts > 0).sum()),
        kind,
        folds,
        ", ".join(words),
        more,
        " at most" if kind == "labels" else ", with a single one in none",
    )
