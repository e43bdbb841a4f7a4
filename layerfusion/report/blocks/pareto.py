"""Block on accuracy against cost: which dearer jobs are worth their operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from layerfusion.findings.compare import flops, front, score_ends
from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import all_names
from layerfusion.findings.tests import Finding, Findings, worth_their_price
from layerfusion.records.format import plural
from layerfusion.report.block import Block
from layerfusion.report.figures.axes import LINE, legend, new_axes, one_series, tell
from layerfusion.report.figures.canvas import drawing
from layerfusion.report.figures.colors import INK, MUTED, PAPER, model_colors
from layerfusion.report.figures.layers import DASHED
from layerfusion.report.figures.log_axis import number_log_axis
from layerfusion.report.format import COUNT, PERCENT, POINTS, Format
from layerfusion.report.metrics import set_columns, titled
from layerfusion.report.sentences import MARKS, percent, verdict
from layerfusion.report.table import Column, Table, cell_text

GIGA = Format(lambda value: f"{value:.3g}", 1e-9)
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Marks of the models, together with their colours."""
TOGETHER = "*"
"""Mark of several models together."""


def pareto_block(group: DataGroup, findings: Findings) -> Block | None:
    """Show the accuracy of every job against its operations; nothing where under two have some."""
    jobs = [job for job in group.jobs if flops(job) > 0]
    if len(jobs) < 2:
        return None
    best, names, judge = front(jobs), all_names(group), group.judge
    steps = worth_their_price(best)
    shown = [f"{names[x]}, {GIGA(flops(x))} GFLOPs, {percent(score_ends(x)[0])}" for x in best]
    figure = drawing(
        f"{group.key}-cost",
        lambda ax: plot_cost(group, ax),
        alt=f"{group.label}: test {group.measure} against operations a text. The front: "
        + "; ".join(shown),
        caption=f"Test {group.measure} against the operations that one text takes, on a"
        " logarithmic scale. Small: every job, by model; stars: several models together. Ringed"
        f" and joined: the jobs that none beats on {judge.name} for the same operations or"
        " fewer, with 95 % intervals over test rows. Dashed: the baseline, which costs none."
        + " Jobs with vectors that were computed elsewhere, at a cost that nobody knows, are left"
        " out." * any(job.flops is None for job in group.jobs),
    )
    table = Table(
        f"The front of {group.measure} against cost",
        best,
        Column("What", lambda job: names[job]),
        Column("GFLOPs a text", flops, GIGA),
        Column("Sources", lambda job: job.sources, COUNT, later=True),
        Column(titled(judge.title, group.measure), lambda job: job.choosing_score, PERCENT),
        Column(titled("Test", group.measure), lambda job: job.score, PERCENT),
        Column("Over what is cheaper, points", steps.get, POINTS),
        *set_columns(lambda job: job.record.test),
        note=f"Cheapest first: each is better on {judge.name} than all that cost less, in"
        f" {group.measure} or, on a tie, in log-loss. Over what is cheaper: on test, against"
        f" the dearest cheaper job that is worth its price, corrected for their number. {MARKS}",
        mark=lambda job: "chosen" if job not in steps or steps[job].verdict == "gain" else "",
    )
    words = _text(judge.name, steps, best[0], names)
    return Block(f"What {group.measure} costs", (words, figure, table))


def _text(
    judge: str,
    steps: Mapping[FinishedJob, Finding],
    cheap: FinishedJob,
    names: Mapping[FinishedJob, str],
) -> str:
    """Say which jobs of the front test shows to be worth their price, and that of others not."""
    if not steps:
        return f"No dearer job is better on {judge} than the cheapest of the best, {names[cheap]}."

    def shown(job: FinishedJob) -> str:
        times = flops(job) / flops(cheap)
        many = f"{times:,.{0 if times >= 10 else 1}f} times" if times >= 1.05 else "nearly"
        against = steps[job].against
        told = verdict(names[job], steps[job], names[against] if against else "")
        return f"{told} It takes {GIGA(flops(job))} GFLOPs, {many} as many as the cheapest."

    said = [
        f"{len(steps) + 1} jobs are on the front: each is better on {judge} than all that cost"
        f" less. The cheapest, {names[cheap]}, reaches {percent(score_ends(cheap)[0])} on test with"
        f" {GIGA(flops(cheap))} GFLOPs a text."
    ]
    worth = [job for job, one in steps.items() if one.verdict == "gain"]
    said += [f"Worth its price: {shown(job)}" for job in worth]
    if rest := [job for job in steps if job not in worth]:
        others = plural(len(rest), "other job" if worth else "dearer job")
        said.append(f"Test does not show {others} to be worth the price. {shown(rest[-1])}")
    return " ".join([*said, "Turning a text into tokens is not counted."])


def plot_cost(group: DataGroup, ax: Axes | None = None) -> Axes:
    """Draw the test accuracy of every job of a data set against its operations, and the front."""
    jobs = [job for job in group.jobs if flops(job) > 0]
    models = sorted({name for job in jobs for name in job.record.backbone_names})
    names = len(models) + 1
    ax = new_axes(ax, 380.0 + LINE * -(-names // 5), 330.0 + LINE * -(-names // 2), grid="y")
    ax.set_xscale("log")
    ax.set(xlabel="GFLOPs a text, logarithmic", ylabel=f"{group.measure} on test, %")
    number_log_axis(ax.xaxis, [flops(job) / 1e9 for job in jobs])
    baseline = 100 * group.jobs[0].baseline_score.mean
    ax.axhline(baseline, color=MUTED, linewidth=1.2, linestyle=DASHED, zorder=1)

    def look(job: FinishedJob) -> tuple[str, str, str]:
        """Give a job's mark, its colour, and their name in the legend."""
        if len(job.record.backbone_names) != 1:
            return TOGETHER, INK, "several models"
        (name,) = job.record.backbone_names
        return MARKERS[models.index(name) % len(MARKERS)], model_colors(group.models)[name], name

    by_look = grouped(jobs, look)
    for marker, color, name in sorted(by_look, key=lambda look: (look[0] == TOGETHER, look[2])):
        x, y = zip(*(_point(job) for job in by_look[marker, color, name]), strict=True)
        size = 7 if marker == TOGETHER else 4.5
        style: dict[str, Any] = {"marker": marker, "markersize": size, "color": color}
        with one_series(ax, name):
            ax.plot(x, y, alpha=0.55, linestyle="none", label=name, **style)
    best = front(jobs)
    ax.plot(*zip(*map(_point, best), strict=True), color=INK, linewidth=1.1, zorder=3)
    for job in best:
        (x, y), (marker, color, _) = _point(job), look(job)
        ends = [100 * end for end in score_ends(job)[1:]]
        ax.plot([x, x], ends, color=color, linewidth=1.6, zorder=3)
        together = marker == TOGETHER
        fill: dict[str, Any] = {"color": color, "markerfacecolor": color if together else PAPER}
        edge: dict[str, Any] = {"markeredgecolor": INK, "markeredgewidth": 1.4}
        ax.plot(x, y, marker=marker, markersize=11 if together else 8, zorder=4, **fill, **edge)
    names = all_names(group)
    for job in jobs:
        right = cell_text(score_ends(job), PERCENT)
        tell(ax, *_point(job), f"{names[job]}: {right} %, {GIGA(flops(job))} GFLOPs")
    legend(ax, columns=5, markerscale=1.3)
    return ax


def _point(job: FinishedJob) -> tuple[float, float]:
    return flops(job) / 1e9, 100 * score_ends(job)[0]
