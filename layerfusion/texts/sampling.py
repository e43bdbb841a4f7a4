"""Seeded stratified samples: they have exact sizes, keep class proportions and rare classes."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Sequence

import numpy as np

from layerfusion.errors import UserError


def strata(labels: np.ndarray) -> np.ndarray:
    """Return the class by which each row is stratified.

    That is its label, where a row has one. Of several labels it is the rarest one, since that is
    the first to be missing from a sample, as in iterative stratification (Sechidis, Tsoumakas and
    Vlahavas, ECML PKDD 2011); rows without a label are a class of their own.

    Args:
        labels: class indices, shape (rows,), or true where a row has a label, shape (rows, labels).

    Returns:
        Shape: (rows,), int64.

    Example:
        >>> strata(np.array([[True, True], [True, False], [False, False]])).tolist()
        [1, 0, 2]
    """
    if labels.ndim == 1:
        return labels
    counts = labels.sum(axis=0)
    counts = np.where(labels, counts, len(labels) + 1)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), labels.shape[1]).astype(np.int64)


def needed(labels: np.ndarray) -> np.ndarray:
    """Choose rows which together have every label, and lack every label that a row lacks.

    A sample with these rows loses no label, and gives none to all of its rows. Where each row has
    one label, a row of each class does as well as another, so that none is chosen.

    Args:
        labels: as for `strata`.

    Returns:
        Shape: (rows,), bool.

    Example:
        >>> needed(np.array([[True, True], [True, False], [True, True], [False, True]])).tolist()
        [False, True, False, True]
    """
    chosen = np.zeros(len(labels), dtype=bool)
    if labels.ndim == 1:
        return chosen
    sides = np.concatenate([labels, ~labels], axis=1)
    counts = sides.sum(axis=0)
    done = counts == 0
    for side in np.argsort(counts, kind="stable"):
        if not done[side]:
            row = sides[:, side].argmax()
            chosen[row] = True
            done |= sides[row]
    return chosen


def fewest(labels: np.ndarray) -> int:
    """Count the rows that a sample has at least which loses no label."""
    return int(_least(labels).sum())


def hold_out(labels: np.ndarray, share: float, *, seed: int, purpose: str) -> np.ndarray:
    """Choose the rows that leave train for another split; every label keeps a row in train.

    Args:
        labels: as for `strata`.
        share: share of the rows that leave, between 0 and 1.
        seed: draws the rows.
        purpose: the split that they go to; each purpose has independent draws for a seed.

    Returns:
        True for the rows that leave. Shape: (rows,).

    Raises:
        UserError: if every class has one row only, or every row is needed for some label.
    """
    sizes = _hold_out_sizes(labels, share, purpose)
    return _draw(strata(labels), sizes, ~needed(labels), seed, purpose)


def hold_out_texts(
    labels: np.ndarray, texts: Sequence[Hashable], share: float, *, seed: int, purpose: str
) -> np.ndarray:
    """Choose rows as `hold_out` does, where rows with the same text stay or leave together.

    Args:
        labels: as for `strata`.
        texts: text of each row.
        share: share of the texts that leave, between 0 and 1.
        seed: draws the texts.
        purpose: the split that they go to.

    Returns:
        True for the rows that leave. Shape: (rows,).

    Raises:
        UserError: as `hold_out`.
    """
    first = first_rows(texts)
    unique = np.unique(first)
    leaves = hold_out(labels[unique], share, seed=seed, purpose=purpose)
    return np.isin(first, unique[leaves])


def hold_out_together(
    labels: np.ndarray, texts: Sequence[str], share: float, *, seed: int, purpose: str
) -> np.ndarray:
    """Choose rows as `hold_out` does, and let all rows of a text go where the first of them goes.

    So rows whose text is not repeated are those that `hold_out` chooses. A text with more rows than
    are to leave stays, and so do texts without which a label would lose its last row of train, or
    the last that lacks it. If no text leaves then, whole texts are drawn as by `hold_out_texts`;
    where that finds none either, rows leave as they were drawn, and their texts are in both parts.

    Args:
        labels: as for `strata`.
        texts: text of each row.
        share: share of the rows that leave, between 0 and 1.
        seed: draws the rows.
        purpose: the split that they go to.

    Returns:
        True for the rows that leave. Shape: (rows,).

    Raises:
        UserError: as `hold_out`.

    Example:
        >>> texts = ["a", "b", "a", "c", "c", "d"]
        >>> leaves = hold_out_together(np.array([0, 0, 0, 1, 1, 1]), texts, 0.4, seed=0,
        ...                            purpose="test")
        >>> {text for text, left in zip(texts, leaves) if left} & {
        ...     text for text, left in zip(texts, leaves) if not left}
        set()
    """
    leaves = hold_out(labels, share, seed=seed, purpose=purpose)
    first = first_rows(texts)
    fits = np.bincount(first)[first] <= leaves.sum()
    together = _without_loss(leaves[first] & fits, leaves, labels, first)
    if together.any():
        return together
    try:
        drawn = hold_out_texts(labels, texts, share, seed=seed, purpose=purpose)
    except UserError:  # each class has a single text
        return leaves
    together = _without_loss(drawn & fits, leaves, labels, first)
    return together if together.any() else leaves


def _without_loss(
    together: np.ndarray, leaves: np.ndarray, labels: np.ndarray, first: np.ndarray
) -> np.ndarray:
    """Let texts stay without which train would lose a label that it keeps where `leaves` go.

    Args:
        together: true for the rows that are to leave, whole texts. Shape: (rows,), bool.
        leaves: true for the rows that were drawn one by one. Shape: (rows,), bool.
        labels: as for `strata`.
        first: the first row with the text of each row. Shape: (rows,).
    """
    if labels.ndim == 1:
        lost = ~np.isin(labels, labels[~together]) & np.isin(labels, labels[~leaves])
    else:
        sides = np.concatenate([labels, ~labels], axis=1)
        gone = sides[~leaves].any(axis=0) & ~sides[~together].any(axis=0)
        lost = sides[:, gone].any(axis=1)
    return together & ~np.isin(first, first[lost])


def first_rows(texts: Sequence[Hashable]) -> np.ndarray:
    """Return, for each row, the first row that has the same text. Shape: (rows,), int64.

    Args:
        texts: of the rows, or whatever else tells them apart, such as `groups.units_of`.

    Example:
        >>> first_rows(["a", "b", "a"]).tolist()
        [0, 1, 0]
    """
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(text, row) for row, text in enumerate(texts)], np.int64)


def sample(labels: np.ndarray, size: int, *, seed: int, purpose: str) -> np.ndarray:
    """Draw a sample without replacement; every label keeps a row if `size` allows it.

    Args:
        labels: as for `strata`.
        size: number of rows, at most all.
        seed: draws the rows.
        purpose: what the sample is for; each purpose has independent draws for a seed.

    Returns:
        True for the rows in the sample. Shape: (rows,).
    """
    classes = strata(labels)
    counts, least = np.bincount(classes), _least(labels)
    if size < least.sum():
        least = np.zeros_like(counts)
    return _draw(classes, allocate(counts, size, least, counts), needed(labels), seed, purpose)


def sample_classes(labels: np.ndarray, most: int, *, seed: int, purpose: str) -> np.ndarray:
    """Draw the same number of rows from every class, or all rows of a class that has fewer.

    A row with several labels counts as one of its class in `strata`.

    Args:
        labels: as for `strata`.
        most: number of rows of each class.
        seed: draws the rows.
        purpose: what the sample is for; each purpose has independent draws for a seed.

    Returns:
        True for the rows in the sample. Shape: (rows,).
    """
    classes, first = strata(labels), needed(labels)
    counts = np.bincount(classes)
    sizes = np.maximum(np.minimum(counts, most), np.bincount(classes[first], minlength=len(counts)))
    return _draw(classes, sizes, first, seed, purpose)


def allocate(counts: np.ndarray, total: int, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Share out `total` in proportion to `counts`, by largest remainder, within bounds.

    Args:
        counts: rows of each class. Shape: (classes,).
        total: number of rows to share out; it is clipped to the sums of the bounds.
        least: lower bound for each class. Shape: (classes,).
        most: upper bound for each class. Shape: (classes,).

    Example:
        >>> counts = np.array([90, 9, 1])
        >>> allocate(counts, 10, least=np.minimum(counts, 1), most=counts).tolist()
        [8, 1, 1]
    """
    total = int(np.clip(total, least.sum(), most.sum()))
    quota = counts * (total / counts.sum())
    sizes = np.clip(np.floor(quota).astype(np.int64), least, most)
    while (short := total - int(sizes.sum())) != 0:
        step = 1 if short > 0 else -1
        free = sizes < most if step > 0 else sizes > least
        # Ties go to the first class, so that the result is deterministic.
        sizes[np.argmax(np.where(free, step * (quota - sizes), -np.inf))] += step
    return sizes


def _least(labels: np.ndarray) -> np.ndarray:
    """Count the rows of each class that keep every label. Shape: (classes,)."""
    classes = strata(labels)
    counts = np.bincount(classes)
    if labels.ndim == 1:
        return np.minimum(counts, 1)
    return np.bincount(classes[needed(labels)], minlength=len(counts))


def _hold_out_sizes(labels: np.ndarray, share: float, purpose: str) -> np.ndarray:
    counts = np.bincount(strata(labels))
    most = counts - _least(labels)
    if not most.any():
        why = "every class of train has one row only"
        if labels.ndim == 2:
            why = "train has no more rows than its labels need"
        raise UserError(
            f"{why}, so none can become {purpose}; more rows are needed, or a file for {purpose}"
        )
    wanted = max(1, round(float(counts.sum()) * share))
    return allocate(counts, wanted, np.zeros_like(counts), most)


def _draw(
    classes: np.ndarray, sizes: np.ndarray, first: np.ndarray, seed: int, purpose: str
) -> np.ndarray:
    """Take the first rows of one permutation per class.

    So a larger sample contains nearly all rows of a smaller one. Rows that are true in `first` go
    before the others of their class.
    """
    generator = np.random.default_rng([seed, zlib.crc32(purpose.encode())])
    drawn = np.zeros(len(classes), dtype=bool)
    for label, size in enumerate(sizes):
        rows = generator.permutation(np.flatnonzero(classes == label))
        rows = rows[np.argsort(~first[rows], kind="stable")]
        drawn[rows[:size]] = True
    return drawn
