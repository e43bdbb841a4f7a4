"""The power law of learning: how errors fall with the number of training rows.

Over a wide range of sizes the error rate of a classifier falls as a power of the number of rows
that it learns from (Hestness and others, arXiv 1712.00409; Viering and Loog, arXiv 2103.10948). It
does so until it comes near the error that no classifier avoids, so that what the law promises
beyond the rows at hand is rather too much than too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit
from scipy.stats import linregress

LEAST_POINTS = 3
"""A line through two points has no error that an interval could be made of."""


@dataclass(frozen=True)
class Estimated:
    """A number with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class PowerLaw:
    """Errors that are multiplied by the same share whenever the number of rows doubles."""

    exponent: Estimated
    """The error rate falls as rows to the power of minus this. Interval: that of Student's t."""

    @property
    def falls(self) -> bool:
        """True where the whole interval says that errors fall with more rows."""
        return self.exponent.low > 0

    @property
    def cut(self) -> Estimated:
        """Share of the errors that twice the rows avoid."""
        mean, low, high = (1 - 2.0**-x for x in self._ends)
        return Estimated(mean, low, high)

    def doubled(self, accuracy: float) -> Estimated:
        """Accuracy to expect of twice the rows.

        Args:
            accuracy: with the rows at hand, as a share.
        """
        mean, low, high = (1 - (1 - accuracy) * 2.0**-x for x in self._ends)
        return Estimated(mean, low, high)

    def factor(self, accuracy: float, gain: float) -> float:
        """Compute how many times the rows at hand a gain takes; infinite where none suffice.

        Args:
            accuracy: with the rows at hand, as a share.
            gain: what to gain, as a share.
        """
        error = 1 - accuracy
        if self.exponent.mean <= 0 or gain >= error:
            return float("inf")
        with np.errstate(over="ignore"):
            return float(np.power(error / (error - gain), 1 / self.exponent.mean))

    @property
    def _ends(self) -> tuple[float, float, float]:
        return self.exponent.mean, self.exponent.low, self.exponent.high


def fit_power_law(accuracies: Mapping[float, Sequence[float]]) -> PowerLaw | None:
    """Fit the law to accuracies of several samples by least squares on the logarithms.

    Args:
        accuracies: number of rows to the accuracies of the samples of so many, as shares.

    Returns:
        The law; None for fewer than three samples, for samples of one size, where a sample leaves
        no errors, since its logarithm is then infinite, and where all have the same errors.

    Example:
        >>> law = fit_power_law({100: [0.6], 200: [0.7], 400: [0.775]})
        >>> round(law.cut.mean, 3), round(law.doubled(0.775).mean, 3)
        (0.25, 0.831)
    """
    points = [(rows, 1 - one) for rows, found in accuracies.items() for one in found]
    rows, errors = np.array(points, dtype=float).reshape(-1, 2).T
    if len(points) < LEAST_POINTS or (errors <= 0).any() or 1 in (len(set(rows)), len(set(errors))):
        return None
    line: Any = linregress(np.log(rows), np.log(errors))  # whose fields have no types
    half = float(stdtrit(len(points) - 2, 0.975) * line.stderr)
    exponent = -float(line.slope)
    return PowerLaw(Estimated(exponent, exponent - half, exponent + half))
