"""Linear classifiers on sparse TF-IDF: the baseline, and what a lexical source says in a stack.

A logistic regression, or naive Bayes (`lexical_bayes`), sees every word. The dense vectors of a
lexical source, which trained heads need, are projections of the same counts, and a regression on
them is less accurate and slower to learn.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import BAYES, REGRESSION
from layerfusion.layers.lexical_bayes import FACTORS, bayes_evidence
from layerfusion.layers.logistic import Problem
from layerfusion.layers.sparse_newton import fit_together
from layerfusion.layers.threads import each_on_a_core
from layerfusion.texts.tfidf import (
    CountedTexts,
    Sparse,
    countable,
    counts_from,
    counts_state,
)

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

C_VALUES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Inverse strengths of the regularisation that are tried with each kind of features."""
SPAN_WORK = 170.0
"""A single regression is fitted in the space that the rows span if the cube of the rows is at most
this many times the counts × strengths, and by liblinear otherwise, whichever is faster."""
SPAN_STEPS, ENTRY, NUMBER, SHORTEST = 10.0, 140.0, 1100.0, 12
"""Several regressions are fitted in that space, or together by `sparse_newton`, whichever takes
less work; a unit is 0.09 ns of a core. In the span it is the cube of the rows, and `SPAN_STEPS`
times their square for each class and strength. Together it is, for each class and strength, `ENTRY`
for each count, as if there were `SHORTEST` more classes, and `NUMBER` for each row and feature. On
800 to 3,600 texts of r8, r52 and 77 intents this chose the faster one, or one as fast."""
SPAN_ROWS = 5000
"""Most rows for which they are, whatever the counts: their products take the square of that."""
SPAN_TOLERANCE = 1e-6
"""A fit in that space ends once no entry of the gradient of the mean loss is larger. Each class is
a fit of its own, and at 1e-5 those of rare classes end too early: 0.003 in held-out log-loss on
r52. At 1e-6 it is within 0.0002 of that at 1e-8."""
_LEAST_EIGENVALUE = 1e-6
"""Directions of the span with a smaller share of the largest eigenvalue are left out: they are
noise in float32."""
OFTEN = 0.1
"""Share of the rows from which a feature is multiplied as a dense one."""
DENSE_FEATURES = 1024
"""Features that are dense at a time."""
_LIBLINEAR = threading.Lock()
_MULTILABEL = "multilabel"
"""Name of the tensor that only a regression of labels has."""
_LEAST_PROBABILITY = 1e-7
"""Smallest probability of a class. Without it, a class that train lacks has infinite log-loss."""
_LEAST_ODDS = math.log(_LEAST_PROBABILITY) - math.log1p(-_LEAST_PROBABILITY)
STRENGTHS = {REGRESSION: C_VALUES, BAYES: FACTORS}
"""What is tried of each learner: values of C, or factors of the evidence."""


@dataclass(frozen=True)
class LexicalRegression:
    """Log-odds of each class against the rest that are linear in TF-IDF of texts."""

    counts: TfidfVectorizer
    weight: np.ndarray
    """Shape: (features, classes)."""
    bias: np.ndarray
    """Shape: (classes,)."""
    multilabel: bool = False
    """Whether texts have any number of the classes, which are labels then."""

    @classmethod
    def fit(
        cls,
        features: str,
        texts: Sequence[str],
        labels: np.ndarray,
        strength: float,
        *,
        num_classes: int,
        max_features: int | None = None,
        learner: str = REGRESSION,
        seed: int = 0,
    ) -> LexicalRegression:
        """Learn from all of some texts: see `learn` and `count`."""
        counted, every = count(features, texts, max_features), np.ones(len(texts), bool)
        return cls.learn(
            counted,
            every,
            labels,
            strength,
            num_classes=num_classes,
            learner=learner,
            seed=seed,
        )

    @classmethod
    def learn(
        cls,
        counted: CountedTexts,
        inside: np.ndarray,
        labels: np.ndarray,
        strength: float,
        *,
        num_classes: int,
        learner: str = REGRESSION,
        seed: int = 0,
    ) -> LexicalRegression:
        """Learn TF-IDF and a classifier on it.

        Args:
            counted: texts with their counts; see `count`.
            inside: true for the texts to learn from. Shape: (texts,), bool.
            labels: class indices of all texts, shape (texts,), or labels, shape (texts, labels).
            strength: the value of C; of naive Bayes, the factor of the evidence.
            num_classes: number of classes; some may be missing among the labels.
            learner: one of `config.job.LEXICAL_LEARNERS`.
            seed: seed of the solver.

        Raises:
            UserError: if the texts have nothing to count.
        """
        with countable(counted.features):
            counts, sparse = counted.learned(inside)
        (fitted,) = fit_classes(learner, sparse, labels[inside], [strength], num_classes, seed)
        return cls(counts, *fitted, multilabel=labels.ndim == 2)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Compute log-probabilities of any texts; of labels, log-odds. Shape: (texts, classes)."""
        counted = self.counts.transform(texts)
        if self.multilabel:
            most = -np.log(_LEAST_PROBABILITY)
            found = (counted @ self.weight + self.bias).clip(-most, most)
        else:
            found = log_probabilities(counted, self.weight, self.bias)
        return torch.from_numpy(found.astype(np.float32))

    @property
    def num_parameters(self) -> int:
        """Number of weights and biases."""
        return self.weight.size + self.bias.size

    def state(self) -> tuple[dict[str, Tensor], list[str]]:
        """Return the tensors, and the vocabulary in the order of the features."""
        idf, vocabulary = counts_state(self.counts)
        arrays = {"idf": idf, "weight": np.ascontiguousarray(self.weight), "bias": self.bias}
        if self.multilabel:
            arrays[_MULTILABEL] = np.array(self.multilabel)
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, vocabulary

    @classmethod
    def from_state(
        cls, features: str, tensors: Mapping[str, Tensor], vocabulary: Sequence[str]
    ) -> LexicalRegression:
        """Rebuild the regression from the parts that `state` returned."""
        counts = counts_from(features, tensors["idf"].numpy(), vocabulary)
        weight, bias = tensors["weight"].numpy(), tensors["bias"].numpy()
        return cls(counts, weight, bias, _MULTILABEL in tensors)


def count(features: str, texts: Sequence[str], max_features: int | None = None) -> CountedTexts:
    """Count the features of texts, for regressions on several parts of them.

    Args:
        features: what is counted: one of `texts.tfidf.FEATURES`.
        texts: the texts.
        max_features: number of features that each regression keeps, the most frequent ones; all if
            none.

    Raises:
        UserError: if the texts have nothing to count.
    """
    with countable(features):
        return CountedTexts(features, texts, max_features)


def predict_folds(
    kinds: Sequence[tuple[CountedTexts, str]],
    labels: np.ndarray,
    fold_of: np.ndarray,
    *,
    num_classes: int,
    seed: int = 0,
) -> Iterator[dict[float, np.ndarray]]:
    """Predict rows by classifiers that have seen them neither themselves nor through their counts.

    TF-IDF that is learned from all rows leaks the held-out ones: on 1,800 rows of mr it made the
    held-out accuracy of words 2 points too high.

    Args:
        kinds: the texts of the rows with their counts, and the learner, one of
            `config.job.LEXICAL_LEARNERS`; see `count`.
        labels: class indices, shape (rows,), or labels, shape (rows, labels).
        fold_of: the fold in which a row is held out, -1 if it never is. Shape: (rows,).
        num_classes: number of classes; some may be missing among the labels.
        seed: seed of the solver.

    Yields:
        For each kind, log-probabilities for each of its learner's `STRENGTHS`; those of rows that
        are never held out are 0. Shapes: (rows, classes), float32.

    Raises:
        UserError: if the texts outside a fold have nothing to count.
    """

    def predict(task: tuple[tuple[CountedTexts, str], np.ndarray]) -> list[np.ndarray]:
        (counted, learner), inside = task
        with countable(counted.features):
            learned, others = counted.weighted(inside)
        strengths = STRENGTHS[learner]
        fits = fit_classes(learner, learned, labels[inside], strengths, num_classes, seed)
        return [log_probabilities(others, *fit, multilabel=labels.ndim == 2) for fit in fits]

    folds = [fold_of != fold for fold in np.unique(fold_of[fold_of >= 0])]
    folds = [inside for inside in folds if inside.any()]
    with closing(each_on_a_core(predict, [*product(kinds, folds)])) as found:
        for _, learner in kinds:
            predicted = {
                strength: np.zeros((len(labels), num_classes), dtype=np.float32)
                for strength in STRENGTHS[learner]
            }
            for inside, said in zip(folds, islice(found, len(folds)), strict=True):
                for one, log_probs in zip(predicted.values(), said, strict=True):
                    one[~inside] = log_probs
            yield predicted


def fit_classes(
    learner: str,
    features: Sparse,
    labels: np.ndarray,
    strengths: Sequence[float],
    num_classes: int,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit a learner's classifier with each strength: see `one_against_rest`, `bayes_evidence`."""
    if learner == BAYES:
        return bayes_evidence(features, labels, strengths, num_classes, _LEAST_ODDS)
    return one_against_rest(features, labels, strengths, num_classes, seed)


def one_against_rest(
    features: Sparse, labels: np.ndarray, strengths: Sequence[float], num_classes: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit one logistic regression for each class with each strength.

    The bias is penalised like a weight, as that of a feature which is 1 in every row.

    Args:
        features: TF-IDF of the rows. Shape: (rows, features).
        labels: class indices, shape (rows,), or labels, shape (rows, labels).
        strengths: the values of C.
        num_classes: number of classes; some may be missing among the labels.
        seed: seed of the solver.

    Yields:
        The weights and biases for each strength. Shapes: (features, classes) and (classes,).
    """
    least = _LEAST_ODDS
    if labels.ndim == 2:
        yield from _of_labels(features, labels.astype(bool), strengths, seed, least)
        return
    present = np.unique(labels)
    if len(present) == 1:
        bias = np.where(np.arange(num_classes) == present, -least, least)
        yield from ((np.zeros((features.shape[1], num_classes)), bias) for _ in strengths)
        return
    columns = present[1:] if len(present) == 2 else present  # one regression tells two apart
    targets = labels[:, None] == columns
    for learned, offsets in _regressions(features, targets, strengths, seed):
        if len(present) == 2:
            learned, offsets = np.hstack([-learned, learned]), np.repeat(offsets, 2) * [-1, 1]
        weight, bias = np.zeros((features.shape[1], num_classes)), np.full(num_classes, least)
        weight[:, present], bias[present] = learned, offsets
        yield weight, bias


def _of_labels(
    features: Sparse, labels: np.ndarray, strengths: Sequence[float], seed: int, least: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit one regression for each label; those of all rows, or of none, are taken as certain."""
    share = labels.mean(axis=0)
    varies = (share > 0) & (share < 1)
    fits = _regressions(features, labels[:, varies], strengths, seed)
    for learned, offsets in fits if varies.any() else (((), ()) for _ in strengths):
        weight = np.zeros((features.shape[1], len(share)))
        bias = np.where(share == 1, -least, least)
        if varies.any():
            weight[:, varies], bias[varies] = learned, offsets
        yield weight, bias


def _regressions(
    features: Sparse, targets: np.ndarray, strengths: Sequence[float], seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit a regression for each column of targets, (rows, columns), in the fastest way."""
    if targets.shape[1] == 1:
        spanned = targets.shape[0] ** 3 <= SPAN_WORK * features.nnz * len(strengths)
    else:
        spanned = _span_is_faster(features, targets.shape[1], len(strengths))
    if spanned and targets.shape[0] <= SPAN_ROWS:
        yield from _in_the_span(features, targets, strengths)
    elif targets.shape[1] == 1:
        yield from _by_liblinear(features, targets[:, 0], strengths, seed)
    else:
        yield from fit_together(features, targets, strengths)


def _span_is_faster(features: Sparse, columns: int, strengths: int) -> bool:
    """Compare the work of several regressions in the span of the rows, and of all together."""
    rows = features.shape[0]
    span = rows**3 + strengths * columns * SPAN_STEPS * rows**2
    entries = ENTRY * (columns + SHORTEST) * features.nnz
    return span <= strengths * (entries + NUMBER * columns * sum(features.shape))


def _in_the_span(
    features: Sparse, targets: np.ndarray, strengths: Sequence[float]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit all classes together, in the space that the rows span.

    The weights lie in it (representer theorem, Schölkopf et al., COLT 2001), and it has few
    dimensions where there are many more features than rows.
    """
    rows, columns = targets.shape
    values, vectors = torch.linalg.eigh(_products(features) + 1.0)
    real = values > _LEAST_EIGENVALUE * values[-1]
    values, vectors = values[real], vectors[:, real]
    x = F.pad(vectors * values.sqrt(), (0, 1))  # the last column is the free bias, which stays 0
    # Each class is a problem of its own: a rare one takes fewer steps than a frequent one.
    problem = Problem(
        x=x[None],
        spectrum=F.pad(values / rows, (0, 1))[None],
        basis=torch.empty(1, 0),  # of raw features: nothing asks for it
        mean=torch.zeros(1, 0),
        std=torch.zeros(1, 0),
        y=torch.from_numpy(targets.T).float()[:, None],
        weights=torch.full((1, rows), 1 / rows).expand(columns, -1),
        penalty=torch.ones(columns),
        spread=None,
    )
    to_rows = vectors / values.sqrt()
    path = problem.path(lambda _: SPAN_TOLERANCE)
    for strength in strengths:
        w = path.fit(strength)[0, :, 0].double()
        shares = (to_rows.double() @ w[:, :-1].T).numpy()
        yield features.T @ shares, shares.sum(axis=0)


def _products(features: Sparse) -> Tensor:
    """Dot products of every two rows. Shape: (rows, rows), float32, from (rows, features).

    A sparse product takes as many operations as rows have a feature, squared. Those that many rows
    have are therefore multiplied as dense ones, some at a time.
    """
    rows = features.shape[0]
    columns = features.tocsc()
    often = np.diff(columns.indptr) > OFTEN * rows
    rare = columns[:, ~often].tocsr()
    products = torch.from_numpy((rare @ rare.T).toarray()).float()
    dense = columns[:, often]
    for start in range(0, dense.shape[1], DENSE_FEATURES):
        some = torch.from_numpy(dense[:, start : start + DENSE_FEATURES].toarray()).float()
        products.addmm_(some, some.T)
    return products


def _by_liblinear(
    features: Sparse, target: np.ndarray, strengths: Sequence[float], seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit a single regression, (rows,); the time grows with the rows, not with their cube."""
    from sklearn.linear_model import LogisticRegression

    for strength in strengths:
        # Liblinear's dual solver takes a third of the time of a multinomial fit by L-BFGS. On MR
        # and R52, a tolerance tighter than 0.01 changed no accuracy by 0.1 points or more.
        settings = {"C": strength, "tol": 1e-2, "max_iter": 1000, "random_state": seed}
        with _alone():
            fitted = LogisticRegression(solver="liblinear", dual=True, **settings)
            fitted.fit(features, target)
        yield np.asarray(fitted.coef_).T, np.asarray(fitted.intercept_)


@contextmanager
def _alone() -> Iterator[None]:
    """Let one thread at a time fit by liblinear, without a warning where a fit stops short.

    The process has one generator of random numbers for all fits of liblinear, and one list of
    filters of warnings. A fit that stops slightly short of its optimum is still a valid regression.
    """
    from sklearn.exceptions import ConvergenceWarning

    with _LIBLINEAR, warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def log_probabilities(
    features: Sparse, weight: np.ndarray, bias: np.ndarray, *, multilabel: bool = False
) -> np.ndarray:
    """Log-probabilities of the classes, which add up to 1, or of labels. Shape: (rows, classes)."""
    from scipy.special import expit

    probabilities = expit(features @ weight + bias).clip(_LEAST_PROBABILITY)
    if multilabel:
        return np.log(probabilities.clip(max=1 - _LEAST_PROBABILITY))
    return np.log(probabilities / probabilities.sum(axis=1, keepdims=True))
