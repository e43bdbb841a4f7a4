"""Where a classifier errs whose rows have any number of the labels: by label, and on which rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from layerfusion.findings.mistakes import (
    BINS,
    Answers,
    ClassFigures,
    class_figures,
    doubtful_labels,
    share_of,
)
from layerfusion.statistics.answers import answers, right_rows
from layerfusion.statistics.intervals import ratio_interval
from layerfusion.statistics.resampling import take_texts

if TYPE_CHECKING:
    from layerfusion.findings.jobs import JobPredictions

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Least probabilities of a label that a table of thresholds has."""
_LEAST = float(np.finfo(np.float32).tiny)
"""Least probability of what happened; a log-loss has no end otherwise."""


@dataclass(frozen=True)
class Named:
    """What is answered if labels are named from a certain probability on.

    A share without anything to compute it from is nan.
    """

    threshold: float
    labels: float
    """Labels named a row."""
    precision: float
    """Share of the named labels that the rows have."""
    recall: float
    """Share of the labels of the rows that are named."""
    micro_f1: float
    exact: float
    """Share of the rows whose labels are all right."""


@dataclass(frozen=True, eq=False)
class Likelihood:
    """The pairs of a row and a label whose probability lies in a range."""

    low: float
    high: float
    probability: float
    """Mean probability."""
    has: np.ndarray
    """Number of these labels that each row has. Shape: (rows,)."""
    pairs: np.ndarray
    """Number of labels with such a probability in each row. Shape: (rows,)."""
    text_of: np.ndarray | None = field(kw_only=True)
    """Number of the text of each row, as in `SetAnswers`. Shape: (rows,)."""

    @property
    def share(self) -> float:
        """Share of the pairs whose row has the label."""
        return float(self.has.sum() / self.pairs.sum())

    @property
    def size(self) -> int:
        """Number of the pairs."""
        return int(self.pairs.sum())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share, over rows that are drawn with all their labels."""
        return ratio_interval(self.has, self.pairs, text_of=self.text_of)


@dataclass(frozen=True, eq=False)
class SetDoubts:
    """Pairs of a row and a label where it is in doubt whether the row has it, the surest first."""

    rows: np.ndarray
    """Shape: (doubtful,), int64."""
    labels: np.ndarray
    """Shape: (doubtful,), int64."""


@dataclass(frozen=True, eq=False)
class SetAnswers:
    """The answers of a classifier to rows that have any number of the labels."""

    names: Sequence[str]
    """Names of the labels."""
    target: np.ndarray
    """True where a row has a label. Shape: (rows, labels), bool."""
    probabilities: np.ndarray
    """Probability of each label; those of a row need not sum to one. Shape: (rows, labels)."""
    texts: Sequence[str] = ()
    """Texts of the rows, where they are known."""
    text_of: np.ndarray | None = field(kw_only=True)
    """Number of the text of each row; None where all are taken to differ. Shape: (rows,)."""

    @cached_property
    def answer(self) -> np.ndarray:
        """True where a label is answered. Shape: (rows, labels), bool."""
        return answers(self.probabilities, multilabel=True)

    @property
    def right(self) -> np.ndarray:
        """True where all labels of a row are right. Shape: (rows,), bool."""
        return right_rows(self.answer, self.target)

    @cached_property
    def losses(self) -> np.ndarray:
        """Log-loss of each row, the sum of those of its labels, in nats. Shape: (rows,)."""
        told = np.where(self.target, self.probabilities, 1 - self.probabilities)
        return -np.log(told.clip(_LEAST)).sum(axis=1)

    def recall(self, label: int) -> tuple[float, float, float] | None:
        """Recall of a label with its 95 % interval; None where no row has it."""
        own = self.target[:, label]
        return share_of(self.answer[own, label], text_of=take_texts(self.text_of, own))

    def classes(self) -> list[ClassFigures]:
        """Compute precision, recall and F1 of each label."""
        right = (self.answer & self.target).sum(axis=0)
        rows, said = self.target.sum(axis=0), self.answer.sum(axis=0)
        return class_figures(self.names, right, rows, said)

    def ranges(self) -> list[Likelihood]:
        """Sort all labels of all rows into equal ranges of probability; empty ones are left out."""
        place = np.minimum((self.probabilities * BINS).astype(int), BINS - 1)
        return [
            Likelihood(
                number / BINS,
                (number + 1) / BINS,
                float(self.probabilities[inside].mean()),
                (self.target & inside).sum(axis=1),
                inside.sum(axis=1),
                text_of=self.text_of,
            )
            for number in range(BINS)
            if (inside := place == number).any()
        ]

    def by_threshold(self) -> list[Named]:
        """Say what is answered at each of `THRESHOLDS`."""
        found = []
        single = self.probabilities.astype(np.float32)  # as in `statistics.answers.answers`
        for threshold in THRESHOLDS:
            said = single >= np.float32(threshold)
            right, given, there = (said & self.target).sum(), said.sum(), self.target.sum()
            found.append(
                Named(
                    threshold,
                    float(given / len(said)),
                    _share(right, given),
                    _share(right, there),
                    _share(2 * right, given + there),
                    float(right_rows(said, self.target).mean()),
                )
            )
        return found

    def worst(self) -> np.ndarray:
        """Order the rows with a wrong label by their log-loss, the largest first."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.losses[wrong], kind="stable")]


def answers_of_job(
    names: Sequence[str], read: JobPredictions, texts: Sequence[str] = ()
) -> Answers | SetAnswers:
    """Take the answers of a finished job: the consensus of its seeds."""
    if read.multilabel:
        return SetAnswers(names, read.target, read.mean, texts, text_of=read.text_of)
    return Answers.of(names, read, texts)


def doubtful_sets(probabilities: np.ndarray, labels: np.ndarray) -> SetDoubts:
    """Find the labels that rows may lack or have wrongly, by confident learning label by label.

    Having a label and lacking it are two classes, to which `doubtful_labels` is applied, as the
    authors' program does it for several labels a row (Thyagarajan, Snorrason, Northcutt and
    Mueller, Identifying Incorrect Annotations in Multi-Label Classification Data, 2022). The least
    likely come first, over all labels.

    Args:
        probabilities: of models that have not seen the row. Shape: (rows, labels).
        labels: true where a row has a label. Shape: (rows, labels), bool.
    """
    rows = [
        doubtful_labels(np.stack([1 - p, p], axis=1), has.astype(np.int64)).rows
        for p, has in zip(probabilities.T, labels.T, strict=True)
    ]
    of = np.repeat(np.arange(len(rows)), [len(one) for one in rows])
    found = np.concatenate(rows)
    told = np.where(labels, probabilities, 1 - probabilities)
    order = np.argsort(told[found, of], kind="stable")
    return SetDoubts(found[order], of[order])


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
