"""Axes in the style of the report, and what is written and marked on them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle

from layerfusion.report.figures.colors import GRID, INK, MUTED

PIXEL = 1 / 72
"""Inches; figures are laid out in the pixels that they take on the page."""
WIDE, NARROW = 760.0, 360.0
"""Widths of a figure on a desk and on a phone, in pixels."""
LINE = 18.0
"""Height of a line of a legend, in pixels."""
SERIES_ID = "series:"
"""Begins the id of what belongs to a series: see `one_series`."""
Point = tuple[float, float]


class Sheet(Figure):
    """A figure of the report, whose height the plot on it sets.

    Attributes:
        tips: what the page says of a point when it is pointed at: axes, place in data, words.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tips: list[tuple[Axes, Point, str]] = []


def new_axes(
    ax: Axes | None, wide: float, narrow: float | None = None, grid: Literal["x", "y", ""] = ""
) -> Axes:
    """Give axes the style of the report.

    Args:
        ax: axes to draw on; None for those of a new figure, which a notebook shows by itself.
        wide: height of the figure on wide screens, in pixels.
        narrow: height of the figure on narrow screens; None if it is the same.
        grid: the axis whose ticks have lines across the plot.
    """
    if ax is None:
        from matplotlib import pyplot

        size = (WIDE * PIXEL, wide * PIXEL)
        ax = pyplot.subplots(figsize=size, layout="constrained")[1]
    figure = figure_of(ax)
    if isinstance(figure, Sheet):
        figure.set_figheight((narrow if narrow and is_narrow(ax) else wide) * PIXEL)
    ax.set_facecolor("none")
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(MUTED)
    ax.tick_params(length=0, labelsize=11, colors=MUTED, pad=6)
    ax.xaxis.label.set(color=MUTED, fontsize=11)
    ax.yaxis.label.set(color=MUTED, fontsize=11)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=GRID, linewidth=0.8)
    return ax


def figure_of(ax: Axes) -> Figure:
    """Find the figure that axes lie on."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("ax: these axes belong to no figure")
    return figure


def is_narrow(ax: Axes) -> bool:
    """Tell whether the axes are those of a figure for narrow screens."""
    return width_of(ax) < (WIDE + NARROW) / 2


def width_of(ax: Axes) -> float:
    """Width of the figure that axes lie on, in pixels."""
    return figure_of(ax).get_figwidth() / PIXEL


def matrix_axes(
    ax: Axes, rows: Sequence[str], columns: int, *, names: float, widest: float
) -> float:
    """Prepare axes for cells of the same size, the first row on top.

    Few columns do not need the whole width.

    Args:
        ax: the axes.
        rows: names of the rows.
        columns: number of columns.
        names: room for the names of the rows, in pixels.
        widest: widest that a column may be, in pixels.

    Returns:
        Width of a column in pixels. Cells have a width and a height of 1 in data.
    """
    room = width_of(ax) - names
    width = min(widest, room / columns)
    ax.set(xlim=(0, room / width), ylim=(len(rows), 0))
    ax.spines["bottom"].set_visible(False)
    ax.set_yticks([place + 0.5 for place in range(len(rows))], rows)
    return width


def row_axes(ax: Axes | None, names: Sequence[str]) -> Axes:
    """Prepare axes with a row for each name, the first on top, and lines down across the rows.

    A long name is broken into two lines.
    """
    wide, narrow = ([_two_lines(name, width) for name in names] for width in (48, 22))
    pitch = 34.0 if any("\n" in name for name in wide) else 27.0
    ax = new_axes(ax, pitch * len(names) + 62, 38.0 * len(names) + 62, grid="x")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(range(len(names)), narrow if is_narrow(ax) else wide, fontsize=11, color=INK)
    return ax


def _two_lines(name: str, width: int) -> str:
    """Break a name; a longer one loses its middle, as names mostly differ at their ends."""
    lines = textwrap.wrap(name, width)
    if len(lines) > 2:
        end = textwrap.wrap(name[::-1], width - 1)[0][::-1]
        return f"{lines[0]}\n…{end}"
    return "\n".join(lines)


def draw_cell(ax: Axes, place: tuple[int, int], color: str, alpha: float, *lines: str) -> None:
    """Draw a cell of a matrix, at a row and a column, with lines of text in its middle."""
    row, column = place
    box = Rectangle((column + 0.02, row + 0.03), 0.96, 0.94, linewidth=0)
    box.set(facecolor=color, alpha=alpha)
    ax.add_patch(box)
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": INK}
    heights, sizes = ((0.34, 0.7), (12.5, 10.5)) if len(lines) > 1 else ((0.52,), (10,))
    for text, height, size in zip(lines, heights, sizes, strict=True):
        ax.text(column + 0.5, row + height, text, fontsize=size, **style)


def write(ax: Axes, text: str, place: Point, offset: Point = (0, 0), **look: Any) -> None:
    """Write a text some pixels from a place in data, or in other coordinates (`xycoords`)."""
    plain = {"textcoords": "offset points", "va": "center", "annotation_clip": False}
    ax.annotate(text, place, offset, **{**plain, **look})


def legend(ax: Axes, *, columns: int = 1, **options: Any) -> Legend:
    """Name the labelled lines and marks above the axes, each in its own colour.

    Narrow screens have room for two columns.
    """
    columns = min(columns, 2) if is_narrow(ax) else columns
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns}
    look = {"labelcolor": "linecolor", "fontsize": 11, "handlelength": 1.8, "labelspacing": 0.35}
    box = ax.legend(**{**place, **look, "frameon": False, "borderaxespad": 0.2, **options})
    for handle, text in zip(box.legend_handles, box.get_texts(), strict=True):
        for part in (handle, text):
            if part is not None:
                part.set_gid(SERIES_ID + text.get_text())
    return box


def color_bar(ax: Axes, colors: Colormap, ends: tuple[str, str]) -> None:
    """Say what colours mean: a bar above the axes between two words."""
    place: dict[str, Any] = {"location": "top", "fraction": 0.03, "pad": 0.02, "anchor": (0, 0)}
    bar = figure_of(ax).colorbar(ScalarMappable(cmap=colors), ax=ax, shrink=0.25, **place)
    bar.ax.spines["outline"].set_visible(False)
    bar.ax.set_xticks([0, 1], ends, fontsize=10, color=MUTED)
    bar.ax.tick_params(length=0, pad=2)


def tell(ax: Axes, x: float, y: float, words: str) -> None:
    """Let the page say something of a point, in data, when it is pointed at."""
    figure = figure_of(ax)
    if isinstance(figure, Sheet) and math.isfinite(x) and math.isfinite(y):
        figure.tips.append((ax, (x, y), words))


@contextmanager
def one_series(ax: Axes, name: str) -> Iterator[None]:
    """Let a click on a name mute, on the page, all that is drawn within under that name."""
    before = set(ax.get_children())
    yield
    for artist in ax.get_children():
        if artist not in before and artist.get_gid() is None:
            artist.set_gid(SERIES_ID + name)
