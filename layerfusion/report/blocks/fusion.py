"""Block on fusion: everything against the single layer that is chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerfusion.findings.grouping import grouped
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.names import baseline_name, shown_names, single_name
from layerfusion.findings.tests import PRIMARY, Finding, Findings, Kind, outcome_of
from layerfusion.records.format import capital, plural
from layerfusion.records.job import DataRecord, Estimate
from layerfusion.report.block import Block, Folded
from layerfusion.report.blocks.summary import all_names, told
from layerfusion.report.figures.canvas import Drawing
from layerfusion.report.figures.colors import INK, MUTED, model_colors
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.format import COUNT, P_VALUE, POINTS, REGRET
from layerfusion.report.metrics import LOW_IS_GOOD, baseline_estimates, metric_columns
from layerfusion.report.table import Cell, Column, Mark, Table

SHARED = " =: jobs that ended in the same sources and gave the same predictions share a row."
AGAINST: dict[Kind, str] = {
    "layer": "the chosen layer",
    "last": "the last layer",
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
            _verdict(group, findings),
            _figure(group, group.chosen, rows) if group.chosen else None,
            fusion_table(rows),
            Folded((finding_table(rows, findings, group.data),)),
        ),
    )


def _verdict(group: DataGroup, findings: Findings) -> str | None:
    """Say what the fusion that is chosen is worth against the single layer that is chosen."""
    fused, alone = group.chosen_fusion, group.chosen
    if fused is None or alone is None:
        return None
    names, finding = all_names(group), findings.between(fused, alone)
    what = f"the fusion that {group.judge.chooses}, {names[fused]},"
    if finding.lean == "open":
        return f"Whether {what} beats {names[alone]} {told(finding)}."
    return f"{capital(what)} is {told(finding, than=names[alone])}."


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

    data = next(row.job.record.dataset for row in rows if row.job)
    accuracy, *others = metric_columns(rows, lambda row: row.test, data)
    return Table(
        "Single layers and fusions",
        (
            Column("What", lambda row: row.label),
            Column("Sources", lambda row: row.job and row.job.sources, COUNT),
            accuracy,
            Column("Against chosen layer, points", against, POINTS),
            *others,
            Column("Head parameters", lambda r: r.job and r.job.record.cost.head_parameters, COUNT),
            Column("Seeds", lambda row: row.job and len(row.job.record.seeds), COUNT),
        ),
        rows,
        "Set off: the single layer that is chosen, with which all else is compared on the"
        " same test rows (paired bootstrap). ▲ better and ▼ worse, △ and ▽ probably so; without a"
        " mark it cannot be told (see the next table). Mean ± standard deviation over seeds, and"
        f" 95 % intervals over test rows. {LOW_IS_GOOD} Sources: layers,"
        " once for each pooling, and lexical sources."
        + (SHARED if any(row.twins for row in rows) else ""),
        lambda row: row.mark,
    )


def finding_table(rows: Sequence[Comparison], findings: Findings, data: DataRecord) -> Table:
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
    primary = findings.family.get(PRIMARY, 0)
    means, drawn = "mean accuracies", ", stratified by class"
    if data.multilabel:
        means, drawn = f"mean {data.measure}", ""
    loose = (
        " Some jobs did not keep the baseline's predictions. Their intervals are unpaired and"
        " wider, and p (≤) is the largest that the two accuracies allow."
    )
    return Table(
        "What the test rows show",
        (
            Column("What", lambda row: names[row.what]),
            Column("Against", lambda row: AGAINST[row.kind]),
            *test_columns("Rows it has right more often", "Rows the other has"),
        ),
        shown,
        f"The difference is that of the {means} over seeds, with a 95 % paired bootstrap"
        f" interval{drawn}. p: exact two-sided sign-flip test of the same difference"
        " (McNemar's test where each has one seed), on the rows that one of the two has right more"
        f" often. p (Holm): corrected for the {plural(primary, 'comparison')} that answer the"
        " questions of this data set (in bold type) or, of the others, for all of their kind in"
        f" this report, over all data sets ({family}). ▲ better, ▼ worse: p (Holm) below 0.05."
        " △ probably better, ▽ probably worse: only p is. Without a mark it cannot be told; a"
        " difference of “would show” is found four times out of five."
        + loose
        * (not all(row.exact for row in shown)),
        lambda row: "chosen" if row.family == PRIMARY else "",
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
        Column("Would show, points", lambda row: row.smallest_shown, REGRET),
        Column(only, lambda row: row.test.only_a if row.exact else None, COUNT),
        Column(other, lambda row: row.test.only_b if row.exact else None, COUNT),
        Column("p", lambda row: p(row.test.p, row), P_VALUE),
        Column("p (Holm)", lambda row: p(row.adjusted, row), P_VALUE),
        Column("Shown", lambda row: row.mark),
    )


def _figure(group: DataGroup, reference: FinishedJob, rows: Sequence[Comparison]) -> Drawing | None:
    return forest_drawing(
        f"{group.key}-fusion",
        forest_rows(group, rows),
        CHOSEN_LAYER,
        alt=f"{group.label}: {group.data.measure} against the chosen single layer, in points.",
        caption=f"Test {group.data.measure} minus that of the chosen single layer"
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
