"""Operators on the same sources: how accurate they are and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerfusion.records.format import plural
from layerfusion.report.blocks import Block
from layerfusion.report.canvas import INK, MUTED, Drawing, drawing
from layerfusion.report.findings import Findings, layers_of
from layerfusion.report.forest import FILLED, Branch, draw_forest
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import (
    NONE,
    count,
    interval,
    mean_sd,
    mega,
    p_value,
    point_interval,
    points,
)
from layerfusion.report.systems import taken
from layerfusion.report.tables import Column, Row, Table

LEAST = 3
"""Operators on the same sources that make a comparison; two are held against each other above."""


def operator_block(group: DataGroup, findings: Findings) -> Block | None:
    """Every operator on the same sources, for each set of sources that several were tried on."""
    by_sources: dict[tuple[object, ...], list[Job]] = {}
    for job in group.fused:
        record = job.record
        given = frozenset(record.considered), frozenset(record.lexical), record.selection
        by_sources.setdefault((*given, layers_of(job)), []).append(job)
    sets = [
        sorted(jobs, key=lambda job: -round(job.record.test["accuracy"].mean, 9))
        for jobs in by_sources.values()
        if len({job.record.fusion for job in jobs}) >= LEAST
    ]
    if not sets:
        return None
    figures = (
        _figure(group, jobs, findings, number)
        for number, jobs in enumerate(sets, start=1)
        if any(findings.of("concat", job) for job in jobs)
    )
    return Block(
        "Which operator fuses best",
        "The same layers, fused in different ways. An operator is worth its name where it is more"
        " accurate than concat with a head of the same size.",
        tuple(figures),
        tuple(_table(jobs, findings) for jobs in sets),
    )


def _table(jobs: Sequence[Job], findings: Findings) -> Table:
    names = _names(jobs)
    rows = []
    for job in jobs:
        test, cost, found = job.record.test, job.record.cost, findings.of("concat", job)
        rows.append(
            Row(
                (
                    names[job],
                    mean_sd(test["accuracy"]),
                    interval(test["accuracy"].low, test["accuracy"].high),
                    NONE
                    if found is None
                    else f"{points(found.difference.mean)} {point_interval(found.difference)}"
                    f" {found.mark}".rstrip(),
                    NONE if found is None else p_value(found.adjusted),
                    mean_sd(test["macro_f1"]),
                    f"{test['log_loss'].mean:.3f}",
                    count(cost.head_parameters),
                    mega(cost.head_flops),
                    f"{cost.train_seconds:,.1f}",
                )
            )
        )
    sizes = [job.record.cost.head_parameters for job in jobs]
    return Table(
        f"Operators on {plural(jobs[0].sources, 'source')}: {taken(jobs[0])}",
        (
            Column("Operator", numeric=False),
            Column("Test %"),
            Column("95 % interval"),
            Column("Against concat, points"),
            Column("p (Holm)"),
            Column("Macro-F1 %"),
            Column("Log-loss"),
            Column("Head parameters"),
            Column("Head MFLOPs a text"),
            Column("Training seconds"),
        ),
        tuple(rows),
        f"In the order of test accuracy, which nobody can choose by. The heads have"
        f" {count(min(sizes))} to {count(max(sizes))} trained parameters. ▲ and ▼: a difference"
        " from concat that the exact test, adjusted for the number of comparisons, shows. Training"
        " is over all seeds.",
    )


def _figure(group: DataGroup, jobs: Sequence[Job], findings: Findings, number: int) -> Drawing:
    names = _names(jobs)
    branches = [
        Branch(names[job], found, INK if found.verdict != "open" else MUTED)
        for job in jobs
        if (found := findings.of("concat", job)) is not None
    ]
    return drawing(
        f"{group.key}-operators-{number}",
        lambda narrow: draw_forest(branches, "points against concat", narrow=narrow),
        alt=f"{group.label}: accuracy of operators on the same layers against concat, in points. "
        + "; ".join(f"{b.name}: {points(b.finding.difference.mean)}" for b in branches),
        caption=f"Test accuracy minus that of concat on the same layers ({taken(jobs[0])}), with"
        f" 95 % intervals over the same test rows. {FILLED}",
    )


def _names(jobs: Sequence[Job]) -> dict[Job, str]:
    seen = Counter(job.record.fusion for job in jobs)
    return {
        job: job.record.fusion
        if seen[job.record.fusion] == 1
        else f"{job.record.fusion} (job {job.record.job[:6]})"
        for job in jobs
    }
