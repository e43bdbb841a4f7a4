from __future__ import annotations

import numpy as np
import pytest

from layerfusion.statistics.answers import answers, consensus, right_rows


def test_consensus_is_the_highest_mean_probability_and_no_vote() -> None:
    # Two seeds lean to class 0, the third is sure of class 1.
    seeds = np.array([[[0.6, 0.4]], [[0.6, 0.4]], [[0.1, 0.9]]], dtype=np.float32)
    assert consensus(seeds).tolist() == [1]
    assert consensus(seeds[:1]).tolist() == [0]


def test_consensus_of_equals_is_the_first() -> None:
    assert consensus(np.full((2, 1, 3), 1 / 3, dtype=np.float32)).tolist() == [0]


def test_a_label_is_answered_from_one_half_on() -> None:
    seeds = np.array([[[0.2, 0.9, 0.5]], [[0.7, 0.3, 0.5]]], dtype=np.float32)
    assert answers(seeds, multilabel=True).tolist() == [
        [[False, True, True]],
        [[True, False, True]],
    ]
    assert consensus(seeds, multilabel=True).tolist() == [[False, True, True]]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_one_half_is_one_in_any_precision(kind: type) -> None:
    half = np.log(np.array([0.5], dtype=kind))
    assert answers(np.exp(half), multilabel=True).all()
    assert answers(np.exp(half.astype(np.float32).astype(np.float64)), multilabel=True).all()


def test_a_row_is_right_where_all_its_labels_are() -> None:
    target = np.array([[True, False], [False, False]])
    given = np.array([[[True, False], [True, False]], [[True, True], [False, False]]])
    assert right_rows(given, target).tolist() == [[True, False], [False, True]]
    assert right_rows(np.array([[0, 1], [1, 1]]), np.array([0, 1])).tolist() == [
        [True, True],
        [False, True],
    ]
