"""Seeded stratified samples: they have exact sizes, keep class proportions and rare classes."""

from __future__ import annotations

import zlib

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


def hold_out(labels: np.ndarray, share: float, *, seed: int, purpose: str) -> np.ndarray:
    """Choose the rows that leave train for another split; every class keeps a row in train.

    Args:
        labels: class indices. Shape: (rows,).
        share: share of the rows that leave, between 0 and 1.
        seed: draws the rows.
        purpose: the split that they go to; each purpose has independent draws for a seed.

    Returns:
        True for the rows that leave. Shape: (rows,).

    Raises:
        UserError: if every class has one row only.
    """
    counts = np.bincount(labels)
    sizes = _hold_out_sizes(counts, share, purpose)
    return _draw(labels, sizes, seed, purpose)


def hold_out_size(labels: np.ndarray, share: float, purpose: str) -> int:
    """Count the rows that `hold_out` would take."""
    return int(_hold_out_sizes(np.bincount(labels), share, purpose).sum())


def sample(labels: np.ndarray, size: int, *, seed: int, purpose: str) -> np.ndarray:
    """Draw a sample without replacement; every class keeps a row if `size` allows it.

    Args:
        labels: class indices. Shape: (rows,).
        size: number of rows, at most all.
        seed: draws the rows.
        purpose: what the sample is for; each purpose has independent draws for a seed.

    Returns:
        True for the rows in the sample. Shape: (rows,).
    """
    counts = np.bincount(labels)
    least = np.minimum(counts, 1)
    if size < least.sum():
        least = np.zeros_like(counts)
    return _draw(labels, allocate(counts, size, least, counts), seed, purpose)


def sample_classes(labels: np.ndarray, most: int, *, seed: int, purpose: str) -> np.ndarray:
    """Draw the same number of rows from every class, or all rows of a class that has fewer.

    Args:
        labels: class indices. Shape: (rows,).
        most: number of rows of each class.
        seed: draws the rows.
        purpose: what the sample is for; each purpose has independent draws for a seed.

    Returns:
        True for the rows in the sample. Shape: (rows,).
    """
    return _draw(labels, np.minimum(np.bincount(labels), most), seed, purpose)


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


def _hold_out_sizes(counts: np.ndarray, share: float, purpose: str) -> np.ndarray:
    most = np.maximum(counts - 1, 0)
    if not most.any():
        raise UserError(
            f"every class of train has one row only, so none can become {purpose}; more rows are"
            f" needed, or a file for {purpose}"
        )
    wanted = max(1, round(float(counts.sum()) * share))
    return allocate(counts, wanted, np.zeros_like(counts), most)


def _draw(labels: np.ndarray, sizes: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """Take the first rows of one permutation per class.

    So a larger sample contains nearly all rows of a smaller one.
    """
    generator = np.random.default_rng([seed, zlib.crc32(purpose.encode())])
    drawn = np.zeros(len(labels), dtype=bool)
    for label, size in enumerate(sizes):
        rows = np.flatnonzero(labels == label)
        drawn[generator.permutation(rows)[:size]] = True
    return drawn
