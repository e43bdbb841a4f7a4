"""Block on gates: their means, by class and by epoch, and the rows at both ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from layerfusion.findings.compare import best_chosen
from layerfusion.findings.gates import GateDetails, runs_of
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import job_names, sentence_case, source_name
from layerfusion.findings.shown import comparisons
from layerfusion.findings.tests import Findings
from layerfusion.records.format import capital, plural
from layerfusion.records.gates import GateRecord
from layerfusion.records.job import LayerRecord
from layerfusion.report.block import Block, Folded, Part
from layerfusion.report.blocks.errors import rows_note
from layerfusion.report.figures import axes
from layerfusion.report.figures.canvas import drawing
from layerfusion.report.figures.colors import INK, MUTED, SERIES, model_colors
from layerfusion.report.figures.layers import DASHED, LINES
from layerfusion.report.figures.line_ends import LineEnd, name_curves
from layerfusion.report.figures.profile_maps import TICK, ticks_that_fit
from layerfusion.report.format import COUNT, decimals
from layerfusion.report.sentences import shortened
from layerfusion.report.table import Column, Table

MOST_OPEN = 6
"""With more gated fusions than these, those without details are folded."""
MEANING = (
    "A gate is the weight that the fusion gives a layer, averaged over test texts and seeds. It is"
    " a weight, not a proof of importance: layers that say the same share it in any proportion."
    " In a stack with anchored weights some may be below 0, where a layer corrects the others."
)
GATE = decimals(3)
DEEPEST = 0.55
"""Opacity of the largest gate. More would hide the numbers in the cells."""
LETTER = 6.6
"""Width of a letter of a pooling's name, in pixels."""
ROW = 24.0
"""Height of a row of a heat map, in pixels."""


def gate_block(group: DataGroup, findings: Findings) -> Block | None:
    """Show the mean gates of every fusion that has some, and details for one of each operator."""
    shown = [row.job for row in comparisons(group, findings) if row.job and row.job.sources > 1]
    gated = [job for job in shown if job.record.layers[0].mean_gate is not None]
    if not gated:
        return None
    names = job_names(group)
    recorded = [job for job in gated if job.record.gates is not None]
    by_operator = grouped(recorded, lambda job: job.record.fusion_label)
    detailed = {best_chosen(jobs) for jobs in by_operator.values()}
    parts: list[Part | None] = [MEANING]
    for number, job in enumerate(gated, start=1):
        name, key = names[job], f"{group.key}-gates-{number}"
        why = "".join(f" {capital(note)}." for note in job.record.fusion_notes[:1])
        largest = sorted(job.record.layers, key=lambda layer: -(layer.mean_gate or 0))[:3]
        figure = drawing(
            key,
            lambda ax, job=job: plot_mean_gates(job, model_colors(group.models), ax),
            alt=f"{group.label}, {name}: mean gate of each of {job.sources} layers; the largest"
            " are " + ", ".join(f"{x.backbone} {x.layer} {x.mean_gate:.3f}" for x in largest),
            caption=f"{sentence_case(name, job)}.{why} Dashed: 1/{job.sources}, what equal"
            " weights would give.",
        )
        table, record = mean_table(name, job), job.record.gates
        details = _details(group, job, record, name, key) if record and job in detailed else None
        if details or len(gated) <= MOST_OPEN:
            parts += [figure, Folded((table,)), details]
        else:
            parts.append(Folded((figure, table), table.title))
    return Block("What the fusion leans on", parts, folded=True)


def mean_table(name: str, job: FinishedJob) -> Table:
    """List the mean gate of every layer of a gated fusion."""
    return Table(
        f"Mean gates: {name}",
        [layer for layer in job.record.layers if layer.mean_gate is not None],
        Column("Source", source_name),
        Column("Mean gate", lambda layer: layer.mean_gate, decimals(4)),
        Column("Times equal", lambda layer: layer.mean_gate * job.sources, decimals(2)),
        note="Times equal: how many times the gate that equal weights would give.",
    )


def _details(group: DataGroup, job: FinishedJob, record: GateRecord, name: str, key: str) -> Folded:
    """Show the gates by class, by epoch, and the rows at both ends."""
    data, found, title = job.record.dataset, GateDetails(job, record), f"{group.label}, {name}"
    gates, names = found.by_class, [source_name(layer) for layer in found.layers]
    labels = [x.label for x in found.classes]
    of, all_rows = ("with", "All rows") if data.multilabel else ("of", "All classes")
    shown = [
        f"the {len(few)} of {len(every)} {what}"
        for few, every, what in (
            (names, job.record.layers, "sources with the largest mean gates"),
            (labels, record.classes, f"{data.kinds} whose gates differ most from the mean"),
        )
        if len(few) < len(every)
    ]
    left = f" Shown: {' and '.join(shown)}." if shown else ""
    top, column = divmod(int(gates.argmax()), len(labels))
    parts: list[Part | None] = [
        drawing(
            f"{key}-classes",
            lambda ax: plot_class_gates(names, labels, gates, ax),
            alt=f"{title}: mean gate of each source by {data.kind}; the largest is"
            f" {gates.max():.3f}, of {names[top]} for {labels[column]}.",
            caption=f"Mean gate of each source over the test rows {of} each {data.kind};"
            f" the stronger the colour, the larger.{left}",
        )
    ]
    if len(record.epochs) > 1:
        epochs, colors = 100 * found.by_epoch, model_colors(group.models)
        each = zip(names, epochs.T, strict=True)
        ends = "; ".join(f"{source} {line[0]:.1f} to {line[-1]:.1f}" for source, line in each)
        parts.append(
            drawing(
                f"{key}-epochs",
                lambda ax: plot_epoch_gates(found, epochs, colors, ax),
                alt=f"{title}: mean gate of each source over {len(epochs)} epochs, in %. {ends}",
                caption="Mean gate over validation rows and seeds by epoch, up to the last epoch"
                " that all seeds trained; each seed keeps its best epoch. Dashed: equal weights.",
            )
        )
    heading = f"Gates by {data.kind}" + ", by epoch" * (len(parts) > 1)
    heading += " and the rows at both ends" * bool(found.texts)
    by_class = Table(
        f"Mean gates by {data.kind}: {name}",
        found.sources,
        Column("Source", lambda k: source_name(job.record.layers[k])),
        Column(all_rows, lambda k: job.record.layers[k].mean_gate, GATE),
        *(
            Column(f"{x.label} ({plural(x.rows, 'row')})", lambda k, x=x: x.gates[k], GATE)
            for x in found.classes
        ),
        note=f"Mean over the test rows {of} a {data.kind} and over seeds.{left}",
    )
    fewer = job.sources - len(names)
    note = f" {COUNT(fewer)} sources with smaller gates are left out." if fewer else ""
    at_ends = Table(
        f"Texts with the highest and the lowest gates: {name}",
        found.texts,
        Column("Source", lambda row: source_name(row[0])),
        Column("Gate is", lambda row: row[1]),
        Column("Gate", lambda row: row[2].gate, GATE),
        Column("Label", lambda row: row[2].label),
        Column("Row", lambda row: row[2].row, COUNT),
        *([Column("Text", lambda row: row[2].text)] if group.test_texts else []),
        note=rows_note(
            "; gates are means over seeds. The label is the true one. Sources with the same gate"
            f" for every text are not listed.{note}",
            shown=bool(group.test_texts),
        ),
    )
    return Folded(tuple(filter(None, (*parts, by_class, at_ends))), f"{heading}: {name}")


def plot_mean_gates(job: FinishedJob, colors: Mapping[str, str], ax: Axes | None = None) -> Axes:
    """Draw the mean gate of each layer of a fusion as a bar, and the gate of equal weights.

    The layers of a model stand together, those of each pooling from the bottom up.
    """
    runs = runs_of(job.record.layers)
    layers = [layer for run in runs for layer in run]
    models = list(dict.fromkeys(layer.backbone for layer in layers))
    ax = axes.new_axes(ax, 210 + axes.LINE, grid="y")
    x = np.arange(len(layers)) + np.repeat(np.arange(len(runs)), [*map(len, runs)])
    # Few layers do not need the whole width: bars have at most 56 pixels.
    pixels = axes.width_of(ax) - 70
    span = max(float(x[-1]) + 1.6, pixels / 56)
    ax.set_xlim(-0.8, span - 0.8)
    heights = [layer.mean_gate or 0.0 for layer in layers]
    for model in models:
        own = [n for n, layer in enumerate(layers) if layer.backbone == model]
        with axes.one_series(ax, model):
            bars = [heights[n] for n in own]
            ax.bar(x[own], bars, width=0.78, color=colors[model], label=model)
    uniform = 1 / len(layers)
    ax.axhline(uniform, color=INK, linewidth=1, linestyle=DASHED)
    ax.set_ylim(1.12 * min(0.0, *heights), 1.12 * max(*heights, uniform))
    ax.set(xlabel="layer", ylabel="mean gate")
    ticks = _numbered(runs, x * pixels / span, pixels / span, job.record.lexical)
    ax.set_xticks([x[n] for n in ticks], [layers[n].layer for n in ticks])
    if len({layer.pooling for layer in layers if layer.backbone not in job.record.lexical}) > 1:
        _name_poolings(ax, runs, x, LETTER * span / pixels, job.record.lexical)
    axes.legend(ax, columns=4, handlelength=0.8)
    return ax


def _name_poolings(
    ax: Axes, runs: Sequence[Sequence[LayerRecord]], x: np.ndarray, wide: float, lexical: list[str]
) -> None:
    """Write the pooling below each run of bars that is wide enough for it.

    A letter is as wide as `wide` steps from one bar to the next.
    """
    look = {"xycoords": ("data", "axes fraction"), "color": MUTED, "fontsize": 10, "ha": "center"}
    for run, own in zip(runs, np.split(x, np.cumsum([*map(len, runs)])[:-1]), strict=True):
        pooling, ends = run[0].pooling, own[[0, -1]]
        if run[0].backbone not in lexical and np.ptp(ends) + 2 >= wide * len(pooling):
            axes.write(ax, pooling, (ends.mean(), 0), (0, -25), **look)
            ax.xaxis.labelpad = 18


def _numbered(
    runs: Sequence[Sequence[LayerRecord]], at: np.ndarray, pixels: float, lexical: Sequence[str]
) -> list[int]:
    """Choose the bars that have the number of their layer, the last ones of runs before others.

    A lexical source has one layer, whose number says nothing.
    """
    lasts, others, first = [], [], 0
    for run in runs:
        *some, last = ticks_that_fit([layer.layer for layer in run], pixels)
        if run[0].backbone not in lexical:
            lasts.append(first + last)
            others += [first + n for n in some]
        first += len(run)
    kept: list[int] = []
    for n in (*lasts, *others):
        if all(abs(at[n] - at[other]) >= 1.5 * TICK for other in kept):
            kept.append(n)
    return sorted(kept)


def plot_class_gates(
    sources: Sequence[str], labels: Sequence[str], gates: np.ndarray, ax: Axes
) -> None:
    """Draw the mean gate of each source over the test rows of each class as a heat map."""
    axes.new_axes(ax, ROW * len(sources) + 20 + 7 * min(14, max(map(len, labels))))
    narrow = axes.is_narrow(ax)
    names = [shortened(name, 17 if narrow else 28) for name in sources]
    room = 28 + 6.8 * max(map(len, names))
    cell = axes.matrix_axes(ax, names, len(labels), names=room, widest=92)
    most = int(cell / 6.6)
    upright = any(len(label) > most for label in labels)
    shown = [shortened(label, 14 if upright else most) for label in labels]
    ax.set_xticks(np.arange(len(labels)) + 0.5, shown, rotation=90 if upright else 0)
    for place, gate in np.ndenumerate(gates):
        value = f"{gate:.2f}".lstrip("0") if narrow else f"{gate:.3f}"
        depth = 0.04 + (DEEPEST - 0.04) * max(0.0, gate / gates.max())
        axes.draw_cell(ax, place, SERIES[0], depth, value)


def plot_epoch_gates(
    found: GateDetails, epochs: np.ndarray, colors: Mapping[str, str], ax: Axes
) -> None:
    """Draw the mean gates of some of the sources by epoch of the training, in per cent."""
    number = len(found.layers)
    axes.new_axes(ax, max(240, 16 * number) + 58, 270 + axes.LINE * number, grid="y")
    seen: Counter[str] = Counter()
    ends = []
    for layer, line in zip(found.layers, epochs.T, strict=True):
        style, color = LINES[seen[layer.backbone] % len(LINES)], colors[layer.backbone]
        seen[layer.backbone] += 1
        name, x = shortened(source_name(layer), 28), range(1, len(epochs) + 1)
        ax.plot(x, line, color=color, linestyle=style, linewidth=1.7, label=name)
        ends.append(LineEnd(name, len(epochs), line[-1], color))
    ax.axhline(100 / found.job.sources, color=INK, linewidth=1, linestyle=DASHED)
    ax.set_ylim(bottom=0)
    ax.set_xlim(1, len(epochs))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="epoch", ylabel="mean gate, %")
    name_curves(ax, ends)
