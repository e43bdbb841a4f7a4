"""Exact tests of whether one system is right more often than another on the same test rows.

A test needs one answer for each row, while a job has one for each seed. The tests therefore compare
the *consensus*: the class with the highest mean probability over the seeds. Its accuracy differs
from the mean accuracy over the seeds, which tables show, and is usually slightly higher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

from layerfusion.errors import UserError

ALPHA = 0.05
"""A difference is significant if its adjusted p-value is below this level."""


@dataclass(frozen=True)
class McNemar:
    """Numbers of rows that only one of two systems got right, and the p-value of their split."""

    only_a: int
    only_b: int
    p: float
    """Two-sided p-value. The null hypothesis is that each system is equally likely to be the one
    that is right."""


def consensus(probabilities: np.ndarray) -> np.ndarray:
    """Return the class with the highest mean probability over the seeds; the first one on a tie.

    Args:
        probabilities: probabilities of each class. Shape: (seeds, rows, classes).

    Returns:
        Class indices. Shape: (rows,).
    """
    return probabilities.mean(axis=0, dtype=np.float64).argmax(axis=1)


def mcnemar(a_right: np.ndarray, b_right: np.ndarray) -> McNemar:
    """Exact two-sided McNemar test (McNemar, Psychometrika 12, 1947; binomial, not chi-squared).

    Only rows count on which one system is right and the other wrong. If there are none, p is 1.

    Args:
        a_right: True for each test row that a system got right. Shape: (rows,), bool.
        b_right: the same for the other system. Shape: (rows,), bool.

    Raises:
        UserError: if the systems do not have the same number of rows, or there are none.
    """
    if a_right.shape != b_right.shape or a_right.size == 0:
        raise UserError(f"mcnemar: {a_right.size} and {b_right.size} test rows cannot be paired")
    a, b = a_right.astype(bool), b_right.astype(bool)
    return _exact(int((a & ~b).sum()), int((b & ~a).sum()))


def mcnemar_at_most(a_right: int, b_right: int, rows: int) -> McNemar:
    """Return the largest p-value that `mcnemar` could give, knowing only the numbers of right rows.

    The fewer rows both systems get right, the larger the p-value. They share at least
    `a_right + b_right - rows` such rows. An upper bound of a p-value is a valid, though weaker,
    p-value.

    Args:
        a_right: number of rows that a system got right.
        b_right: the same number for the other system.
        rows: number of test rows.
    """
    shared = max(0, a_right + b_right - rows)
    return _exact(a_right - shared, b_right - shared)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    If all adjusted p-values below 5 % are called differences, the probability of one or more errors
    is at most 5 %, however the tests depend on each other. The k-th smallest of n p-values is
    multiplied by n - k + 1, then raised to the one before it if it is smaller, and capped at 1.

    Args:
        p_values: p-values of one family of tests.

    Returns:
        The adjusted p-values, in the order given.

    Raises:
        UserError: if a p-value is not in [0, 1].
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
