"""Whether new texts are of the kind that a classifier was judged on.

We compare counts, such as those of answers by confidence, by the population stability index
(Siddiqi, *Credit Risk Scorecards*, 2006), and ask by permutation whether chance explains it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from layerfusion.statistics.answers import answers
from layerfusion.statistics.significance import ALPHA

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Limits of the ranges of confidence."""
MOST_LABELS = 5
"""Texts with more labels are counted as texts with so many."""
SOMEWHAT, UNLIKE = 0.1, 0.25
"""Indices from which texts are somewhat unlike, and unlike, as the index is usually read."""
DRAWS = 9999
"""Number of permutations."""


@dataclass(frozen=True)
class Shift:
    """A difference between two samples of texts in what is counted of them."""

    index: float
    """Population stability index; 0 for equal shares."""
    shown: float
    """Index that 5 % of the permutations exceed: no smaller one can be told from chance."""
    p: float
    """Share of the permutations with an index that is at least as large."""


def confidence_counts(probabilities: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Count texts by the probability of their answer; of labels, by that of the least sure one.

    Args:
        probabilities: of the classes or labels. Shape: (texts, classes).
        multilabel: whether a text has any number of labels.

    Returns:
        Texts in each range between `CONFIDENCES`. Shape: (ranges,), int64.
    """
    if multilabel:
        sure = np.maximum(probabilities, 1 - probabilities).min(axis=1, initial=1.0)
    else:
        sure = probabilities.max(axis=1, initial=0.0)
    return np.bincount(np.searchsorted(CONFIDENCES, sure, "right"), minlength=len(CONFIDENCES) + 1)


def answer_counts(probabilities: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Count texts by their answer; of labels, by the number that a text is given.

    Args:
        probabilities: of the classes or labels. Shape: (texts, classes).
        multilabel: whether a text has any number of labels.

    Returns:
        Shape: (classes,) or (numbers of labels,), int64.
    """
    given = answers(probabilities, multilabel=multilabel)
    if multilabel:
        numbers = given.sum(axis=1).clip(max=MOST_LABELS)
        return np.bincount(numbers, minlength=MOST_LABELS + 1)
    return np.bincount(given, minlength=probabilities.shape[1])


def compare_counts(before: ArrayLike, now: ArrayLike, seed: int = 0) -> Shift:
    """Compare two samples that are counted by the same kinds.

    Args:
        before: texts of each kind in the first sample. Shape: (kinds,).
        now: the same of the second sample. Shape: (kinds,).
        seed: seed of the permutations.

    Example:
        >>> compare_counts([90, 10], [45, 5]).index
        0.0
        >>> shift = compare_counts([90, 10], [20, 30])
        >>> round(shift.index, 2), shift.p
        (1.25, 0.0001)
    """
    first, second = np.asarray(before, np.int64), np.asarray(now, np.int64)
    index = max(0.0, float(_index(first, second[None])[0]))  # rounding may leave less than none
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_hypergeometric(first + second, int(second.sum()), DRAWS, "marginals")
    by_chance = _index(first + second - drawn, drawn)
    at_least = int((by_chance >= index * (1 - 1e-9)).sum())
    return Shift(index, float(np.quantile(by_chance, 1 - ALPHA)), (1 + at_least) / (1 + DRAWS))


def _index(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Population stability indices. Shape: (samples,), from two of (samples, kinds).

    A kind that one sample lacks would make the index infinite. So one text of each kind is added,
    divided between the two samples in proportion to their sizes.
    """
    sizes = before.sum(axis=-1, keepdims=True), now.sum(axis=-1, keepdims=True)
    kinds = before.shape[-1]
    p, q = (
        (counts + size / sum(sizes)) / (size + kinds * size / sum(sizes))
        for counts, size in zip((before, now), sizes, strict=True)
    )
    return ((q - p) * np.log(q / p)).sum(axis=-1)
