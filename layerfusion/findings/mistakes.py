"""Where a classifier errs: by class, by confidence, and on which rows.

Rows that have any number of the labels are for `findings.set_mistakes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from layerfusion.statistics.intervals import bootstrap_interval
from layerfusion.statistics.resampling import take_texts

if TYPE_CHECKING:
    from layerfusion.findings.jobs import JobPredictions

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


@dataclass(frozen=True, eq=False)
class Confidence:
    """The rows whose answer has a probability in a range."""

    low: float
    high: float
    probability: float
    """Mean probability of their answers."""
    right: np.ndarray
    """True where the answer is right. Shape: (rows of the range,), bool."""
    text_of: np.ndarray | None = field(kw_only=True)
    """Number of the text of each, as in `Answers`. Shape: (rows of the range,)."""

    @property
    def share(self) -> float:
        """Share of the answers that are right."""
        return float(self.right.mean())

    @property
    def size(self) -> int:
        """Number of the answers."""
        return self.right.size

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share that is right, over rows."""
        ends = share_of(self.right, text_of=self.text_of)
        assert ends is not None  # no range is without a row
        return ends[1:]


@dataclass(frozen=True, eq=False)
class Doubts:
    """Rows whose label is in doubt, the least likely label first."""

    rows: np.ndarray
    """Shape: (doubtful,), int64."""
    suggested: np.ndarray
    """The class that each seems to belong to. Shape: (doubtful,), int64."""


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers of a classifier to some rows, one for each."""

    names: Sequence[str]
    """Names of the classes."""
    target: np.ndarray
    """Labels. Shape: (rows,)."""
    answer: np.ndarray
    """Shape: (rows,)."""
    confidence: np.ndarray
    """Probability of the answer. Shape: (rows,)."""
    texts: Sequence[str] = ()
    """Texts of the rows, where they are known."""
    text_of: np.ndarray | None = field(kw_only=True)
    """Number of the text of each row; None where all are taken to differ. Shape: (rows,)."""

    @classmethod
    def of(cls, names: Sequence[str], read: JobPredictions, texts: Sequence[str] = ()) -> Answers:
        """Take the answers of a finished job: the consensus of its seeds."""
        mean = read.mean
        answer, sure = mean.argmax(axis=1), mean.max(axis=1)
        return cls(names, read.target, answer, sure, texts, text_of=read.text_of)

    @property
    def right(self) -> np.ndarray:
        """True where the answer is the label. Shape: (rows,), bool."""
        return self.answer == self.target

    def recall(self, label: int) -> tuple[float, float, float] | None:
        """Recall of a class with its 95 % interval; None where no row has the label."""
        own = self.target == label
        return share_of(self.answer[own] == label, text_of=take_texts(self.text_of, own))

    @cached_property
    def confusion(self) -> np.ndarray:
        """Number of rows of each label that got each answer. Shape: (labels, answers)."""
        size = len(self.names)
        return np.bincount(self.target * size + self.answer, minlength=size**2).reshape(size, size)

    def classes(self) -> list[ClassFigures]:
        """Compute precision, recall and F1 of each class."""
        rows, answers = self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        return class_figures(self.names, np.diag(self.confusion), rows, answers)

    def confused(self, most: int) -> list[tuple[int, int]]:
        """List the most frequent wrong answers as (label, answer), the most frequent first."""
        off = self.confusion - np.diag(self.confusion.diagonal())
        order = np.argsort(-off, axis=None, kind="stable")[:most]
        return [divmod(int(place), len(self.names)) for place in order if off.flat[place]]

    def ranges(self) -> list[Confidence]:
        """Sort the rows into equal ranges of confidence; ranges without a row are left out."""
        place = np.minimum((self.confidence * BINS).astype(int), BINS - 1)
        return [
            Confidence(
                number / BINS,
                (number + 1) / BINS,
                float(self.confidence[inside].mean()),
                self.right[inside],
                text_of=take_texts(self.text_of, inside),
            )
            for number in range(BINS)
            if (inside := place == number).any()
        ]

    def by_threshold(self) -> list[Answered]:
        """Say what is left if answers below each of `THRESHOLDS` are not given.

        Thresholds up to the lowest confidence that occurs change nothing and are left out, but the
        first.
        """
        result = []
        for threshold in THRESHOLDS:
            given = self.confidence >= threshold
            if threshold and given.all():
                continue
            accuracy = float(self.right[given].mean()) if given.any() else float("nan")
            mistakes = int((~self.right[given]).sum())
            result.append(Answered(threshold, float(given.mean()), accuracy, mistakes))
        return result

    def worst(self) -> np.ndarray:
        """Order the rows with a wrong answer by their confidence, the surest first."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")]


def share_of(right: np.ndarray, *, text_of: np.ndarray | None) -> tuple[float, float, float] | None:
    """Compute the share of some rows that are right, with its 95 % interval; None without a row.

    Args:
        right: true where a row is right. Shape: (rows,), bool.
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
    """
    if not right.size:
        return None
    one = np.zeros(right.size, int)
    interval = bootstrap_interval(right.astype(float), one, text_of=text_of)
    return float(right.mean()), *interval


def class_figures(
    names: Sequence[str], right: np.ndarray, rows: np.ndarray, answers: np.ndarray
) -> list[ClassFigures]:
    """Compute precision, recall and F1 from counts, of which each class or label has one.

    Args:
        names: of the classes. The others are counts in this order, shapes (classes,).
        right: answers that are right.
        rows: rows that have the label.
        answers: answers that name it.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        figures = zip(right / answers, right / rows, 2 * right / (rows + answers), strict=True)
    return [
        ClassFigures(name, int(count), *map(float, one))
        for name, count, one in zip(names, rows, figures, strict=True)
    ]


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
