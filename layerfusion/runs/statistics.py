"""What the noise of a figure is: over seeds and over test rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerfusion.errors import UserError

_CHUNK_CELLS = 4_000_000
"""Numbers drawn at once: 32 MB."""


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
