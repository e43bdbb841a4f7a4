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
    correct: np.ndarray,
    target: np.ndarray,
    *,
    text_of: np.ndarray | None,
    seed: int = 0,
    halvings: int = HALVINGS,
) -> SelectionBias:
    """Estimate the selection bias of the best epoch on test.

    Args:
        correct: whether a row is right after an epoch. Shape: (epochs, rows).
        target: class indices, within which rows are halved. Shape: (rows,).
        text_of: number of the text of each row; None if all differ. Shape: (rows,). All rows of a
            text are in one half, that of the first of them.
        seed: of the halvings.
        halvings: how many.

    Raises:
        UserError: with fewer than two texts, which cannot be halved.
    """
    right = np.asarray(correct, dtype=np.float64)
    size = right.shape[1]
    _, first, of_row = np.unique(
        np.arange(size) if text_of is None else text_of, return_index=True, return_inverse=True
    )
    if len(first) < 2:
        raise UserError(
            f"protocol=as_published: {alike_words(size)} cannot be halved to estimate the"
            " selection bias; at least 2 with different texts are needed"
        )
    rows = np.zeros(size)
    for texts in _halves(target[first], halvings, seed):
        half = texts[of_row]
        for chooses, judges in ((half, ~half), (~half, half)):
            epoch = right[:, chooses].mean(axis=1).argmax()
            # Each half counts as much as the other, also where one has a row more.
            rows[judges] += right[epoch, judges] * (size / (2 * judges.sum()))
    rows /= halvings
    return SelectionBias(float(right.mean(axis=1).max()), float(rows.mean()), rows)


def alike_words(rows: int) -> str:
    """Name the rows of a test that has one text: 1 test row, or 40 test rows with the same text."""
    return "1 test row" if rows == 1 else f"{rows:,} test rows with the same text"


def _halves(target: np.ndarray, halvings: int, seed: int) -> Iterator[np.ndarray]:
    """Random halves of texts and of each class, exact to a text. Shape: (texts,), bool."""
    generator = np.random.default_rng(seed)
    for _ in range(halvings):
        # Dealt in turn from the texts in random order within their classes.
        order = np.lexsort((generator.random(len(target)), target))
        half = np.zeros(len(target), dtype=bool)
        half[order[generator.integers(2) :: 2]] = True
        yield half
