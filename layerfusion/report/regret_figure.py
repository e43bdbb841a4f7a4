"""The figure of what selections lose to the best layer in hindsight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import NullLocator

from layerfusion.records.format import plural
from layerfusion.report.canvas import (
    GRID,
    INK,
    MUTED,
    PAPER,
    PIXEL,
    SERIES,
    Drawing,
    canvas,
    drawing,
    shortened,
)
from layerfusion.report.profile_words import between, unsigned
from layerfusion.report.regret_rows import Cell, SelectionRow

MARKERS = ("o", "s", "^", "D", "v", "P")
"""By data set, together with the colour."""
NAME = 30
"""Characters of a selection's name."""
LINEAR = 4.0
"""Points to either side of 0 that are drawn about evenly; one score that fails would else press all
others together."""
TICKS = (-40, -20, -10, -5, -2, 0, 2, 5, 10, 20, 40, 80)
CHARACTER = 6.8
"""Pixels that a character of the key takes."""


def regret_figure(cells: Sequence[Cell], rows: Sequence[SelectionRow]) -> Drawing:
    """Regret of every selection: a dot a cell, and the mean with its interval."""
    return drawing(
        "regret",
        lambda narrow: _draw(cells, rows, narrow=narrow),
        alt="Regret of each selection in points, mean over cells. "
        + "; ".join(f"{row.name}: {unsigned(row.regret.mean)}" for row in rows),
        caption=f"Points behind the best single layer in hindsight, in {plural(len(cells), 'cell')}"
        " (a data set with some models and poolings). Small marks: cells, by data set. Diamond and"
        " bar: their mean with its 95 % interval. Left of 0: better than every single layer.",
    )


def _draw(cells: Sequence[Cell], rows: Sequence[SelectionRow], *, narrow: bool) -> Figure:
    # On wide screens the names stand in a column of their own, on narrow ones above their lines.
    width, step, left, right = (360, 56, 14, 14) if narrow else (760, 36, 224, 132)
    data = list(dict.fromkeys(cell.data for cell in cells))
    key = _key(data, width - 28)
    top = 26 + 20 * (1 + max(line for _, line in key))
    figure, axes = canvas(width, step * len(rows) + top + 46, left, right, top, 46)
    axes.set_ylim(len(rows) - 0.4, -0.7 if narrow else -0.6)
    axes.set_yticks([])
    axes.set_xscale("asinh", linear_width=LINEAR)
    axes.set_xticks(TICKS, [f"{tick}".replace("-", "−") for tick in TICKS])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axvline(0, color=INK, linewidth=1.2)
    axes.set_xlabel(f"regret, points of test accuracy; closer together beyond {LINEAR:g}")
    places = np.linspace(-0.26, 0.06, len(cells)) if len(cells) > 1 else np.array([-0.1])
    places = places + 0.12 * narrow
    for y, row in enumerate(rows):
        for cell, one, offset in zip(cells, row.by_cell, places, strict=True):
            if one is not None and one.regret is not None:
                style = _mark(data.index(cell.data))
                axes.plot(100 * one.regret.mean, y + offset, markersize=5.5, alpha=0.8, **style)
        _draw_mean(axes, row, y, of=len(cells), narrow=narrow)
    axes.set_xlim(*_reach(rows))
    height = figure.get_figheight() / PIXEL
    for number, (name, (x, line)) in enumerate(zip(data, key, strict=True)):
        across, up = (14 + x) / width, 1 - (16 + 20 * line) / height
        figure.add_artist(
            Line2D([across], [up], transform=figure.transFigure, **_mark(number), markersize=6.5)
        )
        figure.text(across + 10 / width, up, name, color=INK, fontsize=11, va="center")
    return figure


def _reach(rows: Sequence[SelectionRow]) -> tuple[float, float]:
    """From the lowest to the highest regret of a cell or end of an interval, and a little more."""
    drawn = [one.regret.mean for row in rows for one in row.by_cell if one and one.regret]
    drawn += [end for row in rows for end in (row.regret.low, row.regret.high)]
    low, high = 100 * min(drawn), 100 * max(drawn)
    return min(1.15 * low, -1.0), max(1.15 * high, 1.0)


def _draw_mean(axes: Axes, row: SelectionRow, y: int, *, of: int, narrow: bool) -> None:
    mean, height = row.regret, y + (0.34 if narrow else 0.24)
    low, high = 100 * mean.low, 100 * mean.high
    axes.plot([low, high], [height] * 2, color=INK, linewidth=2, solid_capstyle="butt")
    axes.plot(100 * mean.mean, height, marker="D", markersize=6, color=INK)
    words = f"{unsigned(mean.mean)} {between(mean, unsigned)}"
    name = shortened(row.name, NAME)
    few = f"{row.cells} of {of} cells" if row.cells < of else ""
    if narrow:
        labels = [(f"{name}: {words}" + f" ({few})" * bool(few), 0.0, 4, "left", INK)]
    else:
        named = f"{name}\n{few}" if few else name
        labels = [(named, 0.0, -12, "right", INK), (words, 1.0, 10, "left", MUTED)]
    for text, x, pixels, align, color in labels:
        axes.annotate(
            text,
            (x, y),
            (pixels, 20 if narrow else 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha=align,
            va="center",
            color=color,
            fontsize=11,
            annotation_clip=False,
            path_effects=[withStroke(linewidth=3, foreground=PAPER)],
        )


def _key(data: Sequence[str], width: float) -> list[tuple[float, int]]:
    """Where the mark of each data set stands above the plot: pixels from the left, and line."""
    places, x, line = [], 0.0, 0
    for name in data:
        wide = 34 + CHARACTER * len(name)
        if x and x + wide > width:
            x, line = 0.0, line + 1
        places.append((x + 6, line))
        x += wide
    return places


def _mark(number: int) -> dict[str, Any]:
    """How a data set is marked."""
    return {
        "marker": MARKERS[number % len(MARKERS)],
        "color": SERIES[number % len(SERIES)],
        "linestyle": "none",
        "markeredgewidth": 0,
    }
