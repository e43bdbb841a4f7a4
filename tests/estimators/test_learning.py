"""What `LayerFusionClassifier` learns from: rows, folds, weights and seeds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import StratifiedKFold, cross_val_score

from layerfusion.errors import UserError
from tests.estimators.conftest import FUSIONS


@pytest.mark.parametrize("params", FUSIONS, ids=lambda params: params["fusion"])
def test_the_labels_of_other_rows_change_nothing(
    params: dict[str, Any], make: Any, rows: pd.DataFrame, new: list[str], tmp_path: Path
) -> None:
    """Not even where they were fitted before on the same cache."""
    train, labels = rows.text[:24], rows.label[:24]
    alone = make(**params, cache=str(tmp_path / "alone")).fit(train, labels)
    shared = str(tmp_path / "shared")
    others = rows.label.sample(frac=1, random_state=0).to_numpy()
    make(**params, cache=shared).fit(rows.text, others)
    beside = make(**params, cache=shared).fit(train, labels)
    np.testing.assert_allclose(
        beside.predict_proba(new), alone.predict_proba(new), rtol=0, atol=1e-5
    )
    assert beside.leaderboard().layers.tolist() == alone.leaderboard().layers.tolist()


def test_a_cross_validation_is_that_of_fits_by_hand(make: Any, rows: pd.DataFrame) -> None:
    folds = StratifiedKFold(2)
    scores = cross_val_score(make(), rows.text, rows.label, cv=folds, scoring="neg_log_loss")
    for (train, test), score in zip(folds.split(rows.text, rows.label), scores, strict=True):
        found = make().fit(rows.text[train], rows.label[train]).predict_proba(rows.text[test])
        right = found[np.arange(len(test)), (rows.label[test] == "pos").astype(int)]
        assert score == pytest.approx(np.log(right).mean(), abs=1e-6)


@pytest.mark.parametrize("params", FUSIONS, ids=lambda params: params["fusion"])
def test_a_weight_is_the_number_of_times_that_a_row_counts(
    params: dict[str, Any], make: Any, rows: pd.DataFrame, new: list[str]
) -> None:
    weights = np.random.default_rng(0).integers(0, 4, len(rows))
    weighted = make(**params).fit(rows.text, rows.label, sample_weight=weights.astype(float))
    often = rows.loc[np.repeat(rows.index, weights)].sample(frac=1, random_state=0)
    repeated = make(**params).fit(often.text, often.label)
    plain = make(**params).fit(rows.text, rows.label)
    np.testing.assert_allclose(
        weighted.predict_proba(new), repeated.predict_proba(new), rtol=0, atol=1e-7
    )
    assert np.abs(weighted.predict_proba(new) - plain.predict_proba(new)).max() > 1e-4


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.5] * 40, "weight 1 of 40 is 1.5; whole numbers from 0 are needed"),
        ([1] * 39 + [-1], "weight 40 of 40 is -1; whole"),
        ([1] * 39 + [np.nan], "weight 40 of 40 is nan; whole"),
        ([1] * 3, r"40 texts and weights of shape \(3,\)"),
        ([0] * 40, "every weight is zero"),
        (["x"] * 40, "numbers are needed"),
        ([10**6] * 40, "add up to 4e[+]07 rows, more than"),
        ([1, 0] * 20, "y has one class only, 'neg'"),
    ],
)
def test_weights_that_no_part_of_the_fit_knows_are_refused(
    weights: list[Any], message: str, make: Any, rows: pd.DataFrame
) -> None:
    with pytest.raises(UserError, match=message):
        make().fit(rows.text, rows.label, sample_weight=weights)


@pytest.mark.parametrize("params", FUSIONS, ids=lambda params: params["fusion"])
def test_two_rows_of_a_class_are_enough(
    params: dict[str, Any], make: Any, rows: pd.DataFrame, new: list[str]
) -> None:
    classifier = make(**params).fit(rows.text[:4], rows.label[:4])
    probabilities = classifier.predict_proba(new)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_a_seed_gives_the_same_classifier_and_leaves_the_generators_alone(
    make: Any, rows: pd.DataFrame, new: list[str]
) -> None:
    def generators() -> list[str]:
        return [
            str(random.getstate()),
            str(np.random.get_state()),
            str(torch.get_rng_state().sum()),
        ]

    states = generators()
    first = make(fusion="gated", layers="last").fit(rows.text, rows.label).predict_proba(new)
    again = make(fusion="gated", layers="last").fit(rows.text, rows.label).predict_proba(new)
    assert generators() == states
    np.testing.assert_array_equal(first, again)
    generator = np.random.RandomState(3)
    drawn = make(fusion="gated", layers="last", random_state=generator)
    other = drawn.fit(rows.text, rows.label).predict_proba(new)
    assert np.abs(other - first).max() > 1e-4
