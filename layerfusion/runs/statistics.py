"""What the noise of a figure is: over seeds and over test rows.

Every interval is a percentile bootstrap over test rows (Efron, 1979), stratified by class: rows are
drawn anew within each true class, whose size stays what it is. So it says how much a figure would
change with other test texts of the same classes in the same numbers, not with other seeds and not
with other class sizes. Where test is a plain random sample and the classes differ in accuracy, the
interval is a little too narrow for the accuracy of the whole population; and a class of one row can
only repeat that row, so what rare classes contribute (most of all to macro-F1) counts as certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from layerfusion.errors import UserError

_CHUNK_CELLS = 4_000_000
"""Numbers drawn at once: 32 MB."""
RESAMPLES = 20_000
"""Of a difference, whose interval may end close to zero."""
LEVEL = 0.95

Verdict = Literal["gain", "loss", "open"]


@dataclass(frozen=True)
class Difference:
    """How much more accurate one system is than another on the same test rows."""

    mean: float
    low: float
    high: float
    rows: int

    @property
    def verdict(self) -> Verdict:
        """`gain` or `loss` where the interval leaves zero out, else `open`."""
        if self.low > 0:
            return "gain"
        return "loss" if self.high < 0 else "open"


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); no deviation for one value.

    Raises:
        UserError: where there is no value.
    """
    if not len(values):
        raise UserError("statistics: the mean of no values was asked for")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else None


def bootstrap_interval(
    correct: np.ndarray,
    target: np.ndarray,
    seed: int = 0,
    *,
    resamples: int = 2000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Stratified bootstrap interval of the mean over test rows.

    Args:
        correct: how often each row was right, in [0, 1]. Shape: (rows,), or (seeds, rows), which
            is averaged over the seeds first: a row is drawn with all its seeds.
        target: the true class of each row, within which rows are drawn. Shape: (rows,).
        seed: of the resampling.
        resamples: number of resamples.
        level: share of the resamples that the interval holds.

    Raises:
        UserError: where there is no row, or not one label a row.
    """
    rows = np.asarray(correct, dtype=np.float64)
    rows = rows.mean(axis=0) if rows.ndim == 2 else rows
    return _ends(_resampled_means(rows, target, resamples, seed), level)


def paired_interval(
    a: np.ndarray, b: np.ndarray, target: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Accuracy of `a` minus accuracy of `b`, with a 95 % stratified bootstrap over test rows.

    Rows are drawn in pairs, so what makes a text hard for both systems cancels out.

    Args:
        a: share of the seeds that were right on each test row. Shape: (rows,).
        b: the same of the other system. Shape: (rows,).
        target: the true class of each row, within which rows are drawn. Shape: (rows,).
        resamples: how many bootstrap samples.
        seed: of the resampling.

    Raises:
        UserError: where the two do not have the same, positive number of rows, or not one label a
            row.
    """
    if a.shape != b.shape or a.size == 0:
        raise UserError(f"paired interval: {a.size} and {b.size} test rows cannot be paired")
    low, high = _ends(_resampled_means(a - b, target, resamples, seed), LEVEL)
    return Difference(float(np.mean(a - b)), low, high, a.size)


def metric_intervals(
    target: np.ndarray,
    preds: np.ndarray,
    seed: int = 0,
    *,
    resamples: int = 2000,
    level: float = LEVEL,
) -> dict[str, tuple[float, float]]:
    """Stratified bootstrap intervals of accuracy and macro-F1, each the mean over seeds.

    Macro-F1 is that of `runs.metrics.evaluate`: of a resample and a seed, the mean over the classes
    that occur in its target or among its predictions. A row is drawn with all its seeds.

    Args:
        target: class indices. Shape: (rows,).
        preds: predicted class indices. Shape: (seeds, rows).
        seed: of the resampling.
        resamples: number of resamples.
        level: share of the resamples that an interval holds.

    Returns:
        `accuracy` and `macro_f1`, each (low, high).

    Raises:
        UserError: where there is no row, or not one label a row.
    """
    target, preds = np.asarray(target), np.asarray(preds)
    _check(preds.shape[-1], target)
    seeds, rows = preds.shape
    num_classes = int(max(target.max(), preds.max())) + 1
    strata = _strata(preds.T, target)
    # Of each class: which cells of (seeds, num_classes) its patterns fall in. Shape: (patterns,
    # cells used), as the rows of one class are taken for few others.
    cells, falls = [], []
    for _, patterns, _ in strata:
        place = patterns + num_classes * np.arange(seeds)
        used, column = np.unique(place, return_inverse=True)
        fall = np.zeros((len(patterns), len(used)))
        fall[np.arange(len(patterns))[:, None], column.reshape(place.shape)] = 1
        cells.append(used)
        falls.append(fall)
    occurs = np.bincount(target, minlength=num_classes)
    accuracy, macro_f1 = [], []
    for draws in _draws([counts for *_, counts in strata], resamples, seed, seeds * num_classes):
        size = len(draws[0])
        predicted = np.zeros((size, seeds * num_classes))
        hits = np.zeros((size, seeds, num_classes))
        for (label, *_), used, fall, drawn in zip(strata, cells, falls, draws, strict=True):
            found = drawn @ fall
            predicted[:, used] += found
            own = used % num_classes == label
            hits[:, used[own] // num_classes, label] = found[:, own]
        # F1 = 2 tp / (predicted + occurring); of a class that does neither there is none.
        either = predicted.reshape(hits.shape) + occurs
        f1 = np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)
        macro_f1.append((f1.sum(axis=2) / (either > 0).sum(axis=2)).mean(axis=1))
        accuracy.append(hits.sum(axis=(1, 2)) / (seeds * rows))
    return {
        "accuracy": _ends(np.concatenate(accuracy), level),
        "macro_f1": _ends(np.concatenate(macro_f1), level),
    }


# -- resampling ---------------------------------------------------------------------------------


def _check(rows: int, target: np.ndarray) -> None:
    if not rows:
        raise UserError("statistics: an interval over no test rows was asked for")
    if target.shape != (rows,):
        raise UserError(
            f"statistics: {rows} test rows and labels of shape {target.shape}; each row needs one"
        )


def _strata(patterns: np.ndarray, target: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Of each class: its label, its distinct patterns and how many rows show each.

    Args:
        patterns: what is drawn with a row. Shape: (rows, anything).
        target: Shape: (rows,).
    """
    found = []
    for label in np.unique(target):
        distinct, counts = np.unique(patterns[target == label], axis=0, return_counts=True)
        found.append((int(label), distinct, counts))
    return found


def _draws(
    counts: Sequence[np.ndarray], resamples: int, seed: int, width: int = 0
) -> Iterator[list[np.ndarray]]:
    """How often each pattern of each class is drawn, as many resamples at a time as memory allows.

    Rows of one class that show the same pattern are interchangeable, so how often each *pattern* is
    drawn is multinomial: the same distribution as drawing rows, at the cost of few counts.

    Args:
        counts: of each class, how many rows show each of its patterns.
        resamples: number of resamples.
        seed: of the resampling.
        width: numbers beside the counts that the caller holds of a resample.

    Yields:
        Of each class, counts of shape (some resamples, patterns).
    """
    # A generator a class, so that the size of a chunk changes no draw.
    generators = np.random.default_rng(seed).spawn(len(counts))
    chunk = max(1, _CHUNK_CELLS // (sum(map(len, counts)) + width))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        yield [
            rng.multinomial(int(own.sum()), own / own.sum(), size=size)
            for rng, own in zip(generators, counts, strict=True)
        ]


def _resampled_means(
    values: np.ndarray, target: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """Means of a value a row over stratified resamples. Shape: (resamples,)."""
    target = np.asarray(target)
    _check(values.size, target)
    # Multiples of 1 / seeds: rounded, so that those that should be equal are, and a mean of 0 is 0.
    strata = _strata(np.round(values, 12)[:, None], target)
    sums = [
        sum(drawn @ distinct[:, 0] for drawn, (_, distinct, _) in zip(draws, strata, strict=True))
        for draws in _draws([counts for *_, counts in strata], resamples, seed)
    ]
    return np.round(np.concatenate(sums) / values.size, 9)


def _ends(figures: np.ndarray, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(figures, [tail, 1 - tail])
    return float(low), float(high)
