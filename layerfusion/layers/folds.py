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


def stratified_folds(
    labels: np.ndarray, texts: Sequence[Hashable], folds: int, *, seed: int
) -> Tensor:
    """Deal the rows of train to folds, class by class.

    Rows with the same text share a fold, so that none is judged by a probe that has seen it. A
    class with a single text stays in every fit and is never held out.

    Args:
        labels: class indices. Shape: (rows,).
        texts: what tells the texts apart, for example their hashes.
        folds: how many folds, at least 2.
        seed: of the dealing.

    Returns:
        The fold that holds each row out, -1 where none does. Shape: (rows,), int64.

    Raises:
        UserError: where no class has as many texts as there are folds.
    """
    rng = np.random.default_rng(seed)
    first = {text: row for row, text in reversed(list(enumerate(texts)))}
    unique = np.array(sorted(first.values()))
    result = np.full(len(labels), NEVER)
    counts = np.bincount(labels[unique])
    most = int(counts.max())
    if most < folds:
        possible = f"at most layers.folds={most} is possible" if most > 1 else "folds need two"
        raise UserError(
            f"layers.folds={folds}: the largest class has {most} different texts in train;"
            f" {possible}"
        )
    dealt = 0
    for label in np.flatnonzero(counts > 1):
        rows = rng.permutation(unique[labels[unique] == label])
        result[rows] = (dealt + np.arange(len(rows))) % folds
        dealt += len(rows)
    rare = int(((counts > 0) & (counts < folds)).sum())
    if rare:
        log.info(
            "selection: %d of %d classes have fewer than %d texts in train; they are judged in as"
            " many folds as they have texts, with a single one in none",
            rare,
            int((counts > 0).sum()),
            folds,
        )
    return torch.from_numpy(result[[first[text] for text in texts]])
