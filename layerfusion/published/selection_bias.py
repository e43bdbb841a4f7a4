"""The bias of a reported accuracy whose epoch was chosen on the same test rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from layerfusion.errors import UserError

HALVINGS = 100
"""Random halvings of test that the estimate is averaged over, each in both directions."""


@dataclass(frozen=True, eq=False)
class SelectionBias:
    """A claim and what is left of it once the epoch is chosen on other rows than those judged."""

    claimed: float
    """Best accuracy over the epochs, on the rows that it is the best of."""
    split_half: float
    """Accuracy on one half of the rows at the epoch that is best on the other half: mean over
    random halvings and both directions."""
    rows: np.ndarray
    """Share of the halvings in which a row is right; its mean is `split_half`. Shape: (rows,)."""

    @property
    def bias(self) -> float:
        """Claimed − split half: what the choice owes to having seen the rows it is judged on.

        A half chooses a little worse than all rows would, so the figure errs to the high side.
        """
        return self.claimed - self.split_half


def selection_bias(
    correct: np.ndarray, target: np.ndarray, *, seed: int = 0, halvings: int = HALVINGS
) -> SelectionBias:
    """Estimate the selection bias of the best epoch on test.

    Args:
        correct: whether a row is right after an epoch. Shape: (epochs, rows).
        target: class indices, within which rows are halved. Shape: (rows,).
        seed: of the halvings.
        halvings: how many.

    Raises:
        UserError: with fewer than two rows, which cannot be halved.
    """
    right = np.asarray(correct, dtype=np.float64)
    if right.shape[1] < 2:
        raise UserError(
            f"protocol=as_published: {right.shape[1]} test row cannot be halved to estimate the"
            " selection bias; at least 2 are needed"
        )
    size = right.shape[1]
    rows = np.zeros(size)
    for half in _halves(target, halvings, seed):
        for chooses, judges in ((half, ~half), (~half, half)):
            epoch = right[:, chooses].mean(axis=1).argmax()
            # Each half counts as much as the other, also where one has a row more.
            rows[judges] += right[epoch, judges] * (size / (2 * judges.sum()))
    rows /= halvings
    return SelectionBias(float(right.mean(axis=1).max()), float(rows.mean()), rows)


def _halves(target: np.ndarray, halvings: int, seed: int) -> Iterator[np.ndarray]:
    """Random halves of the rows and of each class, exact to a row. Shape: (rows,), bool."""
    generator = np.random.default_rng(seed)
    for _ in range(halvings):
        # Dealt in turn from the rows in random order within their classes.
        order = np.lexsort((generator.random(len(target)), target))
        half = np.zeros(len(target), dtype=bool)
        half[order[generator.integers(2) :: 2]] = True
        yield half
