"""Names at the right ends of curves, moved apart where they would overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy
from scipy.optimize import isotonic_regression
from scipy.stats import rankdata

from layerfusion.report.figures.axes import PIXEL, figure_of, is_narrow, legend, one_series

GAP = 16
"""Pixels from one name to the next."""
ROOM = 18
"""Pixels from the frame to the names."""


class LineEnd(NamedTuple):
    """The last point of a curve, in data, and its name."""

    name: str
    x: float
    y: float
    color: str


def name_curves(ax: Axes, ends: Sequence[LineEnd], *, fontsize: float = 11) -> None:
    """Name curves at their ends, or above the axes where the screen is narrow."""
    if ends and is_narrow(ax):
        legend(ax)
    elif ends:
        name_lines(ax, ends, fontsize=fontsize)


def name_lines(ax: Axes, ends: Sequence[LineEnd], *, fontsize: float = 11) -> None:
    """Write the names to the right of the plot, and lead to each from the end of its curve.

    Call it when all else is drawn: it fixes the vertical limits, which names may widen.
    """
    figure = figure_of(ax)
    figure.draw_without_rendering()  # lays out what there is so far
    low, high = ax.get_ylim()
    gap = (high - low) * GAP * PIXEL * figure.dpi / ax.bbox.height
    heights = spread([end.y for end in ends], gap=gap)
    ax.set_ylim(min([low, *heights]), max([high, *heights]))
    beside = offset_copy(ax.get_yaxis_transform(), figure, x=ROOM, units="points")
    dots = {"arrowstyle": "-", "linewidth": 0.8, "linestyle": (0, (1, 2)), "relpos": (0, 0.5)}
    look = {"textcoords": beside, "va": "center", "fontsize": fontsize, "annotation_clip": False}
    for (name, x, y, color), shown in zip(ends, heights, strict=True):
        with one_series(ax, name):
            ax.annotate(
                name, (x, y), (1, shown), color=color, arrowprops={**dots, "color": color}, **look
            )


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """Move heights apart, as little as needed, to `gap` from each other or more, in their order."""
    ranks = rankdata(heights, method="ordinal") - 1
    order, steps = np.argsort(ranks), gap * ranks
    # Less their steps, heights that are at least a step apart only have to rise.
    level = isotonic_regression((np.array(heights) - steps)[order]).x
    return (level[ranks] + steps).tolist()
