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


def label_ranking_precision(target: np.ndarray, scores: np.ndarray) -> float:
    """Compute the label ranking average precision, as scikit-learn has it.

    For each label of a row: of the labels that score as much or more, the share that the row has.
    This is averaged over the labels of a row, and then over the rows. A row with all labels, or
    with none, counts as 1, since there is nothing to rank.

    Args:
        target: true where a row has a label. Shape: (rows, labels).
        scores: anything that grows with the probability of a label. Shape: (rows, labels).

    Example:
        >>> some = np.array([[True, False, False], [False, False, True]])
        >>> label_ranking_precision(some, np.array([[0.75, 0.5, 1.0], [1.0, 0.2, 0.1]]))
        0.41666666666666663
    """
    each = []
    for has, row in zip(target, scores, strict=True):
        above = row[None, :] >= row[has][:, None]  # for each label that it has, and every label
        ranked = 0 < has.sum() < len(has)
        each.append(float((above[:, has].sum(1) / above.sum(1)).mean()) if ranked else 1.0)
    return float(np.mean(each))
