"""The figure of accuracy by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from layerfusion.report.canvas import (
    GRID,
    MUTED,
    PAPER,
    PIXEL,
    Colors,
    Drawing,
    canvas,
    drawing,
    shortened,
)
from layerfusion.report.compare import accuracy
from layerfusion.report.jobs import Job
from layerfusion.report.line_ends import LineEnd, name_lines
from layerfusion.report.load import Curve, DataGroup
from layerfusion.report.names import percent

LINES = ("-", (0, (5, 1.5)), (0, (2, 1)), (0, (6, 1.5, 1.5, 1.5)))
"""Line style by variant of a model (poolings, operators)."""
NORM_OFFSET = 0.055
"""`norm` has the depth of the last block; it is drawn a little to the right of it."""


def layer_figure(group: DataGroup, colors: Colors) -> Drawing:
    """Test and validation accuracy of every single layer against its depth."""
    return drawing(
        f"{group.key}-layers",
        lambda narrow: _draw_layers(group, colors, narrow=narrow),
        alt=f"{group.label}: accuracy of each single layer against its depth in the model. "
        + "; ".join(
            f"{curve.label}: layer {curve.best.layer.layer} chosen,"
            f" {percent(accuracy(curve.best)[0])} on test"
            for curve in group.curves
        ),
        caption="Accuracy of a small head on one layer alone. Thick line and band: test, with its"
        " 95 % interval over test rows. Thin dotted line: validation. Ring and drop line: the layer"
        " that validation chooses. Open diamond: the last block's output after the model's final"
        " norm. Dashed: the baseline. The rows under the axis number each model's layers.",
    )


def _draw_layers(group: DataGroup, colors: Colors, *, narrow: bool) -> Figure:
    rulers = list({curve.backbone: curve for curve in group.curves}.values())
    width, height = (360, 300) if narrow else (760, 340)
    names = max(len(curve.backbone) for curve in rulers)
    left, right = (58, 12) if narrow else (min(64 + 7 * max(0, names - 7), 160), 150)
    right += 0 if narrow else 7 * min(12, max(0, max(len(c.label) for c in group.curves) - 14))
    top = 18 * (len(group.curves) + 1) + 10 if narrow else 14
    bottom = 42 + 17 * len(rulers)
    figure, axes = canvas(width, height + bottom + (top if narrow else 0), left, right, top, bottom)
    axes.set_xlim(-0.02, 1.02 + NORM_OFFSET)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    axes.set_ylabel("accuracy, %")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    ends: list[LineEnd] = []
    for curve in group.curves:
        color = colors[curve.backbone]
        _draw_curve(axes, curve, color, LINES[curve.variant % len(LINES)])
        last = curve.points[-1]
        ends.append(LineEnd(curve.label, position(last), 100 * accuracy(last)[0], color))
    baseline = 100 * group.jobs[0].record.baseline.test["accuracy"]
    axes.axhline(baseline, color=MUTED, linewidth=1.2, linestyle=(0, (6, 3)), zorder=1.5)
    ends.append(LineEnd("TF-IDF baseline", axes.get_xlim()[1], baseline, MUTED))
    if narrow:
        _draw_legend(figure, ends, group.curves, width, height + bottom + top)
    else:
        name_lines(axes, ends, fontsize=12)
    low = axes.get_ylim()[0]
    for curve in group.curves:
        x, top_end = position(curve.best), 100 * accuracy(curve.best)[0]
        axes.vlines(x, low, top_end, color=colors[curve.backbone], linewidth=0.9, alpha=0.7)
    _draw_rulers(axes, rulers, colors, narrow=narrow)
    return figure


def _draw_curve(axes: Axes, curve: Curve, color: str, style: Any) -> None:
    blocks = [job for job in curve.points if job.layer.layer != "norm"]
    norms = [job for job in curve.points if job.layer.layer == "norm"]
    x = [position(job) for job in curve.points]
    test = np.array([accuracy(job) for job in curve.points]) * 100
    validation = [100 * job.record.validation["accuracy"].mean for job in curve.points]
    axes.fill_between(x, test[:, 1], test[:, 2], color=color, alpha=0.13, linewidth=0)
    axes.plot(x, validation, color=color, linewidth=0.9, linestyle=(0, (1, 1.6)))
    axes.plot(x, test[:, 0], color=color, linewidth=1.8, linestyle=style)
    axes.plot(
        [position(job) for job in blocks],
        [100 * accuracy(job)[0] for job in blocks],
        linestyle="none",
        marker="o",
        markersize=3.6,
        color=color,
    )
    for job in norms:
        axes.plot(
            position(job),
            100 * accuracy(job)[0],
            marker="D",
            markersize=6,
            markerfacecolor=PAPER,
            markeredgecolor=color,
            markeredgewidth=1.5,
            zorder=4,
        )
    best = curve.best
    top = 100 * accuracy(best)[0]
    axes.plot(
        position(best),
        top,
        marker="o",
        markersize=12,
        markerfacecolor="none",
        markeredgecolor=color,
        markeredgewidth=1.8,
        zorder=5,
    )


def _draw_rulers(axes: Axes, rulers: Sequence[Curve], colors: Colors, *, narrow: bool) -> None:
    """Under the axis, one row of layer numbers a model; the chosen one in bold."""
    depth = (
        "relative depth"
        if narrow
        else "relative depth: 0 enters the first block, 1 leaves the last"
    )
    _below(axes, 0.5, 28, depth, MUTED, transform="axes", align="center")
    room = 20 if narrow else 19
    span = axes.get_position().width * axes.get_figure(root=True).get_figwidth() / PIXEL  # type: ignore[union-attr]
    for index, curve in enumerate(rulers):
        y, color = 46 + 17 * index, colors[curve.backbone]
        name = shortened(curve.backbone, 8 if narrow else 20)
        _below(axes, -0.012, y, name, color, transform="axes", align="right")
        placed: list[float] = []
        points = sorted(curve.points, key=lambda job: (job is not curve.best, job.level % 5 != 0))
        for job in points:
            x = position(job)
            word = 1.3 if job.layer.layer == "norm" else 1.0
            if all(abs(x - other) * span / 1.08 >= room * word for other in placed):
                placed.append(x)
                weight = "bold" if job is curve.best else "normal"
                _below(axes, x, y, job.layer.layer, color, align="center", weight=weight)


def _below(
    axes: Axes,
    x: float,
    pixels: float,
    text: str,
    color: str,
    *,
    transform: str = "data",
    align: str,
    weight: str = "normal",
) -> None:
    axes.annotate(
        text,
        (x, 0),
        (0, -pixels),
        xycoords=(f"{transform}" if transform == "data" else "axes fraction", "axes fraction"),
        textcoords="offset points",
        ha=align,
        va="center",
        color=color,
        fontsize=10.5,
        fontweight=weight,
        annotation_clip=False,
    )


def _draw_legend(
    figure: Figure,
    ends: Sequence[LineEnd],
    curves: Sequence[Curve],
    width: float,
    height: float,
) -> None:
    styles = [LINES[curve.variant % len(LINES)] for curve in curves]
    for index, (end, style) in enumerate(zip(ends, [*styles, (0, (6, 3))], strict=True)):
        y = 1 - (10 + 18 * index) / height
        figure.add_artist(
            _line([46 / width, 70 / width], [y, y], color=end.color, style=style, figure=figure)
        )
        figure.text(78 / width, y, end.name, color=end.color, fontsize=12, va="center")


def _line(x: list[float], y: list[float], *, color: str, style: Any, figure: Figure) -> Any:
    return Line2D(x, y, color=color, linestyle=style, linewidth=1.8, transform=figure.transFigure)


def position(job: Job) -> float:
    """Where a layer stands on the depth axis."""
    return job.layer.depth + (NORM_OFFSET if job.layer.layer == "norm" else 0)
