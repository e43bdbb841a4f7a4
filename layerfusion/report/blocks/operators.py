"""Block on operators: their accuracy on the same sources, and their cost."""

from __future__ import annotations

from collections.abc import Sequence

from layerfusion.findings.compare import best_chosen
from layerfusion.findings.grouping import told_apart
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.identities import taken
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import job_mark
from layerfusion.findings.settings import with_settings
from layerfusion.findings.shown import operator_sets
from layerfusion.findings.tests import Findings
from layerfusion.records.format import capital, plural
from layerfusion.report.block import Block
from layerfusion.report.blocks.costs import HEAD_FLOPS, TRAINING
from layerfusion.report.figures.canvas import Drawing
from layerfusion.report.figures.colors import INK, MUTED
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.format import COUNT, P_VALUE, POINTS
from layerfusion.report.metrics import metric_columns
from layerfusion.report.sentences import MARKS, verdict
from layerfusion.report.table import Column, Table


def operator_block(group: DataGroup, findings: Findings) -> Block | None:
    """Compare the operators on each set of sources that several of them were tried on."""
    sets = operator_sets(group)
    if not sets:
        return None
    parts = [_shown(group, jobs, findings, place) for place, jobs in enumerate(sets, start=1)]
    lines = [_verdict(group, jobs, findings) for jobs in sets]
    if len(sets) > 1:
        lines = [f"On {taken(jobs[0])}: {line}" for jobs, line in zip(sets, lines, strict=True)]
    return Block(
        "Which operator fuses best",
        (
            *lines,
            "The same layers, fused in different ways. An operator is worth its name where it is"
            " more accurate than concat with a head of the same size.",
            *(figure for figure, _ in parts),
            *(table for _, table in parts),
        ),
    )


def _verdict(group: DataGroup, jobs: Sequence[FinishedJob], findings: Findings) -> str:
    """Say what the chosen operator is worth against concat, or what concat is against the next."""
    chosen, names = best_chosen(jobs), _names(jobs)
    against = {job: found for job in jobs if (found := findings.of("concat", job))}
    what = f"the operator that {group.judge.chooses}, {names[chosen]},"
    if chosen in against:
        return verdict(what, against[chosen], "concat")
    if not against:
        return (
            f"{capital(group.judge.chooses)} {names[chosen]}; concat was not run on these layers."
        )
    rival = best_chosen([*against])
    return verdict(what, against[rival].flipped, f"the next, {names[rival]},")


def _names(jobs: Sequence[FinishedJob]) -> dict[FinishedJob, str]:
    """Name jobs by their operators, and by settings of these where they differ."""
    names = with_settings({job: job.record.fusion_label for job in jobs}, lambda job: job.record)
    return told_apart(names, job_mark)


def _shown(
    group: DataGroup, jobs: Sequence[FinishedJob], findings: Findings, number: int
) -> tuple[Drawing | None, Table]:
    """Draw and list the operators on one set of sources; no figure where concat is not one."""
    names = _names(jobs)
    found = {job: row for job in jobs if (row := findings.of("concat", job)) is not None}
    figure = forest_drawing(
        f"{group.key}-operators-{number}",
        [ForestRow(names[x], y, MUTED if y.verdict == "open" else INK) for x, y in found.items()],
        "points against concat",
        alt=f"{group.label}: {group.measure} of operators on the same layers against concat,"
        " in points.",
        caption=f"Test {group.measure} minus that of concat on the same layers"
        f" ({taken(jobs[0])}), with 95 % intervals over the same test rows.",
    )
    sizes = [job.record.cost.head_parameters for job in jobs]
    accuracy, *others = metric_columns(lambda job: job.record.test, jobs[0])
    table = Table(
        f"Operators on {plural(jobs[0].sources, 'source')}: {taken(jobs[0])}",
        jobs,
        Column("Operator", lambda job: names[job]),
        accuracy,
        Column("Against concat, points", found.get, POINTS),
        Column("p (Holm)", lambda x: getattr(found.get(x), "adjusted", None), P_VALUE, later=True),
        *others,
        Column("Head parameters", lambda job: job.record.cost.head_parameters, COUNT, later=True),
        HEAD_FLOPS,
        TRAINING,
        note=f"Sorted by test {group.measure}, which nobody can choose by. The heads have"
        f" {COUNT(min(sizes))} to {COUNT(max(sizes))} trained parameters. Against concat: {MARKS}"
        " Training is over all seeds.",
    )
    return figure, table
