"""Whether new texts are of another kind: the index, and what chance makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from layerfusion.statistics.drift import (
    CONFIDENCES,
    MOST_LABELS,
    answer_counts,
    compare_counts,
    confidence_counts,
)


def test_the_index_is_that_of_the_shares() -> None:
    before, now = np.array([90_000, 10_000]), np.array([40_000, 60_000])
    expected = (0.4 - 0.9) * np.log(0.4 / 0.9) + (0.6 - 0.1) * np.log(0.6 / 0.1)
    found = compare_counts(before, now)
    assert found.index == pytest.approx(expected, rel=1e-3)
    assert found.p == pytest.approx(1e-4)


def test_samples_of_one_kind_differ_in_one_of_twenty() -> None:
    rng = np.random.default_rng(0)
    shares = [0.7, 0.2, 0.07, 0.03]
    found = [
        compare_counts(rng.multinomial(400, shares), rng.multinomial(100, shares))
        for _ in range(200)
    ]
    assert 0.01 <= np.mean([one.p < 0.05 for one in found]) <= 0.1
    assert 0.01 <= np.mean([one.index > one.shown for one in found]) <= 0.1


def test_two_texts_cannot_be_told_from_chance() -> None:
    assert compare_counts([900, 100], [2, 0]).p > 0.5
    assert compare_counts([900, 100, 0], [0, 0, 2]).p < 0.05  # of a kind that no text was


def test_kinds_that_are_in_neither_count_for_nothing() -> None:
    assert compare_counts([5, 0], [3, 0]).index == 0
    assert compare_counts([5, 0], [3, 0]).p == 1


def test_answers_are_counted_by_class_or_number_of_labels_and_by_their_least_sure_part() -> None:
    some = np.array([[0.96, 0.04], [0.45, 0.55], [0.001, 0.999]], np.float32)
    assert answer_counts(some, multilabel=False).tolist() == [1, 2]
    sure = confidence_counts(some, multilabel=False)
    assert len(sure) == len(CONFIDENCES) + 1
    assert np.flatnonzero(sure).tolist() == [1, 6, 7]
    labels = np.array([[0.9, 0.82], [0.1, 0.28], [0.55, 0.02]], np.float32)
    assert answer_counts(labels, multilabel=True).tolist() == [1, 1, 1] + [0] * (MOST_LABELS - 2)
    assert np.flatnonzero(confidence_counts(labels, multilabel=True)).tolist() == [1, 3, 4]
