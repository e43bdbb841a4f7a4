"""Answers that probabilities stand for, and the rows where they are right."""

from __future__ import annotations

import numpy as np

from layerfusion.config.job import NAMED_FROM


def answers(probabilities: np.ndarray, *, multilabel: bool) -> np.ndarray:
    """Return what is answered: the likeliest class, or every label that is as likely as not.

    Args:
        probabilities: of each class or label. Shape: (..., classes). They are compared with the
            threshold in single precision, in which predictions are kept, so that a probability of
            one half is one whatever it was computed in.
        multilabel: whether a row has any number of the labels.

    Returns:
        Class indices, the first one on a tie, shape (...); or true where a label is answered,
        shape (..., classes).

    Example:
        >>> some = np.array([[0.5, 0.1, 0.9], [0.2, 0.4, 0.3]])
        >>> answers(some, multilabel=False).tolist()
        [2, 1]
        >>> answers(some, multilabel=True).tolist()
        [[True, False, True], [False, False, False]]
    """
    if multilabel:
        return np.asarray(probabilities, np.float32) >= np.float32(NAMED_FROM)
    return probabilities.argmax(axis=-1)


def consensus(probabilities: np.ndarray, *, multilabel: bool = False) -> np.ndarray:
    """Return the answers of the mean probabilities over the seeds.

    Args:
        probabilities: of each class or label. Shape: (seeds, rows, classes).
        multilabel: whether a row has any number of the labels.

    Returns:
        As in `answers`. Shape: (rows,), or (rows, classes).
    """
    return answers(probabilities.mean(axis=0, dtype=np.float64), multilabel=multilabel)


def right_rows(given: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return where answers are right; of several labels, all have to be.

    Args:
        given: answers. Shape: (..., rows), or (..., rows, labels) of several labels a row.
        target: labels. Shape: (rows,), or (rows, labels).

    Returns:
        Shape: (..., rows), bool.

    Raises:
        ValueError: if the shapes do not fit each other.
    """
    same = given == target
    return same.all(axis=-1) if target.ndim == 2 else same
