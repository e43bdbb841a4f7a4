"""What the noise of a figure is: over seeds and over test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from layerfusion.errors import UserError

_CHUNK_CELLS = 4_000_000
"""Numbers drawn at once: 32 MB."""
RESAMPLES = 20_000
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
    correct: np.ndarray, seed: int = 0, *, resamples: int = 2000, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over test rows (Efron, 1979).

    It says how much the figure would change with other test rows, not with other seeds.

    Args:
        correct: how often each row was right, in [0, 1]. Shape: (rows,), or (seeds, rows), which
            is averaged over the seeds first: a row is drawn with all its seeds.
        seed: of the resampling.
        resamples: number of resamples.
        level: share of the resamples that the interval holds.

    Raises:
        UserError: where there is no row.
    """
    rows = np.asarray(correct, dtype=np.float64)
    rows = rows.mean(axis=0) if rows.ndim == 2 else rows
    if not rows.size:
        raise UserError("statistics: an interval over no test rows was asked for")
    # Rows of equal value are interchangeable, so how often each *value* is drawn is multinomial:
    # the same distribution as drawing rows, at the cost of at most seeds + 1 counts a resample.
    values, counts = np.unique(rows, return_counts=True)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // len(values))
    means = [
        rng.multinomial(rows.size, counts / rows.size, size=min(chunk, resamples - start)) @ values
        for start in range(0, resamples, chunk)
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means) / rows.size, [tail, 1 - tail])
    return float(low), float(high)


def paired_interval(
    a: np.ndarray, b: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Accuracy of `a` minus accuracy of `b`, with a 95 % percentile bootstrap over test rows.

    Rows are drawn in pairs, so what makes a text hard for both systems cancels out. A row's
    difference takes few distinct values (multiples of 1 / seeds), so the resamples are drawn as
    multinomial counts of these values, which is the same distribution as drawing rows.

    Args:
        a: share of the seeds that were right on each test row. Shape: (rows,).
        b: the same of the other system. Shape: (rows,).
        resamples: how many bootstrap samples.
        seed: of the resampling.

    Raises:
        UserError: where the two do not have the same, positive number of rows.
    """
    if a.shape != b.shape or a.size == 0:
        raise UserError(f"paired interval: {a.size} and {b.size} test rows cannot be paired")
    values, counts = np.unique(np.round(a - b, 12), return_counts=True)
    rows = a.size
    draws = np.random.default_rng(seed).multinomial(rows, counts / rows, size=resamples)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws @ values / rows, [tail, 1 - tail])
    return Difference(float(np.mean(a - b)), float(low), float(high), rows)
