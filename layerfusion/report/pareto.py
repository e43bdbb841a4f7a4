"""Accuracy against cost: which jobs are worth their operations."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from layerfusion.report.blocks import Block
from layerfusion.report.canvas import (
    GRID,
    INK,
    MUTED,
    PAPER,
    Colors,
    canvas,
    drawing,
)
from layerfusion.report.compare import accuracy
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.log_axis import number_log_axis
from layerfusion.report.names import count, interval, mean_sd, percent, shown_names, single_name
from layerfusion.report.tables import Column, Row, Table

MARKERS = ("o", "s", "^", "D", "v", "P")
"""By model, together with the colour; several models are a star."""
TOGETHER = "*"


def flops(job: Job) -> float:
    """Operations for one text: all models up to the highest layer of each, and the head."""
    record = job.record
    models = sum(record.backbones[name].flops_per_text for name in record.backbone_names)
    return models + (record.cost.head_flops or 0)


def front(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """The jobs that no other beats in validation accuracy at the same cost or less, cheapest first.

    Validation settles who is on the front, so that test only says what each is worth.
    """
    ordered = sorted(jobs, key=lambda job: (flops(job), -_validation(job), job.record.job))
    found: list[Job] = []
    for job in ordered:
        if not found or _validation(job) > _validation(found[-1]):
            found.append(job)
    return tuple(found)


def pareto_block(group: DataGroup, colors: Colors) -> Block | None:
    """Accuracy against operations of every job of a group, the front marked.

    None where fewer than two jobs have a known cost.
    """
    jobs = [job for job in group.jobs if flops(job) > 0]
    if len(jobs) < 2:
        return None
    best = front(jobs)
    names = {job: single_name(group, job) for job in group.singles} | shown_names(group)
    figure = drawing(
        f"{group.key}-cost",
        lambda narrow: _draw(group, jobs, best, colors, narrow=narrow),
        alt=f"{group.label}: test accuracy against operations a text. The front: "
        + "; ".join(
            f"{names[job]}, {_giga(job)} GFLOPs, {percent(accuracy(job)[0])}" for job in best
        ),
        caption="Test accuracy against the operations that one text takes, on a logarithmic scale."
        " Small: every job, by model; stars: several models together. Ringed and joined: the jobs"
        " that none beats in validation accuracy for the same operations or fewer, with 95 %"
        " intervals over test rows. Dashed: the baseline, whose operations do not count.",
    )
    return Block(
        "What accuracy costs",
        _text(best, names),
        (figure,),
        (_table(best, names),),
    )


def _text(best: Sequence[Job], names: dict[Job, str]) -> str:
    if len(best) == 1:
        (only,) = best
        return (
            f"The cheapest job is also the most accurate on validation: {names[only]}. Nothing"
            " dearer is worth its price here."
        )
    cheap, dear = best[0], best[-1]
    times = flops(dear) / flops(cheap)
    return (
        f"{len(best)} jobs are worth their operations by validation. The cheapest, {names[cheap]},"
        f" reaches {percent(accuracy(cheap)[0])} on test with {_giga(cheap)} GFLOPs a text; the"
        f" dearest, {names[dear]}, {percent(accuracy(dear)[0])} with {_giga(dear)},"
        f" {times:,.1f} times as many."
    )


def _table(best: Sequence[Job], names: dict[Job, str]) -> Table:
    return Table(
        "The front of accuracy against cost",
        (
            Column("What", numeric=False),
            Column("GFLOPs a text"),
            Column("K"),
            Column("Validation %"),
            Column("Test %"),
            Column("95 % interval"),
        ),
        tuple(
            Row(
                (
                    names[job],
                    _giga(job),
                    count(job.sources),
                    mean_sd(job.record.validation["accuracy"]),
                    mean_sd(job.record.test["accuracy"]),
                    interval(*accuracy(job)[1:]),
                )
            )
            for job in best
        ),
        "Cheapest first: each is more accurate on validation than all that cost less. Neighbours"
        " may differ by less than these rows can show; the intervals say so.",
    )


def _giga(job: Job) -> str:
    return f"{flops(job) / 1e9:.3g}"


def _validation(job: Job) -> float:
    return round(job.record.validation["accuracy"].mean, 9)


# -- figure -------------------------------------------------------------------------------------


def _draw(
    group: DataGroup, jobs: Sequence[Job], best: Sequence[Job], colors: Colors, *, narrow: bool
) -> Figure:
    width, plot = (360, 280) if narrow else (760, 330)
    models = sorted({name for job in jobs for name in job.record.backbone_names})
    across = 2 if narrow else 5
    looks = {_look(job, models, colors): _legend_name(job) for job in jobs}
    kinds = sorted(looks.items(), key=lambda item: (item[0][0] == TOGETHER, item[1]))
    lines = -(-len(kinds) // across)
    top = 18 * lines + 12
    figure, axes = canvas(width, top + plot + 46, 52, 16, top, 46)
    axes.set_xscale("log")
    axes.set_xlabel("GFLOPs a text, logarithmic")
    axes.set_ylabel("accuracy on test, %")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    number_log_axis(axes.xaxis, [flops(job) / 1e9 for job in jobs])
    baseline = 100 * group.jobs[0].record.baseline.test["accuracy"]
    axes.axhline(baseline, color=MUTED, linewidth=1.2, linestyle=(0, (6, 3)), zorder=1)
    for job in jobs:
        marker, color = _look(job, models, colors)
        size = 7 if marker == TOGETHER else 4.5
        x, y = flops(job) / 1e9, 100 * accuracy(job)[0]
        axes.plot(x, y, marker=marker, markersize=size, color=color, alpha=0.55, linestyle="none")
    _draw_front(axes, best, models, colors)
    for place, ((marker, color), name) in enumerate(kinds):
        line, column = divmod(place, across)
        x = 60 + column * (width - 70) / across
        y = 1 - (12 + 18 * line) / (top + plot + 46)
        axes.plot(
            x / width, y, marker=marker, color=color, transform=figure.transFigure, clip_on=False
        )
        figure.text((x + 12) / width, y, name, color=color, fontsize=11, va="center")
    return figure


def _draw_front(axes: Axes, best: Sequence[Job], models: Sequence[str], colors: Colors) -> None:
    x = [flops(job) / 1e9 for job in best]
    test = [accuracy(job) for job in best]
    axes.plot(x, [100 * mean for mean, _, _ in test], color=INK, linewidth=1.1, zorder=3)
    for where, (mean, low, high), job in zip(x, test, best, strict=True):
        marker, color = _look(job, models, colors)
        axes.plot([where] * 2, [100 * low, 100 * high], color=color, linewidth=1.6, zorder=3)
        axes.plot(
            where,
            100 * mean,
            marker=marker,
            markersize=11 if marker == TOGETHER else 8,
            color=color,
            markeredgecolor=INK,
            markeredgewidth=1.4,
            markerfacecolor=PAPER if marker != TOGETHER else color,
            zorder=4,
        )


def _legend_name(job: Job) -> str:
    names = job.record.backbone_names
    return names[0] if len(names) == 1 else "several models"


def _look(job: Job, models: Sequence[str], colors: Colors) -> tuple[str, str]:
    names = list(job.record.backbone_names)
    if len(names) > 1:
        return TOGETHER, INK
    return MARKERS[models.index(names[0]) % len(MARKERS)], colors[names[0]]
