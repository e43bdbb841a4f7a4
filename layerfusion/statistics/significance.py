"""Exact tests of whether one system is right more often than another on the same test rows.

Rows that repeat a text are a cluster: what the systems say of them is one observation. The tests
flip its rows together, which makes them exact for texts that are independent, as tests of matched
pairs in clusters have to be (Eliasziw and Donner, Statistics in Medicine 10, 1991; Durkalski and
others, Statistics in Medicine 22, 2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import next_fast_len
from scipy.special import bdtr

from layerfusion.errors import UserError
from layerfusion.statistics.resampling import check_texts, repeated

ALPHA = 0.05
"""A difference is significant if its adjusted p-value is below this level."""


@dataclass(frozen=True)
class PairedTest:
    """Numbers of rows on which one of two systems is right more often, and the p-value."""

    only_a: int
    """Rows on which the first system is right more often; with one answer a row, those that only it
    got right."""
    only_b: int
    p: float
    """Two-sided p-value. The null hypothesis is that on each text, with all of its rows, either
    system was as likely as the other to be the one that is right more often."""


def mcnemar(a_right: np.ndarray, b_right: np.ndarray, *, text_of: np.ndarray | None) -> PairedTest:
    """Exact two-sided McNemar test (McNemar, Psychometrika 12, 1947; binomial, not chi-squared).

    Only rows count on which one system is right and the other wrong. If there are none, p is 1.
    Where a text is repeated, the test is that of `sign_flips`.

    Args:
        a_right: True for each test row that a system got right. Shape: (rows,), bool.
        b_right: the same for the other system. Shape: (rows,), bool.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).

    Raises:
        UserError: if the systems do not have the same number of rows, or there are none, or there
            is not the text of each.
    """
    if a_right.shape != b_right.shape or a_right.size == 0:
        raise UserError(f"mcnemar: {a_right.size} and {b_right.size} test rows cannot be paired")
    check_texts(text_of, a_right.size)
    a, b = a_right.astype(bool), b_right.astype(bool)
    if repeated(text_of) is not None:
        return sign_flips(a.astype(float), b.astype(float), text_of=text_of)
    return _exact(int((a & ~b).sum()), int((b & ~a).sum()))


def sign_flips(
    a: np.ndarray, b: np.ndarray, *, text_of: np.ndarray | None, seeds: int = 1
) -> PairedTest:
    """Exact two-sided test of the mean difference between two systems with several answers a row.

    If the systems were equal, the difference on each row would have been as likely with the other
    sign. The p-value is the share of all assignments of signs whose sum is at least as far from
    zero (randomisation test of Fisher, 1935). With one answer a row it is the test of McNemar.

    The rows of a repeated text change their signs together, as in the permutation test of clusters
    (Rosner, Glynn and Lee, Biometrics 62, 2006). With d_t the sum of the differences on the rows of
    text t, the sum of signed d_t has the variance Σ d_t², as in the test of Durkalski and others,
    which weighs each d_t by 1 / rows of the text. Here it is not weighed, since the accuracy that
    is tested is a mean over rows.

    Args:
        a: share of the seeds that were right on each test row. Shape: (rows,).
        b: the same share for the other system. Shape: (rows,).
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
        seeds: a number that all shares are multiples of the inverse of, such as the product of the
            numbers of seeds.

    Raises:
        UserError: if the systems do not have the same number of rows, or there are none, or there
            is not the text of each.
    """
    if a.shape != b.shape or a.size == 0:
        raise UserError(f"sign flips: {a.size} and {b.size} test rows cannot be paired")
    steps = np.rint((a - b) * seeds).astype(np.int64)
    better, worse = int((steps > 0).sum()), int((steps < 0).sum())
    check_texts(text_of, a.size)
    if (of_row := repeated(text_of)) is not None:
        steps = np.bincount(of_row, steps).astype(np.int64)
    if not steps.any():
        return PairedTest(better, worse, 1.0)
    steps = steps // np.gcd.reduce(steps)
    sizes, counts = np.unique(np.abs(steps[steps != 0]), return_counts=True)
    # The characteristic function of a sum of signed steps is a product of cosines; its Fourier
    # transform is the distribution of the sum, on the whole numbers around a circle.
    circle = int(next_fast_len(2 * int(sizes @ counts) + 1, real=True) or 0)
    angles = 2 * np.pi * np.arange(circle // 2 + 1) / circle
    wave = np.ones_like(angles)
    for size, count in zip(sizes, counts, strict=True):
        wave *= np.cos(size * angles) ** count
    chance = np.fft.irfft(wave, circle)
    far = abs(int(steps.sum()))
    # The transform is exact to about 1e-15, so that smaller p-values cannot be told from zero.
    p = round(float(chance[far : circle - far + 1].sum()), 12) if far else 1.0
    return PairedTest(better, worse, min(1.0, max(p, 1e-12)))


def mcnemar_at_most(a_right: int, b_right: int, rows: int) -> PairedTest:
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


def _exact(only_a: int, only_b: int) -> PairedTest:
    least, either = min(only_a, only_b), only_a + only_b
    return PairedTest(only_a, only_b, min(1.0, 2 * float(bdtr(least, either, 0.5))))
