"""Where a classifier errs: by class, by confidence, and on which rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 10
"""Ranges of confidence that a table of calibration has."""
THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Least probabilities of an answer that a table of thresholds has."""


@dataclass(frozen=True)
class ClassFigures:
    """How a class fares. A figure without any row to compute it from is nan."""

    name: str
    rows: int
    """Rows with this label."""
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Answered:
    """What is left if only answers of a certain confidence are given."""

    threshold: float
    share: float
    """Share of the rows that get an answer."""
    accuracy: float
    """Share of these that are right; nan without any."""
    mistakes: int


@dataclass(frozen=True)
class Confidence:
    """The rows whose answer has a probability in a range."""

    low: float
    high: float
    rows: int
    probability: float
    """Mean probability of their answers."""
    accuracy: float


@dataclass(frozen=True, eq=False)
class Doubts:
    """Rows whose label is in doubt, the least likely label first."""

    rows: np.ndarray
    """Shape: (doubtful,), int64."""
    suggested: np.ndarray
    """The class that each seems to belong to. Shape: (doubtful,), int64."""


def confusion_matrix(target: np.ndarray, preds: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the rows of each label that got each answer.

    Returns:
        Shape: (labels, answers), int64.
    """
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (target, preds), 1)
    return matrix


def class_figures(matrix: np.ndarray, names: list[str]) -> list[ClassFigures]:
    """Compute precision, recall and F1 of each class from a confusion matrix."""
    right = np.diag(matrix).astype(float)
    rows, answers = matrix.sum(axis=1), matrix.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = zip(right / answers, right / rows, 2 * right / (rows + answers), strict=True)
    return [
        ClassFigures(name, int(count), *map(float, one))
        for name, count, one in zip(names, rows, figures, strict=True)
    ]


def by_confidence(probabilities: np.ndarray, target: np.ndarray, bins: int = BINS) -> list[
    Confidence
]:  # fmt: skip
    """Hold the probability of the answers against their accuracy, in equal ranges.

    Args:
        probabilities: shape (rows, classes).
        target: labels. Shape: (rows,).
        bins: number of ranges; those without a row are left out.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == target
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return [
        Confidence(
            number / bins,
            (number + 1) / bins,
            int(inside.sum()),
            float(confidence[inside].mean()),
            float(right[inside].mean()),
        )
        for number in range(bins)
        if (inside := place == number).any()
    ]


def by_threshold(probabilities: np.ndarray, target: np.ndarray) -> list[Answered]:
    """Say what is left if answers below each of `THRESHOLDS` are not given.

    Thresholds up to the lowest confidence that occurs change nothing and are left out, but the
    first.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == target
    result = []
    for threshold in THRESHOLDS:
        given = confidence >= threshold
        if threshold and given.all():
            continue
        accuracy = float(right[given].mean()) if given.any() else float("nan")
        mistakes = int((~right[given]).sum())
        result.append(Answered(threshold, float(given.mean()), accuracy, mistakes))
    return result


def worst_mistakes(probabilities: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Order the rows with a wrong answer by how sure the classifier was, the surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != target)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def doubtful_labels(probabilities: np.ndarray, labels: np.ndarray) -> Doubts:
    """Find the labels that may be wrong, by confident learning.

    A row counts as of class j if its probability of j is at least the mean probability of j over
    the rows with the label j; of several such classes it is the likeliest. Where that class is not
    its label, the label is in doubt (the off-diagonal of the confident joint; Northcutt, Jiang and
    Chuang, Confident Learning, JAIR 70, 2021, equations 1 and 2). A label that is the likeliest
    class is not in doubt, as in the authors' program (cleanlab). The rows are ordered by their
    normalised margin: the probability of the label less that of the likeliest other class.

    Args:
        probabilities: of models that have not seen the row. Shape: (rows, classes).
        labels: class indices. Shape: (rows,).
    """
    rows, classes = np.arange(len(labels)), probabilities.shape[1]
    thresholds = np.array([
        probabilities[labels == j, j].mean() if (labels == j).any() else np.inf
        for j in range(classes)
    ])  # fmt: skip
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = confident.argmax(axis=1)
    likeliest = probabilities.argmax(axis=1)
    in_doubt = (confident.max(axis=1) >= 0) & (counted != labels) & (likeliest != labels)
    found = np.flatnonzero(in_doubt)
    others = probabilities.copy()
    others[rows, labels] = -1.0
    margin = probabilities[rows, labels] - others.max(axis=1)
    order = found[np.argsort(margin[found], kind="stable")]
    return Doubts(order, counted[order])
