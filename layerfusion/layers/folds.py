"""Folds of train: what selection learns from and what it judges on, test never being looked at."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from layerfusion.errors import UserError
from layerfusion.layers.probe import NEVER

log = logging.getLogger(__name__)

RARE_NAMED = 5
"""Classes with few texts that are told by name."""


def stratified_folds(
    labels: np.ndarray,
    texts: Sequence[Hashable],
    folds: int,
    *,
    seed: int,
    names: Sequence[str] = (),
) -> Tensor:
    """Deal the rows of train to folds, class by class.

    Rows with the same text share a fold, so that none is judged by a probe that has seen it. A
    class with a single text stays in every fit and is never held out.

    Args:
        labels: class indices. Shape: (rows,).
        texts: what tells the texts apart, for example their hashes.
        folds: how many folds, at least 2.
        seed: of the dealing.
        names: of the classes, for telling which have few texts.

    Returns:
        The fold that holds each row out, -1 where none does. Shape: (rows,), int64.

    Raises:
        UserError: where no class has as many texts as there are folds.
    """
    rng = np.random.default_rng(seed)
    first, unique = _first_rows(texts)
    result = np.full(len(labels), NEVER)
    counts = np.bincount(labels[unique])
    _refuse_too_many(folds, counts)
    dealt = 0
    for label in np.flatnonzero(counts > 1):
        rows = rng.permutation(unique[labels[unique] == label])
        result[rows] = (dealt + np.arange(len(rows))) % folds
        dealt += len(rows)
    _tell_rare(counts, folds, names)
    return torch.from_numpy(result[[first[text] for text in texts]])


def require_folds(labels: np.ndarray, texts: Sequence[Hashable], folds: int) -> None:
    """Refuse more folds than any class has different texts.

    Raises:
        UserError: with how many are possible.
    """
    _, unique = _first_rows(texts)
    _refuse_too_many(folds, np.bincount(labels[unique]))


def _refuse_too_many(folds: int, counts: np.ndarray) -> None:
    most = int(counts.max())
    if most < folds:
        possible = f"at most layers.folds={most} is possible" if most > 1 else "folds need two"
        raise UserError(
            f"layers.folds={folds}: the largest class has {most} different texts in train;"
            f" {possible}"
        )


def _first_rows(texts: Sequence[Hashable]) -> tuple[dict[Hashable, int], np.ndarray]:
    """Text to its first row, and these rows in order."""
    first = {text: row for row, text in reversed(list(enumerate(texts)))}
    return first, np.array(sorted(first.values()))


def _tell_rare(counts: np.ndarray, folds: int, names: Sequence[str]) -> None:
    rare = [c for c in np.argsort(counts, kind="stable").tolist() if 0 < counts[c] < folds]
    if not rare:
        return
    words = [f"{names[c] if names else c} {counts[c]}" for c in rare[:RARE_NAMED]]
    more = f" and {len(rare) - RARE_NAMED} more" if len(rare) > RARE_NAMED else ""
    log.info(
        "selection: %d of %d classes have fewer than layers.folds=%d texts in train (%s%s); they"
        " are judged in as many folds as they have texts, with a single one in none",
        len(rare),
        int((counts > 0).sum()),
        folds,
        ", ".join(words),
        more,
    )
