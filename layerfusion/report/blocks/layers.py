"""Block on single layers: the accuracy of every layer that was run alone."""

from __future__ import annotations

from layerfusion.findings.compare import best_on_test, score_ends
from layerfusion.findings.curves import best_probe, layer_key, probe_lines, used_layers
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.names import layer_name, single_name
from layerfusion.findings.tests import Findings
from layerfusion.records.format import capital
from layerfusion.report.block import Block, Folded
from layerfusion.report.figures.canvas import Drawing, drawing
from layerfusion.report.figures.layers import plot_job_layers, plot_probe_curves
from layerfusion.report.format import NAME, PERCENT, decimals
from layerfusion.report.metrics import metric_columns, titled
from layerfusion.report.sentences import bracket, percent
from layerfusion.report.table import Column, Table


def layer_block(group: DataGroup, findings: Findings) -> Block:
    """Show the accuracy of every single layer against its depth, and as a table."""
    title = "Which layer carries the signal"
    probes, measure = _probe_parts(group), group.measure
    if not group.curves:
        return Block(title, ("No layer was run alone, and no selection probed the layers.",))
    table = Folded((layer_table(group),))
    no_curve = all(len(curve.points) == 1 for curve in group.curves)
    if group.probed or (no_curve and probes):
        return Block(title, (_best_probe(group), *probes, table))
    chosen = "; ".join(
        f"{curve.label}: layer {curve.best.layer.layer} chosen,"
        f" {percent(score_ends(curve.best)[0])} on test"
        for curve in group.curves
    )
    figure = drawing(
        f"{group.key}-layers",
        lambda ax: plot_job_layers(group, ax),
        alt=f"{group.label}: {measure} of each layer alone against its depth in the model."
        f" {chosen}",
        caption=f"{capital(measure)} of a small head on one layer alone. Thick line and band:"
        " test, with its 95 % interval over test rows. Thin dotted line:"
        f" {group.judge.name}. Ring and drop line: the layer that {group.judge.chooses}. Open"
        " diamond: the last block's output after the model's final norm. Dashed: the baseline. The"
        " rows under the axis number the layers of each model.",
    )
    return Block(title, (_hindsight(group), figure, table, *probes))


def _best_probe(group: DataGroup) -> str | None:
    """Name the layer with the best probe, beside the last one of its model."""
    found = best_probe(group)
    if found is None:
        return None
    curve, best = found
    last = curve.points[-1]
    pooled = f" ({best.pooling})" if len({x.pooling for x in group.model_probes}) > 1 else ""
    by = f" by {group.data.measure}" * (group.measure != group.data.measure)
    words = (
        f"Of single layers, {layer_name(best.layer)} of {best.backbone}{pooled} has the best probe"
        f"{by}: {percent(best.accuracy)} {bracket(best)} on {curve.judged_on}"
    )
    if last is best or last.depth < 1:
        return f"{words}."
    return f"{words}; the last layer of this model has {percent(last.accuracy)} {bracket(last)}."


def _hindsight(group: DataGroup) -> str | None:
    """Say what the best layer on test would have been, which nobody could have chosen."""
    chosen, best = group.chosen, best_on_test(group.singles)
    if chosen is None or len(group.singles) == 1:
        return None
    found = (
        f"{capital(group.judge.chooses)} {single_name(group, chosen)}, with"
        f" {percent(chosen.score.mean)} {bracket(chosen.score)} on test."
    )
    if best.score.mean <= chosen.score.mean:
        return f"{found} Hindsight agrees: no single layer does better on test."
    return (
        f"{found} In hindsight {single_name(group, best)} has the highest test"
        f" {group.measure}, {percent(best.score.mean)}; a figure picked on test is too"
        " high, and nobody could have chosen it."
    )


def _probe_parts(group: DataGroup) -> tuple[Drawing | Folded, ...]:
    """Show the probes that selections have fitted on the way, and list them."""
    curves, judged, measure = group.probe_curves, group.probed_on, group.data.measure
    if not curves:
        return ()
    used = used_layers(group)
    table = Table(
        "Probes of all layers",
        [one for curve in curves for one in curve.points],
        Column("Model", lambda one: one.backbone),
        Column("Layer", lambda one: one.layer, NAME),
        Column("Pooling", lambda one: one.pooling),
        Column("Depth", lambda one: one.depth, decimals(2), later=True),
        Column(titled("Held out", measure), lambda x: (x.accuracy, x.low, x.high), PERCENT),
        Column("Log-loss", lambda one: one.log_loss, decimals(3), later=True),
        note=f"Judged on {judged}. Marked: the layers of the job that is used.",
        mark=lambda one: "chosen" if layer_key(one) in used else "",
    )
    if not probe_lines(group):
        return (Folded((table,)),)
    figure = drawing(
        f"{group.key}-probes",
        lambda ax: plot_probe_curves(group, ax),
        alt=f"{group.label}: {measure} of the probe of each layer against its depth.",
        caption=f"{capital(measure)} of a linear probe on each layer: {judged}, on rows that the"
        " probe was not fitted on, with 95 % intervals over these rows. The probes are those that"
        " selections and stacks fitted; test has no part in them. Ringed: the layers of the job"
        " that is used.",
    )
    return figure, Folded((table,))


def layer_table(group: DataGroup) -> Table:
    """List every layer that was run alone, with its metrics."""
    entries = [(curve, job) for curve in group.curves for job in curve.points]
    by_probe = "Held out", group.data.measure
    chosen_by = by_probe if group.probed else (group.judge.title, group.measure)
    marked = (
        f"Held out: {group.data.measure} of the layer's probe on rows that it was not fitted on."
        " Marked: the layer whose probe is the best of its model."
        if group.probed
        else "Mean ± standard deviation over seeds, and 95 % intervals over test rows. Marked: the"
        f" layer that {group.judge.chooses} for its model."
    )
    return Table(
        f"{capital(group.measure)} by layer",
        entries,
        Column("Model", lambda entry: entry[0].label),
        Column("Layer", lambda entry: entry[1].layer.layer, NAME),
        Column("Depth", lambda entry: entry[1].layer.depth, decimals(2), later=True),
        Column(titled(*chosen_by), lambda x: x[1].choosing_score, PERCENT),
        *metric_columns(lambda entry: entry[1].record.test, group.jobs[0]),
        note=f"{marked} Layer 0 is what enters the first block, norm the output of the model's"
        " final norm.",
        mark=lambda entry: "chosen" if entry[1] is entry[0].best else "",
    )
