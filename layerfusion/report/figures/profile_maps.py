"""Heat maps of a layer profile: the ranks that scores give to layers, and how alike layers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from layerfusion.findings import profiles as scores
from layerfusion.records.profile import Profile
from layerfusion.report.figures import axes
from layerfusion.report.figures.colors import INK, MUTED, PAPER
from layerfusion.report.figures.layers import source_label, source_looks
from layerfusion.report.figures.line_ends import spread
from layerfusion.report.format import decimals
from layerfusion.report.metrics import score_format

RANKS = LinearSegmentedColormap.from_list("ranks", ["#08306b", "#0071b1", "#86bfe0", "#eef4f8"])
LIKENESS = LinearSegmentedColormap.from_list(
    "likeness", ["#fff8ef", "#f6cf9c", "#e08a2e", "#b04a00", "#3d1400"]
)
"""Each map has one hue, light to dark, so that it reads in grey and to the colour-blind. None is a
colour of the page, as those are others in the dark and would change the order of the cells."""
ON_LIGHT, ON_DARK = "#1f2329", "#ffffff"
"""Colours of the numbers in cells, which keep them on a dark page as the cells do."""
NOTHING, HATCH = "#eceef0", "#c3c8ce"
CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}
COLUMN, CELL = 60.0, 44.0
"""Largest width of a layer in the two maps, in pixels."""
ROOM_FOR_VALUES, ROOM_FOR_DOTS, ROOM_FOR_CKA = 54.0, 6.0, 34.0
"""Least width of a layer for numbers or marks in its cells, in pixels."""
TICK = 18.0
"""Least distance between the numbers of two layers, in pixels."""
BETWEEN = 2.6
"""Height of the names between two sources, in rows."""


# -- ranks --------------------------------------------------------------------------------------


def plot_scores(profile: Profile, ax: Axes | None = None) -> Axes:
    """Draw the rank that each score gives to a layer within its source, one block a source.

    Rows are scores and columns are layers, bottom up; dark is best.
    """
    names, series = scores.score_names(profile), scores.sources(profile)
    looks = source_looks(profile)
    step = len(names) + BETWEEN
    ax = axes.new_axes(ax, 24 * step * len(series) + 40)
    column = column_width(profile, axes.width_of(ax))
    across = (axes.width_of(ax) - _names_width(names)) / column
    ax.set(xlim=(0, across), ylim=(step * len(series), 0), xticks=[])
    ax.spines["bottom"].set_visible(False)
    labels = [f"{name} ↓" if scores.low_is_good(profile, name) else name for name in names]
    tops = [step * number + 1.4 for number in range(len(series))]
    places = [top + row + 0.5 for top in tops for row in range(len(names))]
    ax.set_yticks(places, labels * len(series))
    chosen = scores.marked_layers(profile)
    for (source, own), top in zip(series.items(), tops, strict=True):
        style = {"color": looks[source][0], "fontsize": 11, "va": "center"}
        ax.text(0, top - 0.9, source_label(source, 60), **style)
        for row, name in enumerate(names):
            _draw_ranks(ax, profile, own, name, top + row, column)
        layers = [profile.layers[place].layer for place in own]
        for index, place in enumerate(own):
            if place in chosen:
                ax.text(index + 0.5, top - 0.25, "▼", color=INK, fontsize=7, **CENTRED)
        for index in ticks_that_fit(layers, column):
            below = top + len(names) + 0.4
            ax.text(index + 0.5, below, layers[index], color=MUTED, fontsize=9, **CENTRED)
    axes.color_bar(ax, RANKS, ("best", "worst"))
    return ax


def ranks_note(profile: Profile) -> str:
    """Say how the marks of `plot_scores` are read."""
    mark = "Bold" if column_width(profile, axes.WIDE) >= ROOM_FOR_VALUES else "Dot"
    return f"{mark}: the best of its model and pooling. ↓: low is good. Hatched: no value."


def column_width(profile: Profile, width: float) -> float:
    """Give the width of a layer in `plot_scores`, in pixels, on a figure of a width."""
    room = width - _names_width(scores.score_names(profile))
    return min(COLUMN, room / max(map(len, scores.sources(profile).values())))


def _names_width(names: Sequence[str]) -> float:
    return 30 + 6.6 * max(map(len, names), default=0)


def _draw_ranks(
    ax: Axes, profile: Profile, places: Sequence[int], name: str, y: float, column: float
) -> None:
    """Draw the ranks of one source's layers, with the values where there is room."""
    values = [profile.layers[place].scores.get(name) for place in places]
    ranked = scores.ranks(values, low_is_good=scores.low_is_good(profile, name))
    most = max(1, int(np.isfinite(ranked).sum()) - 1)
    best, form = scores.best_place(profile, name, places), score_format(profile, name)
    for index, (place, rank, value) in enumerate(zip(places, ranked, values, strict=True)):
        box = Rectangle((index, y), 1, 1, linewidth=0.7, edgecolor=PAPER)
        box.set_in_layout(False)
        ax.add_patch(box)
        if value is None:
            box.set(facecolor=NOTHING, edgecolor=HATCH, hatch="/////", linewidth=0)
            continue
        shade = (rank - 1) / most
        box.set_facecolor(RANKS(shade))
        ink = ON_LIGHT if shade > 0.5 else ON_DARK
        if column >= ROOM_FOR_VALUES:
            style = {"fontweight": "bold" if place == best else "normal", "fontsize": 9.5}
            ax.text(index + 0.5, y + 0.52, form(value), color=ink, **style, **CENTRED)
        elif place == best and column >= ROOM_FOR_DOTS:
            ax.plot(index + 0.5, y + 0.5, marker="o", markersize=3.2, color=ink)


# -- similarity ---------------------------------------------------------------------------------


def plot_similarity(profile: Profile, ax: Axes | None = None) -> Axes:
    """Draw the linear CKA between all layers, sources set apart by lines."""
    series, looks = scores.sources(profile), source_looks(profile)
    side = CELL * max(len(profile.layers), 4)
    ax = axes.new_axes(ax, min(side, 500) + 80, min(side, 320) + 80 + axes.LINE * len(series))
    narrow = axes.is_narrow(ax)
    order = [place for own in series.values() for place in own]
    matrix = np.array(profile.similarity)[np.ix_(order, order)]
    size = float(len(order))
    # The extent is in layers, so that separators stand between cells.
    extent = (0, size, size, 0)
    ax.imshow(matrix, cmap=LIKENESS, vmin=0, vmax=1, extent=extent, interpolation="none")
    ax.spines["bottom"].set_visible(False)
    cell = min(CELL, (320.0 if narrow else 500.0) / size)
    if cell >= ROOM_FOR_CKA:
        for (row, column), value in np.ndenumerate(matrix):
            style = {"color": ON_LIGHT if value < 0.6 else ON_DARK, "fontsize": 9.5, **CENTRED}
            ax.text(column + 0.5, row + 0.52, decimals(2)(float(value)), **style)
    ticks: list[tuple[float, str]] = []
    middles: list[float] = []
    start = 0
    for source, own in series.items():
        end = start + len(own)
        if end < size:
            ax.axhline(end, color=PAPER, linewidth=1.6)
            ax.axvline(end, color=PAPER, linewidth=1.6)
        # The source's colour along the left and the lower side.
        edge: dict[str, Any] = {"color": looks[source][0], "linewidth": 5, "clip_on": False}
        edge["solid_capstyle"] = "butt"
        ax.plot([-0.012 * size] * 2, [start, end], label=source_label(source, 40), **edge)
        ax.plot([start, end], [1.012 * size] * 2, **edge)
        layers = [profile.layers[place].layer for place in own]
        shown = ticks_that_fit(layers, cell, apart=start == 0)
        ticks += [(start + index + 0.5, layers[index]) for index in shown]
        middles.append((start + end) / 2)
        start = end
    ax.set_xlim(0, size)
    ax.set_xticks([x for x, _ in ticks], [name for _, name in ticks], fontsize=9)
    ax.tick_params(axis="x", pad=9)
    places = spread(middles, gap=14 / cell)
    ax.set_yticks(places, [] if narrow else [source_label(source) for source in series])
    ax.tick_params(axis="y", pad=12)
    for label, source in zip(ax.get_yticklabels(), series, strict=False):
        label.set_color(looks[source][0])
    ax.set_ylim(size, 0)
    axes.color_bar(ax, LIKENESS, ("0", "1"))
    if narrow:
        axes.legend(ax, bbox_to_anchor=(0, -0.08), loc="upper left", labelcolor=INK)
    return ax


def ticks_that_fit(layers: Sequence[str], pixels: float, *, apart: bool = True) -> list[int]:
    """Choose the layers of a source that get their number: the last one, and others with room.

    Args:
        layers: layers of one source, bottom up.
        pixels: distance from one layer to the next.
        apart: False where the source before this one ends where this one begins, so that its last
            number would run into the first of this one.
    """
    last = len(layers) - 1
    if not apart and len(layers) * pixels < TICK:
        return []
    for step in (1, 2, 5, 10, 20, 50):
        if step * pixels >= TICK:
            break
    wide = 1.5 * TICK if len(layers[last]) > 2 else TICK
    shown = [
        n
        for n in range(0 if apart else 1, last)
        if layers[n].isdigit() and int(layers[n]) % step == 0
        if (last - n) * pixels >= wide and (apart or n * pixels >= TICK)
    ]
    return [*shown, last]
