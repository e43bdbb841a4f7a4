from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Annotation, Text

from layerfusion.report.figures.axes import new_axes
from layerfusion.report.figures.canvas import sheet
from layerfusion.report.figures.line_ends import LineEnd, name_lines, spread


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


def test_names_lie_right_of_the_plot_inside_its_limits_and_apart() -> None:
    figure = sheet(400)
    axes = new_axes(figure.add_subplot(), 200)
    axes.plot([0, 1], [0, 1])
    axes.set_ylim(0, 1)
    ends = [LineEnd(f"curve {n}", 1, 0.9 + n / 100, "#000000") for n in range(9)]
    name_lines(axes, ends)
    names = [text for text in axes.texts if isinstance(text, Annotation)]
    assert [name.get_text() for name in names] == [end.name for end in ends]
    heights = [name.xyann[1] for name in names]
    low, high = axes.get_ylim()
    assert low <= min(heights)
    assert high >= max(heights)
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(name) for name in names]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    assert all(box.x0 > axes.bbox.x1 for box in boxes)
