"""Differences with their intervals, one below the other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from layerfusion.findings.tests import Finding
from layerfusion.report.figures.canvas import Drawing, drawing, is_narrow, new_axes, tell
from layerfusion.report.figures.colors import INK, MUTED, PAPER
from layerfusion.report.format import POINTS
from layerfusion.report.table import cell_text


class ForestRow(NamedTuple):
    """One row of a forest: a comparison, its name and its colour."""

    name: str
    finding: Finding
    color: str = INK


def forest_drawing(
    key: str, rows: Sequence[ForestRow], label: str, *, alt: str, caption: str
) -> Drawing | None:
    """Draw a forest for the page, and say how to read its points; None where it has no row."""
    if not rows:
        return None
    words = "; ".join(f"{row.name}: {POINTS(row.finding.difference.mean)}" for row in rows)
    return drawing(
        key,
        lambda ax: plot_forest(rows, label, ax),
        alt=f"{alt} {words}",
        caption=f"{caption} Filled points: better or worse. Half filled: probably, but not after"
        " correction for the number of comparisons. Open: cannot be told.",
    )


def _in_lines(rows: Sequence[ForestRow], width: int) -> list[str]:
    """Break the names of some rows into two lines at most."""
    return [textwrap.fill(row.name, width, max_lines=2, placeholder="…") for row in rows]


def plot_forest(rows: Sequence[ForestRow], label: str, ax: Axes | None = None) -> Axes:
    """Draw points with 95 % intervals around zero, the first row on top.

    `label` says what the differences are in, and compared with what.
    """
    wide, narrow = (_in_lines(rows, width) for width in (48, 22))
    pitch = 34.0 if any("\n" in name for name in wide) else 27.0
    ax = new_axes(ax, pitch * len(rows) + 62, 38.0 * len(rows) + 62, grid="x")
    ax.set_ylim(len(rows) - 0.4, -0.6)
    names = narrow if is_narrow(ax) else wide
    ax.set_yticks(range(len(rows)), names, fontsize=11)
    ax.axvline(0, color=INK, linewidth=1.2)
    ax.set_xlabel(label)
    for y, (row, name) in enumerate(zip(rows, ax.get_yticklabels(), strict=True)):
        name.set_color(MUTED if row.color == MUTED else INK)
        difference = row.finding.difference
        ends = [100 * difference.low, 100 * difference.high]
        ax.plot(ends, [y, y], color=row.color, linewidth=2.4, solid_capstyle="round")
        sure, lean = row.finding.verdict != "open", row.finding.lean != "open"
        style: dict[str, Any] = {"markersize": 8, "markeredgewidth": 1.8}
        style |= {"markerfacecolor": row.color if lean else PAPER, "markerfacecoloralt": PAPER}
        style["fillstyle"] = "left" if lean and not sure else "full"
        ax.plot(100 * difference.mean, y, marker="o", markeredgecolor=row.color, **style)
        tell(ax, 100 * difference.mean, y, f"{row.name}: {cell_text(row.finding, POINTS)}")
    return ax
