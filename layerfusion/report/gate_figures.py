"""Figures of gates by class and by epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from layerfusion.records.gates import ClassGates, GateRecord
from layerfusion.records.job import LayerRecord
from layerfusion.report.canvas import (
    GRID,
    INK,
    SERIES,
    Colors,
    Drawing,
    canvas,
    drawing,
    shortened,
)
from layerfusion.report.layer_curves import LINES
from layerfusion.report.line_ends import LineEnd, name_lines
from layerfusion.report.names import source_name

DEEPEST = 0.55
"""Opacity of the largest gate; more would hide the figures in the cells."""
ROW = 24.0
"""Pixels."""


def heat_map(
    key: str,
    title: str,
    layers: Sequence[LayerRecord],
    sources: Sequence[int],
    classes: Sequence[ClassGates],
    left: str,
) -> Drawing:
    """Mean gates: rows are sources, columns classes.

    Args:
        key: file name.
        title: data set and job.
        layers: the sources shown.
        sources: their places among all sources.
        classes: the classes shown.
        left: what is not shown, as a sentence.
    """
    gates = np.array([[one.gates[k] for one in classes] for k in sources])
    labels = [one.label for one in classes]
    source, label = divmod(int(gates.argmax()), len(labels))
    return drawing(
        key,
        lambda narrow: _draw_heat_map(layers, labels, gates, narrow=narrow),
        alt=f"{title}: mean gate of each source by class; the largest is {gates.max():.3f}, of"
        f" {source_name(layers[source])} for {labels[label]}.",
        caption="Mean gate of each source over the test rows of each class; deeper is larger."
        f"{left}",
    )


def _draw_heat_map(
    layers: Sequence[LayerRecord], labels: Sequence[str], gates: np.ndarray, *, narrow: bool
) -> Figure:
    names = [shortened(source_name(layer), 17 if narrow else 28) for layer in layers]
    left = 18 + 6.8 * max(map(len, names))
    cell = min(92.0, ((360 if narrow else 760) - left - 10) / len(labels))
    most = int(cell / 6.6)
    upright = any(len(label) > most for label in labels)
    bottom = 10 + 6.6 * min(14, max(map(len, labels))) if upright else 26
    size = (left + cell * len(labels) + 10, ROW * len(layers) + 6 + bottom)
    figure, axes = canvas(*size, left, 10, 6, bottom)
    axes.set(xlim=(0, len(labels)), ylim=(len(layers), 0))
    axes.spines["bottom"].set_visible(False)
    axes.set_yticks(np.arange(len(layers)) + 0.5, names)
    shown = [shortened(label, 14 if upright else most) for label in labels]
    axes.set_xticks(np.arange(len(labels)) + 0.5, shown, rotation=90 if upright else 0)
    for (row, column), gate in np.ndenumerate(gates):
        box = Rectangle((column + 0.02, row + 0.04), 0.96, 0.92, linewidth=0)
        box.set(facecolor=SERIES[0], alpha=0.04 + (DEEPEST - 0.04) * gate / gates.max())
        axes.add_patch(box)
        value = f"{gate:.2f}".lstrip("0") if narrow else f"{gate:.3f}"
        axes.text(column + 0.5, row + 0.52, value, ha="center", va="center", color=INK, fontsize=10)
    return figure


def epoch_figure(
    key: str,
    title: str,
    layers: Sequence[LayerRecord],
    sources: Sequence[int],
    record: GateRecord,
    colors: Colors,
) -> Drawing:
    """The mean gate of each source by epoch."""
    epochs = 100 * np.array(record.epochs)[:, list(sources)]
    return drawing(
        key,
        lambda narrow: _draw_epochs(layers, epochs, len(record.epochs[0]), colors, narrow=narrow),
        alt=f"{title}: mean gate of each source over {len(epochs)} epochs of training, in %. "
        + "; ".join(
            f"{source_name(layer)} {line[0]:.1f} to {line[-1]:.1f}"
            for layer, line in zip(layers, epochs.T, strict=True)
        ),
        caption="Mean gate over validation rows and seeds by epoch, as far as all seeds trained;"
        " each seed keeps its best epoch. Dashed: equal weights.",
    )


def _draw_epochs(
    layers: Sequence[LayerRecord], epochs: np.ndarray, total: int, colors: Colors, *, narrow: bool
) -> Figure:
    width, plot, right = (360, 200, 128) if narrow else (760, 240, 200)
    plot = max(plot, 15 * len(layers))
    figure, axes = canvas(width, plot + 58, 50, right, 10, 48)
    x = np.arange(1, len(epochs) + 1)
    seen: dict[str, int] = {}
    for layer, line in zip(layers, epochs.T, strict=True):
        variant = seen[layer.backbone] = seen.get(layer.backbone, -1) + 1
        style = LINES[variant % len(LINES)]
        axes.plot(x, line, color=colors[layer.backbone], linestyle=style, linewidth=1.7)
    axes.axhline(100 / total, color=INK, linewidth=1, linestyle=(0, (6, 3)))
    axes.set_ylim(bottom=0)
    axes.set_xlim(1, len(epochs))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("mean gate, %")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    most = 18 if narrow else 28
    ends = [
        LineEnd(shortened(source_name(layer), most), len(epochs), last, colors[layer.backbone])
        for layer, last in zip(layers, epochs[-1], strict=True)
    ]
    name_lines(axes, ends)
    return figure
