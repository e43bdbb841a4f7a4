from __future__ import annotations

from itertools import pairwise

import pytest

from layerfusion.report.figures.axes import NARROW, new_axes
from layerfusion.report.figures.canvas import sheet
from layerfusion.report.figures.log_axis import number_log_axis, plain_number


def test_numbers_of_a_logarithmic_axis_are_plain() -> None:
    numbers = (0.0001, 0.25, 50, 1e-5, 2e-5, 5e-13, 1e6, 2e9)
    assert [plain_number(number) for number in numbers] == [
        *("0.0001", "0.25", "50", "10⁻⁵", "2·10⁻⁵", "5·10⁻¹³", "10⁶", "2·10⁹")
    ]


@pytest.mark.parametrize("low", [3e-7, 0.004, 0.7])
@pytest.mark.parametrize("ratio", [1.001, 1.3, 3, 8, 90, 110, 1500, 1e7])
def test_numbers_of_a_logarithmic_axis_stand_apart(low: float, ratio: float) -> None:
    figure = sheet(NARROW)
    axes = new_axes(figure.add_subplot(), 300)
    axes.set_xscale("log")
    values = [low, low * ratio**0.4, low * ratio]
    axes.plot(values, values)
    number_log_axis(axes.xaxis, values)
    figure.draw_without_rendering()
    boxes = [x.get_window_extent() for x in axes.get_xticklabels() if x.get_text()]
    boxes = [box for box in boxes if axes.bbox.x0 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1]
    assert len(boxes) >= 2
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
