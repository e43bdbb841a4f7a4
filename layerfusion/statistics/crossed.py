"""Intervals over draws of the training rows and test rows at a time, by moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import root_scalar
from scipy.special import ndtri, stdtrit

from layerfusion.errors import UserError
from layerfusion.statistics.intervals import LEVEL, Difference
from layerfusion.statistics.resampling import mean_variance, strata_of

_SUREST = 1 - 1e-12
"""Highest level tried. A p-value below 1e-12 would depend on the last digits of the tails."""


@dataclass(frozen=True)
class CrossedDifference(Difference):
    """Difference in accuracy between two systems, over several draws of the training rows."""

    draws: int
    p: float
    """Two-sided p-value: the significance level at which the interval would end at zero."""


def crossed_interval(
    differences: np.ndarray, target: np.ndarray, *, text_of: np.ndarray | None
) -> CrossedDifference:
    """Compare two systems that were trained on several draws and evaluated on the same rows.

    Draws of the training rows are crossed with test rows, and both are samples. The 95 % interval
    covers the difference to expect from *another* draw of the same size from the same pool, on
    *other* test texts of the same classes. An exact test on one draw, or on the rows of all draws,
    says nothing about other draws.

    Let x_di be the difference on test row i after draw d. The variance of the mean over D draws and
    n rows is σ²_draw/D + σ²_row/n + σ²_both/(Dn). There are too few draws to resample (three draws
    have only ten resamples). Instead, each part is multiplied by the critical value for its own
    degrees of freedom, and the squares are added (Howe, Journal of the American Statistical
    Association 69, 1974):

        half² = t²(D−1) V_draw + z² max(0, V_row − V_both)

    V_draw is the variance of the draws' means divided by D, and V_row that of the rows' means
    divided by n, within classes. Both contain σ²_both/(Dn), which V_both estimates. The interval is
    exact if all noise comes from draws, or all from rows, and slightly too wide otherwise: it
    separates two equal systems in 1 to 5 % of cases. The t distribution assumes that the draws'
    means are normal; with few draws the interval is wide.

    Args:
        differences: share of the seeds that were right, minus that of the other system. The layers
            and the other system may differ between draws. Shape: (draws, rows).
        target: true class of each row. Shape: (rows,), or (rows, labels) where rows have several
            labels.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).

    Raises:
        UserError: for fewer than two draws, no rows, or not the label and the text of each row.
    """
    draws, rows = differences.shape
    if draws < 2:
        raise UserError(f"crossed interval: {draws} draw of the training rows; it needs 2 or more")
    target = strata_of(target, rows, text_of)
    x = np.asarray(differences, dtype=np.float64)
    # Values are multiples of 1 / seeds. They are rounded so that sums which cancel are exactly 0.
    mean = float(np.round(x.mean(), 12))
    of_draws = float(np.round(x.mean(axis=1), 12).var(ddof=1)) / draws
    of_rows = mean_variance(x.mean(axis=0), target, text_of) - _interaction(x, target, text_of)
    of_rows = max(0.0, of_rows)

    def half(level: float) -> float:
        tail = (1 + level) / 2
        return float(np.hypot(*_critical(draws, tail) * np.sqrt([of_draws, of_rows])))

    width = half(LEVEL)
    return CrossedDifference(mean, mean - width, mean + width, rows, draws, _level_of(mean, half))


def _level_of(mean: float, half: Callable[[float], float]) -> float:
    """Return the p-value: one minus the level at which the interval around `mean` ends at zero."""
    if mean == 0:
        return 1.0
    if half(_SUREST) < abs(mean):
        return 1 - _SUREST
    ends = root_scalar(lambda level: half(level) - abs(mean), bracket=(0.0, _SUREST), xtol=1e-13)
    return 1 - float(ends.root)


def _critical(draws: int, tail: float) -> np.ndarray:
    """Return the critical values of the draws (Student's t) and of the rows (normal)."""
    return np.array([stdtrit(draws - 1, tail), ndtri(tail)])


def _interaction(x: np.ndarray, target: np.ndarray, text_of: np.ndarray | None) -> float:
    """Estimate the part of the variance of the rows' means that differs from draw to draw."""
    rest = x - x.mean(axis=0)
    draws = len(x)
    # The D residuals of a row have D - 1 degrees of freedom. A mean of D draws has 1 / D of their
    # variance.
    return sum(mean_variance(one, target, text_of) for one in rest) / ((draws - 1) * draws)
