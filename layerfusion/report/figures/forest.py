"""Differences with their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from layerfusion.findings.tests import Finding
from layerfusion.report.figures.axes import row_axes, tell
from layerfusion.report.figures.canvas import Drawing, drawing
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


def plot_forest(rows: Sequence[ForestRow], label: str, ax: Axes | None = None) -> Axes:
    """Draw points with 95 % intervals around zero, the first row on top.

    `label` says what the differences are in, and compared with what.
    """
    ax = row_axes(ax, [row.name for row in rows])
    ax.axvline(0, color=INK, linewidth=1.2)
    ax.set_xlabel(label)
    for y, (row, name) in enumerate(zip(rows, ax.get_yticklabels(), strict=True)):
        if row.color == MUTED:
            name.set_color(MUTED)
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
