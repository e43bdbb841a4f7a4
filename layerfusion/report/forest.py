"""Differences with their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from layerfusion.report.canvas import GRID, INK, MUTED, PAPER, canvas, shortened
from layerfusion.report.findings import Finding


@dataclass(frozen=True)
class Branch:
    """One row of a forest: a comparison, its name and its colour."""

    name: str
    finding: Finding
    color: str = INK
    muted: bool = False


FILLED = (
    "Filled: the interval and the exact test, adjusted for the number of comparisons, show a"
    " difference. Open: these rows can show none."
)
"""How to read the points."""


def draw_forest(rows: Sequence[Branch], axis: str, *, narrow: bool) -> Figure:
    """Points with 95 % intervals around zero.

    Args:
        rows: from the top.
        axis: what the differences are in and against what.
        narrow: names stand above their lines, not in a column of their own.
    """
    width, step, left = (360, 38, 14) if narrow else (760, 27, 310)
    figure, axes = canvas(width, step * len(rows) + 62, left, 14, 8, 46)
    axes.set_ylim(len(rows) - 0.4, -0.8 if narrow else -0.6)
    axes.set_yticks([])
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.axvline(0, color=INK, linewidth=1.2)
    axes.set_xlabel(axis)
    for y, row in enumerate(rows):
        difference = row.finding.difference
        low, high = 100 * difference.low, 100 * difference.high
        axes.plot([low, high], [y, y], color=row.color, linewidth=2.4, solid_capstyle="round")
        axes.plot(
            100 * difference.mean,
            y,
            marker="o",
            markersize=8,
            markerfacecolor=PAPER if row.finding.verdict == "open" else row.color,
            markeredgecolor=row.color,
            markeredgewidth=1.8,
        )
        axes.annotate(
            shortened(row.name, 50),
            (0, y),
            (4, 13) if narrow else (-12, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="left" if narrow else "right",
            va="center",
            color=MUTED if row.muted else INK,
            fontsize=11.5,
            annotation_clip=False,
            # There a name stands across the grid and the line at zero.
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.5} if narrow else None,
        )
    return figure
