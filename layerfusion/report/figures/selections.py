"""Figure of the regret of selections: their loss to the best single layer in hindsight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from layerfusion.findings.judged import NamedProfile, SelectionRow
from layerfusion.report.blocks.pareto import MARKERS
from layerfusion.report.figures.canvas import LINE, is_narrow, legend, new_axes, write
from layerfusion.report.figures.colors import INK, MUTED, PAPER, SERIES
from layerfusion.report.format import REGRET, bracket, shortened

LINEAR = 4.0
"""Points to either side of 0 that are drawn about evenly. Without a limit, a single score that
fails would press all others together."""
TICKS = (-40, -20, -10, -5, -2, 0, 2, 5, 10, 20, 40, 80)


def plot_regret(
    judged: Sequence[NamedProfile], rows: Sequence[SelectionRow], ax: Axes | None = None
) -> Axes:
    """Draw the regret of every selection: a mark for each profile, and the mean with its interval.

    The first row is on top.
    """
    data = list(dict.fromkeys(entry.data for entry in judged))
    keys = [LINE * -(-len(data) // columns) + 52 for columns in (5, 2)]
    ax = new_axes(ax, 36 * len(rows) + keys[0], 56 * len(rows) + keys[1], grid="x")
    narrow = is_narrow(ax)
    ax.set_ylim(len(rows) - 0.4, -0.7 if narrow else -0.6)
    ax.set_yticks([])
    ax.set_xscale("asinh", linear_width=LINEAR)
    ax.set_xticks(TICKS, [f"{tick}".replace("-", "−") for tick in TICKS])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.axvline(0, color=INK, linewidth=1.2)
    ax.set_xlabel(f"regret, points of test accuracy; closer together beyond {LINEAR:g}")
    places = np.linspace(-0.26, 0.06, len(judged)) if len(judged) > 1 else np.array([-0.1])
    drawn = [100 * end for row in rows for end in (row.regret.low, row.regret.high)]
    for y, row in enumerate(rows):
        for entry, selection, offset in zip(judged, row.by_profile, places, strict=True):
            if selection is not None and selection.regret is not None:
                x, style = 100 * selection.regret.mean, _mark(data.index(entry.data))
                ax.plot(x, y + offset + 0.12 * narrow, markersize=5.5, alpha=0.8, **style)
                drawn.append(x)
        _draw_mean(ax, row, y, of=len(judged), narrow=narrow)
    ax.set_xlim(min(1.15 * min(drawn), -1.0), max(1.15 * max(drawn), 1.0))
    handles = [Line2D([], [], markersize=6.5, **_mark(number)) for number in range(len(data))]
    columns = 2 if narrow else 5
    legend(ax, columns=columns, handles=handles, labels=data, labelcolor=INK, handlelength=0.8)
    return ax


def _draw_mean(ax: Axes, row: SelectionRow, y: int, *, of: int, narrow: bool) -> None:
    mean, height = row.regret, y + (0.34 if narrow else 0.24)
    ends = [100 * mean.low, 100 * mean.high]
    ax.plot(ends, [height] * 2, color=INK, linewidth=2, solid_capstyle="butt")
    ax.plot(100 * mean.mean, height, marker="D", markersize=6, color=INK)
    words = f"{REGRET(mean.mean)} {bracket(mean, REGRET)}"
    name = shortened(row.name, 30)
    few = f"{row.count} of {of} profiles" if row.count < of else ""
    around = [withStroke(linewidth=3, foreground=PAPER)]
    look = {"xycoords": ("axes fraction", "data"), "fontsize": 11, "path_effects": around}
    if narrow:
        text = f"{name}: {words}" + f" ({few})" * bool(few)
        write(ax, text, (0.0, y), (4, 20), ha="left", color=INK, **look)
    else:
        named = f"{name}\n{few}" if few else name
        write(ax, named, (0.0, y), (-12, 0), ha="right", color=INK, **look)
        write(ax, words, (1.0, y), (10, 0), ha="left", color=MUTED, **look)


def _mark(number: int) -> dict[str, Any]:
    """Give the mark of a data set."""
    return {
        "marker": MARKERS[number % len(MARKERS)],
        "color": SERIES[number % len(SERIES)],
        "linestyle": "none",
        "markeredgewidth": 0,
    }
