"""Block on single layers: the accuracy of every layer that was run alone."""

from __future__ import annotations

from layerfusion.findings.compare import accuracy
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.tests import Findings
from layerfusion.report.block import Block, Folded
from layerfusion.report.figures.canvas import drawing
from layerfusion.report.figures.layers import plot_job_layers
from layerfusion.report.format import NAME, PERCENT, decimals, percent
from layerfusion.report.metrics import metric_columns
from layerfusion.report.table import Column, Table


def layer_block(group: DataGroup, findings: Findings) -> Block:
    """Show the accuracy of every single layer against its depth, and as a table."""
    title = "Which layer carries the signal"
    if not group.curves:
        return Block(title, ("No layer was run alone.",))
    chosen = "; ".join(
        f"{curve.label}: layer {curve.best.layer.layer} chosen,"
        f" {percent(accuracy(curve.best)[0])} on test"
        for curve in group.curves
    )
    figure = drawing(
        f"{group.key}-layers",
        lambda ax: plot_job_layers(group, ax),
        alt=f"{group.label}: accuracy of each layer alone against its depth in the model. {chosen}",
        caption="Accuracy of a small head on one layer alone. Thick line and band: test, with its"
        " 95 % interval over test rows. Thin dotted line: validation. Ring and drop line: the layer"
        " that validation chooses. Open diamond: the last block's output after the model's final"
        " norm. Dashed: the baseline. The rows under the axis number the layers of each model.",
    )
    return Block(title, (figure, Folded((layer_table(group),))))


def layer_table(group: DataGroup) -> Table:
    """List every layer that was run alone, with its metrics."""
    entries = [(curve, job) for curve in group.curves for job in curve.points]
    return Table(
        "Accuracy by layer",
        (
            Column("Model", lambda entry: entry[0].label),
            Column("Layer", lambda entry: entry[1].layer.layer, NAME),
            Column("Depth", lambda entry: entry[1].layer.depth, decimals(2)),
            Column("Validation %", lambda entry: entry[1].record.validation["accuracy"], PERCENT),
            *metric_columns(entries, lambda entry: entry[1].record.test),
        ),
        entries,
        "Mean ± standard deviation over seeds, and 95 % intervals over test rows. Marked: the layer"
        " that validation chooses for its model. Layer 0 is what enters the first block, norm the"
        " output of the model's final norm.",
        lambda entry: "chosen" if entry[1] is entry[0].best else "",
    )
