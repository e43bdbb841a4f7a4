"""The heat maps of a profile's figure: ranks by score, and likeness of layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from layerfusion.records.profile import Profile
from layerfusion.report.canvas import MUTED, PAPER
from layerfusion.report.line_ends import spread
from layerfusion.report.names import MINUS
from layerfusion.report.profile_layout import (
    CHARACTER,
    LABEL,
    NAME,
    ROW,
    Layout,
    Strand,
    panel,
    ticks_that_fit,
    write,
)
from layerfusion.report.profile_tables import best_of, score_names
from layerfusion.report.profile_words import LOW_IS_GOOD, form, number, percentage

RANKS = LinearSegmentedColormap.from_list("ranks", ["#08306b", "#0072b2", "#86bfe0", "#eef4f8"])
LIKENESS = LinearSegmentedColormap.from_list(
    "likeness", ["#fff8ef", "#f6cf9c", "#e08a2e", "#b04a00", "#3d1400"]
)
"""Each of one hue, light to dark, so that it reads in grey and to the colour-blind."""
ON_LIGHT, ON_DARK = "#1f2329", "#ffffff"
"""Figures in cells: the cells keep their colours on a dark page, so these do too."""
NOTHING, HATCH = "#eceef0", "#c3c8ce"
ROOM_FOR_VALUES, ROOM_FOR_DOTS, ROOM_FOR_CKA = 54.0, 6.0, 34.0
"""Pixels of a column."""


def draw_ranks(
    figure: Figure, layout: Layout, profile: Profile, strands: Sequence[Strand], chosen: set[int]
) -> None:
    """Panel b: rows are scores, columns the layers of each source, colour the rank within it."""
    names = score_names(profile)
    top, bottom = layout.ranks, layout.ranks + ROW * len(names)
    for row, name in enumerate(names):
        label = f"{name} ↓" if name in LOW_IS_GOOD else name
        y = top + ROW * (row + 0.5)
        write(figure, layout, layout.left - 8, y, label, ha="right", color=MUTED, fontsize=10.5)
    for strand, start in zip(strands, layout.starts, strict=True):
        x, width = layout.left + start, layout.column * len(strand.places)
        if names:
            axes = panel(figure, layout, x, top, width, ROW * len(names))
            axes.set(xlim=(0, len(strand.places)), ylim=(len(names), 0))
            _draw_block(axes, profile, strand, names, layout.column)
        label = strand.label(int(max(width, NAME) / CHARACTER))
        write(figure, layout, x, top - 20, label, color=strand.color, fontsize=11)
        layers = [profile.layers[n].layer for n in strand.places]
        middles = [x + layout.column * (index + 0.5) for index in range(len(layers))]
        for n, middle in zip(strand.places, middles, strict=True):
            if n in chosen:
                write(figure, layout, middle, top - 6, "▼", ha="center", fontsize=7)
        for index in ticks_that_fit(layers, layout.column):
            text, style = layers[index], {"ha": "center", "color": MUTED, "fontsize": 9}
            write(figure, layout, middles[index], bottom + 10, text, **style)


def ranks_note(layout: Layout) -> str:
    """How the marks of `draw_ranks` are read."""
    mark = "Bold" if layout.column >= ROOM_FOR_VALUES else "Dot"
    return f"{mark}: the best of its model and pooling. ↓: low is good. Hatched: no value."


def ranks(values: Sequence[float | None], *, low_is_good: bool) -> np.ndarray:
    """Rank of each value, 1 the best; equals share the mean of theirs, NaN where there is none.

    Shape: (values,).
    """
    signed = np.array([np.nan if value is None else float(value) for value in values])
    signed = signed if low_is_good else -signed
    found = np.isfinite(signed)
    _, codes, counts = np.unique(signed[found], return_inverse=True, return_counts=True)
    result = np.full(len(signed), np.nan)
    result[found] = (np.cumsum(counts) - (counts - 1) / 2)[codes]
    return result


def draw_likeness(
    figure: Figure,
    layout: Layout,
    profile: Profile,
    strands: Sequence[Strand],
    *,
    named: bool = True,
) -> None:
    """Panel c: CKA between all layers, sources set apart by lines and `named` at the side."""
    order = [n for strand in strands for n in strand.places]
    matrix = np.array(profile.similarity)[np.ix_(order, order)]
    x, side = layout.square
    cell = side / len(order)
    axes = panel(figure, layout, x, layout.top, side, side)
    # The extent is in layers, so that separators stand between cells.
    extent = (0.0, float(len(order)), float(len(order)), 0.0)
    axes.imshow(matrix, cmap=LIKENESS, vmin=0, vmax=1, extent=extent, interpolation="none")
    if cell >= ROOM_FOR_CKA:
        for (row, column), value in np.ndenumerate(matrix):
            style = {"color": ON_LIGHT if value < 0.6 else ON_DARK, "fontsize": 9.5}
            text = f"{value:.2f}".replace("-", MINUS)
            axes.text(column + 0.5, row + 0.52, text, ha="center", va="center", **style)
    ends = np.cumsum([len(strand.places) for strand in strands]).tolist()
    for end in ends[:-1]:
        axes.axhline(end, color=PAPER, linewidth=1.6)
        axes.axvline(end, color=PAPER, linewidth=1.6)
    starts = [0, *ends[:-1]]
    middles = [(start + end) / 2 * cell for start, end in zip(starts, ends, strict=True)]
    labels = spread(middles, gap=14)
    for strand, start, label in zip(strands, starts, labels, strict=True):
        name = strand.label(LABEL)
        style = {"ha": "right", "color": strand.color, "fontsize": 11}
        if named:
            write(figure, layout, x - 13, layout.top + label, name, **style)
        _draw_edge(figure, layout, profile, strand, start * cell, cell)


def _draw_edge(
    figure: Figure, layout: Layout, profile: Profile, strand: Strand, start: float, cell: float
) -> None:
    """A source's colour along both sides of panel c, and numbers of layers below."""
    x, side = layout.square
    length, bottom = cell * len(strand.places), layout.top + side
    for box in ((x - 8, layout.top + start, 5, length), (x + start, bottom + 3, length, 5)):
        strip = panel(figure, layout, *box)
        strip.add_patch(Rectangle((0, 0), 1, 1, facecolor=strand.color, edgecolor=PAPER))
    layers = [profile.layers[n].layer for n in strand.places]
    for index in ticks_that_fit(layers, cell, apart=start == 0):
        across = x + start + (index + 0.5) * cell
        style = {"ha": "center", "color": MUTED, "fontsize": 9}
        write(figure, layout, across, bottom + 17, layers[index], **style)


def _draw_block(
    axes: Axes, profile: Profile, strand: Strand, names: Sequence[str], column: float
) -> None:
    """The ranks of one source's layers, with the values where there is room."""
    for row, name in enumerate(names):
        values = [profile.layers[n].scores.get(name) for n in strand.places]
        ranked = ranks(values, low_is_good=name in LOW_IS_GOOD)
        most = max(1, int(np.isfinite(ranked).sum()) - 1)
        best = best_of(profile.layers, name, strand.places)
        for index, n in enumerate(strand.places):
            box = Rectangle((index, row), 1, 1, linewidth=0.7, edgecolor=PAPER)
            axes.add_patch(box)
            if not np.isfinite(ranked[index]):
                box.set(facecolor=NOTHING, edgecolor=HATCH, hatch="/////", linewidth=0)
                continue
            shade = (ranked[index] - 1) / most
            box.set_facecolor(RANKS(shade))
            ink = ON_LIGHT if shade > 0.5 else ON_DARK
            if column >= ROOM_FOR_VALUES:
                weight = "bold" if n == best else "normal"
                share = name == "accuracy"
                value = values[index]
                text = percentage(value) if share else number(value, form(values))
                style = {"ha": "center", "va": "center", "fontsize": 9.5, "color": ink}
                axes.text(index + 0.5, row + 0.52, text, fontweight=weight, **style)
            elif n == best and column >= ROOM_FOR_DOTS:
                axes.plot(index + 0.5, row + 0.5, marker="o", markersize=3.2, color=ink)
