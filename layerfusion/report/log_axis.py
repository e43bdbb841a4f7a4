"""Logarithmic axes whose numbers can be read: apart from each other, and written as people do."""

from __future__ import annotations

import math
from collections.abc import Collection

from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator

FINE_DECADES = 2
"""Up to so many powers of ten, a logarithmic axis has room for 1, 2 and 5 of each."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number_log_axis(axis: Axis, values: Collection[float]) -> None:
    """Number a logarithmic axis as finely as leaves its labels apart, also on a narrow screen.

    Args:
        axis: of axes whose scale is logarithmic.
        values: that are shown along it, all positive.
    """
    fine = max(values) <= 10**FINE_DECADES * min(values)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if fine else (1,)))
    axis.set_major_formatter(lambda value, _: plain_number(value))
    axis.set_minor_formatter(lambda value, _: "")
    axis.set_tick_params(which="minor", length=0)


def plain_number(value: float) -> str:
    """0.002, 50; where that has too many zeros, 2·10⁻⁵."""
    if 1e-4 <= value < 1e5:
        return f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    times = f"{value / 10**power:g}"
    return f"{'' if times == '1' else f'{times}·'}10{str(power).translate(RAISED)}"
