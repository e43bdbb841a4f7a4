"""Block on accuracy against cost: the jobs that are worth their operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from layerfusion.report.block import Block
from layerfusion.report.figures.canvas import LINE, drawing, is_narrow, legend, new_axes
from layerfusion.report.figures.colors import GRID, INK, MUTED, PAPER
from layerfusion.report.figures.layers import DASHED
from layerfusion.report.figures.log_axis import number_log_axis
from layerfusion.report.findings.compare import accuracy
from layerfusion.report.findings.tests import Findings
from layerfusion.report.format import COUNT, PERCENT, Format, percent
from layerfusion.report.jobs import FinishedJob
from layerfusion.report.load import DataGroup
from layerfusion.report.names import shown_names, single_name
from layerfusion.report.table import Column, Table

GIGA = Format(lambda value: f"{value:.3g}", 1e-9)
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Marks of the models, together with their colours."""
TOGETHER = "*"
"""Mark of several models together."""


def pareto_block(group: DataGroup, findings: Findings) -> Block | None:
    """Show the accuracy of every job against its operations, and mark the front.

    Returns:
        None where fewer than two jobs have a known cost.
    """
    jobs = [job for job in group.jobs if flops(job) > 0]
    if len(jobs) < 2:
        return None
    best = front(jobs)
    names = {job: single_name(group, job) for job in group.singles} | shown_names(group)
    shown = [f"{names[x]}, {GIGA(flops(x))} GFLOPs, {percent(accuracy(x)[0])}" for x in best]
    figure = drawing(
        f"{group.key}-cost",
        lambda ax: plot_cost(group, ax),
        alt=f"{group.label}: test accuracy against operations a text. The front: "
        + "; ".join(shown),
        caption="Test accuracy against the operations that one text takes, on a logarithmic scale."
        " Small: every job, by model; stars: several models together. Ringed and joined: the jobs"
        " that none beats in validation accuracy for the same operations or fewer, with 95 %"
        " intervals over test rows. Dashed: the baseline, whose operations do not count.",
    )
    return Block("What accuracy costs", (_text(best, names), figure, _table(best, names)))


def _text(best: Sequence[FinishedJob], names: dict[FinishedJob, str]) -> str:
    if len(best) == 1:
        return (
            f"The cheapest job is also the most accurate on validation: {names[best[0]]}. Nothing"
            " dearer is worth its price here."
        )
    cheap, dear = best[0], best[-1]
    times = flops(dear) / flops(cheap)
    return (
        f"{len(best)} jobs are worth their operations by validation. The cheapest, {names[cheap]},"
        f" reaches {percent(accuracy(cheap)[0])} on test with {GIGA(flops(cheap))} GFLOPs a text;"
        f" the dearest, {names[dear]}, {percent(accuracy(dear)[0])} with {GIGA(flops(dear))},"
        f" {times:,.1f} times as many."
    )


def _table(best: Sequence[FinishedJob], names: dict[FinishedJob, str]) -> Table:
    return Table(
        "The front of accuracy against cost",
        (
            Column("What", lambda job: names[job]),
            Column("GFLOPs a text", flops, GIGA),
            Column("K", lambda job: job.sources, COUNT),
            Column("Validation %", lambda job: job.record.validation["accuracy"], PERCENT),
            Column("Test %", lambda job: job.record.test["accuracy"], PERCENT),
        ),
        best,
        "Cheapest first: each is more accurate on validation than all that cost less. Neighbours"
        " may differ by less than these rows can show; the intervals tell.",
    )


# -- front --------------------------------------------------------------------------------------


def flops(job: FinishedJob) -> float:
    """Count the operations for one text: all models up to their highest layers, and the head."""
    record = job.record
    models = sum(record.backbones[name].flops_per_text for name in record.backbone_names)
    return models + (record.cost.head_flops or 0)


def front(jobs: Sequence[FinishedJob]) -> tuple[FinishedJob, ...]:
    """Find the jobs that no other beats in validation accuracy at the same cost or less.

    Validation decides which jobs are on the front, so that test only says what each is worth.

    Returns:
        The jobs, cheapest first.
    """
    ordered = sorted(jobs, key=lambda job: (flops(job), -_validation(job), job.record.job))
    found: list[FinishedJob] = []
    for job in ordered:
        if not found or _validation(job) > _validation(found[-1]):
            found.append(job)
    return tuple(found)


def _validation(job: FinishedJob) -> float:
    return round(job.record.validation["accuracy"].mean, 9)


# -- figure -------------------------------------------------------------------------------------


def plot_cost(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw the test accuracy of every job of a data set against its operations, and the front."""
    jobs = [job for job in group.jobs if flops(job) > 0]
    models = sorted({name for job in jobs for name in job.record.backbone_names})
    names = len(models) + 1
    ax = new_axes(ax, 380.0 + LINE * -(-names // 5), 330.0 + LINE * -(-names // 2))
    ax.set_xscale("log")
    ax.set(xlabel="GFLOPs a text, logarithmic", ylabel="accuracy on test, %")
    ax.grid(axis="y", color=GRID, linewidth=0.8)
    number_log_axis(ax.xaxis, [flops(job) / 1e9 for job in jobs])
    baseline = 100 * group.jobs[0].record.baseline.test["accuracy"]
    ax.axhline(baseline, color=MUTED, linewidth=1.2, linestyle=DASHED, zorder=1)
    by_look: dict[tuple[str, str, str], list[FinishedJob]] = {}
    for job in jobs:
        by_look.setdefault(_look(job, models, group), []).append(job)
    for look in sorted(by_look, key=lambda look: (look[0] == TOGETHER, look[2])):
        marker, color, name = look
        x = [flops(job) / 1e9 for job in by_look[look]]
        y = [100 * accuracy(job)[0] for job in by_look[look]]
        size = 7 if marker == TOGETHER else 4.5
        style: dict[str, Any] = {"marker": marker, "markersize": size, "color": color}
        ax.plot(x, y, alpha=0.55, linestyle="none", label=name, **style)
    _draw_front(ax, front(jobs), models, group)
    legend(ax, columns=2 if is_narrow(ax) else 5, markerscale=1.3)
    return ax


def _draw_front(
    ax: Axes, best: Sequence[FinishedJob], models: Sequence[str], group: DataGroup
) -> None:
    x = [flops(job) / 1e9 for job in best]
    test = [[100 * value for value in accuracy(job)] for job in best]
    ax.plot(x, [mean for mean, _, _ in test], color=INK, linewidth=1.1, zorder=3)
    for place, (mean, low, high), job in zip(x, test, best, strict=True):
        marker, color, _ = _look(job, models, group)
        ax.plot([place] * 2, [low, high], color=color, linewidth=1.6, zorder=3)
        ax.plot(
            place,
            mean,
            marker=marker,
            markersize=11 if marker == TOGETHER else 8,
            color=color,
            markeredgecolor=INK,
            markeredgewidth=1.4,
            markerfacecolor=PAPER if marker != TOGETHER else color,
            zorder=4,
        )


def _look(job: FinishedJob, models: Sequence[str], group: DataGroup) -> tuple[str, str, str]:
    """Give a job's mark, its colour, and their name in the legend."""
    names = job.record.backbone_names
    if len(names) != 1:
        return TOGETHER, INK, "several models"
    (name,) = names
    return MARKERS[models.index(name) % len(MARKERS)], group.colors[name], name
