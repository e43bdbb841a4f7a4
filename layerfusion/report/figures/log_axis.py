"""Numbers of logarithmic axes that stand apart from each other and read like 0.002 or 50."""

from __future__ import annotations

import math
from collections.abc import Collection

from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, MaxNLocator

FINE_DECADES = 2
"""An axis over at most so many powers of ten has room for 1, 2 and 5 of each."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number_log_axis(axis: Axis, values: Collection[float]) -> None:
    """Number a logarithmic axis as finely as its labels have room, also on a narrow screen.

    Args:
        axis: an axis with a logarithmic scale.
        values: the values along it, all positive.
    """
    low, high = min(values), max(values)
    parts = (1, 2, 5) if high <= 10**FINE_DECADES * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [step for n in powers for part in parts if low <= (step := part * 10.0**n) <= high]
    # Values close together may have no two of these between them.
    axis.set_major_locator(LogLocator(subs=parts) if len(steps) > 1 else MaxNLocator(3))
    axis.set_major_formatter(lambda value, _: plain_number(value))
    axis.set_minor_formatter(lambda value, _: "")
    axis.set_tick_params(which="minor", length=0)


def plain_number(value: float) -> str:
    """Write 0.002 or 50; very small and large numbers as 2·10⁻⁵."""
    if 1e-4 <= value < 1e5:
        return f"{value:g}"
    power = math.floor(math.log10(value) + 1e-9)
    times = f"{value / 10**power:g}"
    return f"{'' if times == '1' else f'{times}·'}10{str(power).translate(RAISED)}"
