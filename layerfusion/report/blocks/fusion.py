"""Block on fusion: everything against the single layer that validation chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import baseline_name, shown_names, single_name
from layerfusion.findings.tests import Finding, Findings, Kind, outcome_of
from layerfusion.records.format import plural
from layerfusion.records.job import Estimate
from layerfusion.report.block import Block
from layerfusion.report.figures.canvas import Drawing
from layerfusion.report.figures.colors import INK, MUTED, model_colors
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.format import COUNT, P_VALUE, POINTS
from layerfusion.report.metrics import LOW_IS_GOOD, baseline_estimates, metric_columns
from layerfusion.report.table import Cell, Column, Mark, Table

SHARED = " =: jobs that ended in the same sources and gave the same predictions share a row."
AGAINST: dict[Kind, str] = {
    "layer": "the chosen layer",
    "baseline": "the baseline",
    "concat": "concat of the same layers",
}
"""Comparisons that the table of tests shows. The others have tables of their own."""

CHOSEN_LAYER = "points against the chosen single layer"


@dataclass(frozen=True, eq=False)
class Comparison:
    """A job, or the baseline, and how it compares with the chosen single layer."""

    name: str
    job: FinishedJob | None
    """None for the baseline."""
    finding: Finding | None
    """None for the chosen single layer itself, and where there is none."""
    test: Mapping[str, Estimate]
    """Metrics on test."""
    is_reference: bool = False
    twins: tuple[FinishedJob, ...] = ()
    """Other jobs that ended in the same sources and gave the same predictions."""

    @property
    def label(self) -> str:
        """The name, and the jobs that are the same."""
        return f"{self.name}{''.join(f' = job {job.record.job[:6]}' for job in self.twins)}"

    @property
    def mark(self) -> Mark:
        """Mark of the row in the table."""
        return "baseline" if self.job is None else "chosen" if self.is_reference else ""


def fusion_block(group: DataGroup, findings: Findings) -> Block:
    """Compare the baseline, single layers and all fusions with the chosen single layer."""
    rows = comparisons(group, findings)
    return Block(
        "Whether fusing helps",
        (
            _figure(group, group.chosen, rows) if group.chosen else None,
            fusion_table(rows),
            finding_table(rows, findings),
        ),
    )


def comparisons(group: DataGroup, findings: Findings) -> tuple[Comparison, ...]:
    """List the baseline, single layers that stand for their model, and all fusions, in order.

    Selections may end in the same sources. Jobs that gave the same predictions share a row.
    """
    reference = group.chosen
    baseline = (reference or group.jobs[0]).record.baseline

    def against(job: FinishedJob | None) -> Finding | None:
        return None if reference in (None, job) else findings.between(job, reference)

    named = shown_names(group)
    same = grouped(named, outcome_of)
    return (
        Comparison(baseline_name(baseline), None, against(None), baseline_estimates(baseline)),
        *(
            Comparison(
                named[job], job, against(job), job.record.test, job is reference, tuple(twins)
            )
            for job, *twins in same.values()
        ),
    )


def fusion_table(rows: Sequence[Comparison]) -> Table:
    """List everything with its metrics and its difference from the chosen single layer."""

    def against(row: Comparison) -> object:
        return row.finding or Cell(note="chosen" if row.is_reference else "")

    accuracy, *others = metric_columns(rows, lambda row: row.test)
    return Table(
        "Single layers and fusions",
        (
            Column("What", lambda row: row.label),
            Column("K", lambda row: row.job and row.job.sources, COUNT),
            accuracy,
            Column("Against chosen layer, points", against, POINTS),
            *others,
            Column("Head parameters", lambda r: r.job and r.job.record.cost.head_parameters, COUNT),
            Column("Seeds", lambda row: row.job and len(row.job.record.seeds), COUNT),
        ),
        rows,
        "Set off: the single layer that validation chooses, with which all else is compared on the"
        " same test rows (paired bootstrap). ▲ and ▼: a difference that the exact test shows,"
        " adjusted for the number of comparisons; see the next table. Without them there is no"
        " difference that these rows can show. Mean ± standard deviation over seeds, and 95 %"
        f" intervals over test rows. {LOW_IS_GOOD} K is the number of layers fused."
        + (SHARED if any(row.twins for row in rows) else ""),
        lambda row: row.mark,
    )


def finding_table(rows: Sequence[Comparison], findings: Findings) -> Table:
    """List every comparison between some rows with its exact test."""
    names = {row.job: row.name for row in rows}  # the baseline is the job None; twins count once
    order = list(names)
    shown = sorted(
        (row for row in findings.rows if row.kind in AGAINST and row.what in names),
        key=lambda row: (list(AGAINST).index(row.kind), order.index(row.what)),
    )
    family = "; ".join(
        f"{plural(findings.family[kind], 'comparison')} with {what}"
        for kind, what in AGAINST.items()
        if findings.family.get(kind)
    )
    loose = (
        " Some jobs did not keep the baseline's predictions. Their intervals are unpaired and"
        " wider, and p (≤) is the largest that the two accuracies allow."
    )
    return Table(
        "What the test rows show",
        (
            Column("What", lambda row: names[row.what]),
            Column("Against", lambda row: AGAINST[row.kind]),
            *test_columns("Only it right", "Only the other right"),
        ),
        shown,
        "The difference is that of the mean accuracies over seeds, with a 95 % paired bootstrap"
        " interval, stratified by class. The test sees one answer a row, the consensus: the class"
        " with the highest mean probability over the seeds. Its accuracy is not the mean over"
        " seeds. p: exact two-sided McNemar on the rows that only one of the two has right. p"
        " (Holm): adjusted for all comparisons of its kind in this report, over all data sets"
        f" ({family}). ▲ better, ▼ worse: adjusted p below 0.05 and an interval on the same side"
        " of 0; without a mark these rows show no difference."
        + loose
        * (not all(row.exact for row in shown)),
    )


def test_columns(only: str, other: str) -> tuple[Column, ...]:
    """Show findings with their exact test and what it allows to say.

    Args:
        only: heading of the rows that only the one has right.
        other: heading of the rows that only the other has right.
    """

    def p(value: float, row: Finding) -> Cell:
        return Cell(value, mark="" if row.exact else "≤")

    return (
        Column("Difference, points", lambda row: row.difference, POINTS),
        Column(only, lambda row: row.mcnemar.only_a if row.exact else None, COUNT),
        Column(other, lambda row: row.mcnemar.only_b if row.exact else None, COUNT),
        Column("p", lambda row: p(row.mcnemar.p, row), P_VALUE),
        Column("p (Holm)", lambda row: p(row.adjusted, row), P_VALUE),
        Column("Shown", lambda row: row.mark),
    )


def _figure(group: DataGroup, reference: FinishedJob, rows: Sequence[Comparison]) -> Drawing | None:
    return forest_drawing(
        f"{group.key}-fusion",
        forest_rows(group, rows),
        CHOSEN_LAYER,
        alt=f"{group.label}: accuracy against the chosen single layer, in points.",
        caption="Test accuracy minus that of the chosen single layer"
        f" ({single_name(group, reference)}), in points, with 95 % intervals over the same test"
        " rows. Grey: the baseline.",
    )


def forest_rows(group: DataGroup, rows: Sequence[Comparison]) -> list[ForestRow]:
    """Give each comparison its colour: that of its model, or ink for several models."""
    found, colors = [], model_colors(group.models)
    for row in rows:
        if row.finding is not None:
            names = row.job.record.backbone_names if row.job else ()
            color = colors[names[0]] if len(names) == 1 else INK if names else MUTED
            found.append(ForestRow(row.name, row.finding, color))
    return found
