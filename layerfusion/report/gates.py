"""What a fusion leans on: gates by class, by epoch, and the texts at both ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerfusion.records.format import plural
from layerfusion.records.gates import ClassGates, GateRecord
from layerfusion.records.job import LayerRecord
from layerfusion.report.canvas import Colors, Drawing
from layerfusion.report.compare import best_on_validation
from layerfusion.report.figures import gate_figure
from layerfusion.report.gate_figures import epoch_figure, heat_map
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import count, source_name
from layerfusion.report.tables import Column, Row, Table, gate_table

MOST_CLASSES, MOST_SOURCES = 8, 12
"""Classes and sources that are shown; the record has all."""


@dataclass(frozen=True)
class GateView:
    """The gates of one fusion; the details are those of few jobs."""

    figure: Drawing
    table: Table
    details: str
    """Heading of what follows; empty where nothing does."""
    more: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()


def gate_views(
    group: DataGroup, gated: Sequence[Job], names: dict[Job, str], colors: Colors
) -> tuple[GateView, ...]:
    """The mean gates of every fusion that has some; details for one job of each operator.

    Args:
        group: the data.
        gated: its jobs with gates, in the order in which they are shown.
        names: what the jobs are called.
        colors: of the models.
    """
    by_operator: dict[str, list[Job]] = {}
    for job in gated:
        if job.record.gates is not None:
            by_operator.setdefault(job.record.fusion, []).append(job)
    detailed = {best_on_validation(jobs) for jobs in by_operator.values()}
    views = []
    for number, job in enumerate(gated, start=1):
        plain = gate_figure(group, job, names[job], number, colors), gate_table(names[job], job)
        record = job.record.gates
        if record is None or job not in detailed:
            views.append(GateView(*plain, ""))
            continue
        views.append(_detailed(group, job, record, plain, names[job], number, colors))
    return tuple(views)


def _detailed(
    group: DataGroup,
    job: Job,
    record: GateRecord,
    plain: tuple[Drawing, Table],
    name: str,
    number: int,
    colors: Colors,
) -> GateView:
    sources = leading_sources(job.record.layers)
    classes = telling_classes(record.classes, job.record.layers)
    layers = [job.record.layers[k] for k in sources]
    left = _left_out(len(job.record.layers), len(sources), len(record.classes), len(classes))
    key, title = f"{group.key}-gates-{number}", f"{group.label}, {name}"
    figures = [heat_map(f"{key}-classes", title, layers, sources, classes, left)]
    if len(record.epochs) > 1:
        figures.append(epoch_figure(f"{key}-epochs", title, layers, sources, record, colors))
    tables = [_class_table(name, layers, sources, classes, left)]
    texts = _text_table(name, layers, sources, record)
    tables += [texts] if texts.rows else []
    ends = " and the texts at both ends" if texts.rows else ""
    epochs = ", by epoch" if len(record.epochs) > 1 else ""
    return GateView(*plain, f"Gates by class{epochs}{ends}: {name}", tuple(figures), tuple(tables))


# -- what is shown ------------------------------------------------------------------------------


def leading_sources(layers: Sequence[LayerRecord]) -> list[int]:
    """Places of the sources with the largest mean gates, in the order of the selection."""
    order = sorted(range(len(layers)), key=lambda k: (-(layers[k].mean_gate or 0.0), k))
    return sorted(order[:MOST_SOURCES])


def telling_classes(
    classes: Sequence[ClassGates], layers: Sequence[LayerRecord]
) -> list[ClassGates]:
    """The classes whose gates differ most from the mean, in the order of the labels.

    A difference counts by the root of the number of its rows: of few rows it may be chance.
    """
    mean = np.array([layer.mean_gate or 0.0 for layer in layers])

    def tells(place: int) -> tuple[float, int]:
        one = classes[place]
        return -float(np.abs(np.array(one.gates) - mean).max() * np.sqrt(one.rows)), place

    order = sorted(range(len(classes)), key=tells)
    return [classes[place] for place in sorted(order[:MOST_CLASSES])]


def _left_out(sources: int, shown: int, classes: int, told: int) -> str:
    parts = []
    if shown < sources:
        parts.append(f"the {shown} of {sources} sources with the largest mean gates")
    if told < classes:
        parts.append(
            f"the {told} of {classes} classes whose gates differ most from the mean (times the root"
            " of their rows)"
        )
    return f" Shown: {' and '.join(parts)}." if parts else ""


# -- tables -------------------------------------------------------------------------------------


def _class_table(
    name: str,
    layers: Sequence[LayerRecord],
    sources: Sequence[int],
    classes: Sequence[ClassGates],
    left: str,
) -> Table:
    rows = [
        Row(
            (
                source_name(layer),
                f"{layer.mean_gate or 0.0:.3f}",
                *(f"{one.gates[k]:.3f}" for one in classes),
            )
        )
        for layer, k in zip(layers, sources, strict=True)
    ]
    return Table(
        f"Mean gates by class: {name}",
        (
            Column("Source", numeric=False),
            Column("All classes"),
            *(Column(f"{one.label} ({plural(one.rows, 'row')})") for one in classes),
        ),
        tuple(rows),
        f"Mean over the test rows of a class and over seeds.{left}",
    )


def _text_table(
    name: str, layers: Sequence[LayerRecord], sources: Sequence[int], record: GateRecord
) -> Table:
    rows = []
    for layer, k in zip(layers, sources, strict=True):
        for end, texts in (("highest", record.highest[k]), ("lowest", record.lowest[k])):
            rows += [
                Row((source_name(layer), end, f"{text.gate:.3f}", text.label, text.text))
                for text in texts
            ]
    left = len(record.highest) - len(sources)
    note = f" {count(left)} sources with smaller gates are left out." if left else ""
    return Table(
        f"Texts with the highest and the lowest gates: {name}",
        (
            Column("Source", numeric=False),
            Column("Gate is", numeric=False),
            Column("Gate"),
            Column("Label", numeric=False),
            Column("Text", numeric=False),
        ),
        tuple(rows),
        "Test texts, long ones cut; gates are means over seeds. The label is the true one. Sources"
        f" that have the same gate for every text are not listed.{note}",
    )
