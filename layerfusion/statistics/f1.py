"""F1 of answers, and what each row adds to it.

Macro-F1 is defined as in `statistics.metrics.evaluate`; micro-F1 is that of all labels of all
rows together. Answers and labels are class indices, or true where a row has a label.
"""

from __future__ import annotations

import numpy as np

from layerfusion.config.job import MICRO_F1


def f1_scores(metric: str, target: np.ndarray, preds: np.ndarray) -> np.ndarray:
    """Return the F1 of each seed. Shape: (seeds,).

    Args:
        metric: macro_f1 or micro_f1.
        target: labels. Shape: (rows,), or (rows, labels).
        preds: answers of each seed. Shape: (seeds, rows), or (seeds, rows, labels).
    """
    has, said = members(target, preds)
    return np.array(
        [f1_of_counts(metric, 2 * (one & has).sum(0), _counts(one, has)) for one in said]
    )


def f1_of_rows(metric: str, target: np.ndarray, preds: np.ndarray) -> np.ndarray:
    """Return a number for each row, whose mean is the mean F1 over the seeds. Shape: (rows,).

    It is the influence of the row on F1 to first order, added to F1 (the delta method). So a
    difference of two systems has about the variance of the mean.

    Args:
        metric: see `f1_scores`, as the others.
        target: see there.
        preds: see there.
    """
    has, said = members(target, preds)
    found = []
    for one in said:
        hits, counts = 2.0 * (one & has), 1.0 * one + has
        if metric == MICRO_F1:
            hits, counts = hits.sum(axis=1, keepdims=True), counts.sum(axis=1, keepdims=True)
        occurs = counts.sum(axis=0) > 0
        hits, counts = hits[:, occurs], counts[:, occurs]
        share = counts.mean(axis=0)
        f1 = hits.mean(axis=0) / share
        found.append((f1 + (hits - f1 * counts) / share).sum(axis=1) / max(1, occurs.sum()))
    return np.mean(found, axis=0)


def members(target: np.ndarray, preds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where rows have a class, and are said to. Shapes: ([seeds,] rows, classes), bool."""
    if target.ndim == 2:
        return target.astype(bool), preds.astype(bool)
    classes = np.arange(max(target.max(initial=0), preds.max(initial=0)) + 1)
    return target[:, None] == classes, preds[:, :, None] == classes


def _counts(said: np.ndarray, has: np.ndarray) -> np.ndarray:
    return said.sum(axis=0) + has.sum(axis=0)


def f1_of_counts(metric: str, hits: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return 2 tp / (answered + occurring), over classes that are either; 0 where none is.

    Args:
        metric: macro_f1 or micro_f1.
        hits: twice the true positives of each class. Shape: (..., classes).
        counts: answers and occurrences of each. Shape: (..., classes).
    """
    if metric == MICRO_F1:
        return hits.sum(axis=-1) / np.maximum(counts.sum(axis=-1), 1)
    return (hits / np.maximum(counts, 1)).sum(-1) / np.maximum((counts > 0).sum(-1), 1)
