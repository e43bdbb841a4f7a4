"""Seeded, stratified samples of rows: exact sizes, classes in proportion, rare classes kept."""

from __future__ import annotations

import zlib

import numpy as np

from layerfusion.errors import UserError


def hold_out(labels: np.ndarray, share: float, *, seed: int, purpose: str) -> np.ndarray:
    """Rows that leave train for another split; every class keeps a row in train.

    Args:
        labels: class indices. Shape: (rows,).
        share: of the rows, between 0 and 1.
        seed: draws the rows.
        purpose: the split they go to; it makes the draws of one seed independent.

    Returns:
        True for the rows that leave. Shape: (rows,).

    Raises:
        UserError: where every class has one row only.
    """
    counts = np.bincount(labels)
    sizes = _hold_out_sizes(counts, share, purpose)
    return _draw(labels, sizes, seed, purpose)


def hold_out_size(labels: np.ndarray, share: float, purpose: str) -> int:
    """How many rows `hold_out` would take."""
    return int(_hold_out_sizes(np.bincount(labels), share, purpose).sum())


def sample(labels: np.ndarray, size: int, *, seed: int, purpose: str) -> np.ndarray:
    """A sample without replacement; every class keeps a row where `size` allows it.

    Args:
        labels: class indices. Shape: (rows,).
        size: rows wanted, at most those there are.
        seed: draws the rows.
        purpose: makes the draws of one seed independent of each other.

    Returns:
        True for the rows in the sample. Shape: (rows,).
    """
    counts = np.bincount(labels)
    least = np.minimum(counts, 1)
    if size < least.sum():
        least = np.zeros_like(counts)
    return _draw(labels, allocate(counts, size, least, counts), seed, purpose)


def sample_classes(labels: np.ndarray, most: int, *, seed: int, purpose: str) -> np.ndarray:
    """A sample of as many rows of every class, or of all where a class has fewer.

    Args:
        labels: class indices. Shape: (rows,).
        most: rows of a class.
        seed: draws the rows.
        purpose: makes the draws of one seed independent of each other.

    Returns:
        True for the rows in the sample. Shape: (rows,).
    """
    return _draw(labels, np.minimum(np.bincount(labels), most), seed, purpose)


def allocate(counts: np.ndarray, total: int, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Share out `total` in proportion to `counts`, by largest remainder, within bounds.

    Args:
        counts: rows of each class. Shape: (classes,).
        total: rows to share out; brought within the sums of the bounds.
        least: fewest of each class. Shape: (classes,).
        most: most of each class. Shape: (classes,).
    """
    total = int(np.clip(total, least.sum(), most.sum()))
    quota = counts * (total / counts.sum())
    sizes = np.clip(np.floor(quota).astype(np.int64), least, most)
    while (short := total - int(sizes.sum())) != 0:
        step = 1 if short > 0 else -1
        free = sizes < most if step > 0 else sizes > least
        # Ties go to the first class, so that the result depends on nothing else.
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
    """The first rows of one permutation a class: a larger sample holds nearly all of a smaller."""
    generator = np.random.default_rng([seed, zlib.crc32(purpose.encode())])
    drawn = np.zeros(len(labels), dtype=bool)
    for label, size in enumerate(sizes):
        rows = np.flatnonzero(labels == label)
        drawn[generator.permutation(rows)[:size]] = True
    return drawn
