"""Whether one system is right more often than another on the same test rows, by exact tests.

A test needs one answer a row, where a job has one a seed. It is the *consensus* that is tested: the
class of the highest mean probability over the seeds. Its accuracy is not the mean accuracy over the
seeds that tables show, and is mostly a little above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from layerfusion.errors import UserError

ALPHA = 0.05
"""Adjusted p-values below it count as a difference."""


@dataclass(frozen=True)
class McNemar:
    """Rows that only one of two systems got right, and how likely so unequal a split is."""

    only_a: int
    only_b: int
    p: float
    """Two-sided: under the null hypothesis either system is as likely to be the one that is right.
    """


def consensus(probabilities: np.ndarray) -> np.ndarray:
    """The class of the highest mean probability over the seeds, the first of equals.

    Args:
        probabilities: Shape: (seeds, rows, classes).

    Returns:
        Class indices. Shape: (rows,).
    """
    return probabilities.mean(axis=0, dtype=np.float64).argmax(axis=1)


def mcnemar(a_right: np.ndarray, b_right: np.ndarray) -> McNemar:
    """Exact two-sided McNemar test (McNemar, Psychometrika 12, 1947; binomial, not chi-squared).

    Only the rows where one is right and the other wrong count; without any, p is 1.

    Args:
        a_right: whether a system was right on each test row. Shape: (rows,), bool.
        b_right: the same of the other system. Shape: (rows,), bool.

    Raises:
        UserError: where the two do not have the same, positive number of rows.
    """
    if a_right.shape != b_right.shape or a_right.size == 0:
        raise UserError(f"mcnemar: {a_right.size} and {b_right.size} test rows cannot be paired")
    a, b = a_right.astype(bool), b_right.astype(bool)
    return _exact(int((a & ~b).sum()), int((b & ~a).sum()))


def mcnemar_at_most(a_right: int, b_right: int, rows: int) -> McNemar:
    """The largest p that `mcnemar` can give, where only numbers of right rows are known.

    The more rows the two share, the fewer are left to blur their difference; they share at least
    `a_right + b_right - rows`. An upper bound of a p-value is itself one, if a weak one.

    Args:
        a_right: number of rows that a system got right.
        b_right: the same of the other system.
        rows: test rows.
    """
    shared = max(0, a_right + b_right - rows)
    return _exact(a_right - shared, b_right - shared)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    To call those below 5 % differences is wrong, even once, with a probability of at most 5 %,
    however the tests depend on each other. The k-th smallest of n is multiplied by n - k + 1, is
    no smaller than those before it and at most 1.

    Args:
        p_values: of one family of tests.

    Returns:
        The adjusted p-values, in the order given.

    Raises:
        UserError: where one is not in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise UserError(f"holm: p-values {list(p_values)}; they must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)).clip(max=1)
    return adjusted.tolist()


def _exact(only_a: int, only_b: int) -> McNemar:
    least, either = min(only_a, only_b), only_a + only_b
    return McNemar(only_a, only_b, min(1.0, 2 * float(bdtr(least, either, 0.5))))
