from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfusion.report.layer_curves import spread


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_labels_keep_their_distance_their_order_and_their_centre(heights: list[float]) -> None:
    placed = spread(heights, gap=5)
    order = np.argsort(heights, kind="stable")
    assert (np.diff(np.array(placed)[order]) >= 5 - 1e-9).all()
    assert np.mean(placed) == pytest.approx(np.mean(heights), abs=1e-9)


def test_labels_that_do_not_clash_stay() -> None:
    assert spread([30, 10, 20], gap=5) == [30, 10, 20]


def test_labels_that_clash_move_as_little_as_needed() -> None:
    assert spread([10, 10, 50], gap=4) == [8, 12, 50]
