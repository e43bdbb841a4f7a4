"""Classifiers on sentence embeddings with scikit-learn, which are rivals in `benchmarks.rivals`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import StackingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from layerfusion.texts.tfidf import tfidf

STRENGTHS = np.logspace(-5, 1, 7)
"""Inverse strengths C that the cross-validation tries."""
FOLDS = 5
"""Number of folds of every cross-validation."""
MAX_STEPS = 500
"""Largest number of steps of a logistic regression."""
LEAST_PROBABILITY = 1e-7
"""Smallest probability of a class. Without it, a class that train lacks has infinite log-loss."""


@dataclass(frozen=True)
class Rows:
    """The labelled rows that a rival learns from, and the texts of the test rows."""

    texts: Sequence[str]
    target: np.ndarray
    """Class index of each row. Shape: (rows,)."""
    test_texts: Sequence[str]
    num_classes: int
    seed: int


@dataclass(frozen=True)
class Vectors:
    """The vectors that one model gives to the rows."""

    learn: np.ndarray
    """Vectors of the rows to learn from. Shape: (rows, width)."""
    test: np.ndarray
    """Vectors of the test rows. Shape: (test rows, width)."""


@dataclass(frozen=True)
class Answer:
    """The predictions of a rival for test."""

    probabilities: np.ndarray
    """Probability of each class. Shape: (test rows, classes)."""
    seconds: float
    """Time to fit and predict, without the time to compute the vectors."""
    c: float = float("nan")
    """Chosen inverse strength of the regularisation; NaN if there is none."""


def regression(vectors: Vectors, rows: Rows) -> Answer:
    """Fit a logistic regression on standardised vectors, with C by five-fold cross-validation."""
    begun = time.perf_counter()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_STEPS))
    grid = {"logisticregression__C": STRENGTHS}
    search = GridSearchCV(model, grid, cv=_folds(rows.seed))
    probabilities = _answers(search, vectors.learn, vectors.test, rows)
    c = float(search.best_params_["logisticregression__C"])
    return Answer(probabilities, time.perf_counter() - begun, c)


def stacking(
    vectors: Mapping[str, Vectors],
    c_of: Mapping[str, float],
    rows: Rows,
    lexical: Mapping[str, float] | None = None,
) -> Answer:
    """Fit scikit-learn's StackingClassifier over a logistic regression on each model and TF-IDF.

    Args:
        vectors: vectors of each model.
        c_of: inverse strength of each model's regression, as `regression` chose it.
        rows: the rows to learn from.
        lexical: inverse strength of a TF-IDF regression for each kind of features (words,
            characters) to stack as well; None stacks none.
    """
    begun = time.perf_counter()
    # The estimators receive row numbers, and each looks up the vectors of its model.
    learn = np.arange(len(rows.texts))[:, None]
    test = len(learn) + np.arange(len(rows.test_texts))[:, None]
    estimators: list[tuple[str, Any]] = []
    for name, layer in vectors.items():
        table = np.concatenate([layer.learn, layer.test])
        model = LogisticRegression(C=c_of[name], max_iter=MAX_STEPS)
        estimators.append((name, make_pipeline(_looked_up(table), StandardScaler(), model)))
    texts = np.array([*rows.texts, *rows.test_texts], dtype=object)
    for features, c in (lexical or {}).items():
        model = LogisticRegression(C=c, max_iter=MAX_STEPS)
        counted = tfidf(features, len(rows.texts))
        estimators.append((f"TF-IDF {features}", make_pipeline(_looked_up(texts), counted, model)))
    # A strength chosen by accuracy alone may give almost constant probabilities (on some models
    # 1e-5 is as accurate as any). Scaling lets the final estimator use them all the same.
    final = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_STEPS))
    stack = StackingClassifier(
        estimators,
        final_estimator=final,
        cv=_folds(rows.seed),
        stack_method="predict_proba",
    )
    probabilities = _answers(stack, learn, test, rows)
    return Answer(probabilities, time.perf_counter() - begun)


def _folds(seed: int) -> StratifiedKFold:
    return StratifiedKFold(FOLDS, shuffle=True, random_state=seed)


def _looked_up(table: np.ndarray) -> FunctionTransformer:
    return FunctionTransformer(_rows_of, kw_args={"table": table})


def _rows_of(places: np.ndarray, table: np.ndarray) -> np.ndarray:
    return table[places[:, 0]]


def _answers(model: Any, learn: np.ndarray, test: np.ndarray, rows: Rows) -> np.ndarray:
    """Fit a model, and predict probabilities of all classes, also of those that train lacks."""
    with warnings.catch_warnings():
        # Folds may lack rare classes, and under weak regularisation some fits stop early.
        warnings.simplefilter("ignore", (ConvergenceWarning))
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        warnings.filterwarnings("ignore", "Number of classes in training fold", RuntimeWarning)
        model.fit(learn, rows.target)
    probabilities = np.full((len(test), rows.num_classes), LEAST_PROBABILITY)
    probabilities[:, model.classes_] = model.predict_proba(test).clip(LEAST_PROBABILITY)
    return probabilities / probabilities.sum(axis=1, keepdims=True)
