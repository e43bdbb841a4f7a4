"""The figures of fusions: what they gain, and what they lean on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from layerfusion.records.job import LayerRecord
from layerfusion.report.canvas import (
    GRID,
    INK,
    MUTED,
    SERIES,
    Colors,
    Drawing,
    canvas,
    drawing,
)
from layerfusion.report.forest import FILLED, Branch, draw_forest
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import points, sentence_case, single_name
from layerfusion.report.tables import Comparison


def model_colors(groups: Sequence[DataGroup]) -> dict[str, str]:
    """One colour a model, the same in every figure."""
    names = sorted({n for g in groups for job in g.jobs for n in job.record.backbone_names})
    return {name: SERIES[index % len(SERIES)] for index, name in enumerate(names)}


# -- fusion -------------------------------------------------------------------------------------


def fusion_figure(group: DataGroup, rows: Sequence[Comparison], colors: Colors) -> Drawing:
    """The difference of every system to the chosen single layer."""
    shown = [row for row in rows if row.finding is not None]
    reference = next(row.job for row in rows if row.job is not None and row.is_reference)
    branches = [
        Branch(
            row.name,
            row.finding,
            MUTED if row.job is None else _job_color(row.job, colors),
            muted=row.job is None,
        )
        for row in shown
        if row.finding is not None
    ]
    return drawing(
        f"{group.key}-fusion",
        lambda narrow: draw_forest(
            branches, "points against the chosen single layer", narrow=narrow
        ),
        alt=f"{group.label}: accuracy against the chosen single layer, in points. "
        + "; ".join(f"{r.name}: {points(r.finding.difference.mean)}" for r in shown if r.finding),
        caption="Test accuracy minus that of the chosen single layer"
        f" ({single_name(group, reference)}), in points, with 95 % intervals over the same"
        f" test rows. {FILLED} Grey: the baseline.",
    )


def _job_color(job: Job, colors: Colors) -> str:
    """A model's colour where only that model takes part, ink where several do."""
    names = job.record.backbone_names
    return colors[names[0]] if len(names) == 1 else INK


# -- gates --------------------------------------------------------------------------------------


def gate_figure(group: DataGroup, job: Job, name: str, number: int, colors: Colors) -> Drawing:
    """The mean gate of every layer of one fusion."""
    return drawing(
        f"{group.key}-gates-{number}",
        lambda narrow: _draw_gates(job, colors, narrow=narrow),
        alt=f"{group.label}, {name}: mean gate of each of {job.sources} layers; the largest are "
        + ", ".join(
            f"{layer.backbone} {layer.layer} {layer.mean_gate:.3f}"
            for layer in sorted(job.record.layers, key=lambda x: -(x.mean_gate or 0))[:3]
        ),
        caption=f"{sentence_case(name, job)}. Dashed: 1/{job.sources}, what equal weights would"
        " give.",
    )


def _draw_gates(job: Job, colors: Colors, *, narrow: bool) -> Figure:
    layers = job.record.layers
    gap = 1.0
    starts = np.cumsum([layers[i].backbone != layers[i - 1].backbone for i in range(len(layers))])
    starts = starts - starts[0] if len(layers) else starts
    x = np.arange(len(layers)) + gap * starts
    width = 360 if narrow else 760
    span = float(x[-1]) + 1.6
    # Few layers do not need the whole width: bars keep a calm width of at most 56 pixels.
    inner = min(width - (56 if narrow else 78), 56 * span)
    left = 44 if narrow else 64
    figure, axes = canvas(width, 210, left, width - left - inner, 26, 42)
    axes.set_xlim(-0.8, span - 0.8)
    heights = [layer.mean_gate or 0.0 for layer in layers]
    axes.bar(x, heights, width=0.78, color=[colors[layer.backbone] for layer in layers])
    uniform = 1 / len(layers)
    axes.axhline(uniform, color=INK, linewidth=1, linestyle=(0, (6, 3)))
    axes.set_ylim(0, 1.12 * max(*heights, uniform))
    axes.set_ylabel("mean gate")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("layer")
    ticks = _ticks(layers, x, inner / span)
    axes.set_xticks([x[i] for i in ticks], [_tick(layers, i) for i in ticks])
    for backbone in dict.fromkeys(layer.backbone for layer in layers):
        first = next(i for i, layer in enumerate(layers) if layer.backbone == backbone)
        axes.annotate(
            backbone,
            (x[first] - 0.39, 1),
            (0, 12),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            va="center",
            color=colors[backbone],
            fontsize=12,
        )
    return figure


def _ticks(layers: Sequence[LayerRecord], x: np.ndarray, pixels: float) -> list[int]:
    """Which bars get their layer's number: as many as fit, the ends of a model first."""
    count = len(layers)
    ends = [
        i
        for i in range(count)
        if i in (0, count - 1)
        or layers[i].backbone != layers[i - 1].backbone
        or layers[i].backbone != layers[i + 1].backbone
    ]
    rest = sorted(
        set(range(count)) - set(ends),
        key=lambda i: (not layers[i].layer.isdigit() or int(layers[i].layer) % 5 != 0, i),
    )
    room = [20 if layer.layer == "norm" else 9 for layer in layers]
    shown: list[int] = []
    for i in [*ends, *rest]:
        if all(abs(x[i] - x[j]) * pixels >= room[i] + room[j] for j in shown):
            shown.append(i)
    return sorted(shown)


def _tick(layers: Sequence[LayerRecord], index: int) -> str:
    layer = layers[index]
    poolings = {other.pooling for other in layers}
    few = len(layers) <= 8 and len(poolings) > 1
    return f"{layer.layer}\n{layer.pooling}" if few else layer.layer
