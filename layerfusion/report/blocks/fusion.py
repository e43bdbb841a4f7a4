"""Block on fusion: everything against the single layer that is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.measures import test_words
from layerfusion.findings.names import all_names, single_name
from layerfusion.findings.shown import Comparison, comparisons
from layerfusion.findings.tests import PRIMARY, Finding, Findings, Kind
from layerfusion.records.format import every_layer, plural
from layerfusion.report.block import Block, Folded
from layerfusion.report.figures.colors import INK, MUTED, model_colors
from layerfusion.report.figures.forest import ForestRow, forest_drawing
from layerfusion.report.format import COUNT, P_VALUE, POINTS, REGRET
from layerfusion.report.metrics import LOW_IS_GOOD, metric_columns
from layerfusion.report.sentences import verdict
from layerfusion.report.table import Cell, Column, Table

SHARED = " =: jobs that ended in the same sources and gave the same predictions share a row."
AGAINST: dict[Kind, str] = {
    "layer": "the chosen layer",
    "last": "the last layer",
    "baseline": "the baseline",
    "concat": "concat of the same layers",
}
"""Comparisons that the table of tests shows. The others have tables of their own."""

CHOSEN_LAYER = "points against the chosen single layer"


def fusion_block(group: DataGroup, findings: Findings) -> Block:
    """Compare the baseline, single layers and all fusions with the chosen single layer."""
    rows, reference = comparisons(group, findings), group.chosen
    figure = reference and forest_drawing(
        f"{group.key}-fusion",
        forest_rows(group, rows),
        CHOSEN_LAYER,
        alt=f"{group.label}: {group.measure} against the chosen single layer, in points.",
        caption=f"Test {group.measure} minus that of the chosen single layer"
        f" ({single_name(group, reference)}), in points, with 95 % intervals over the same test"
        " rows. Grey: the baseline.",
    )
    tests = Folded((finding_table(rows, findings, group),))
    parts = (_verdict(group, findings), figure, fusion_table(rows), tests)
    return Block("Whether fusing helps", parts)


def _verdict(group: DataGroup, findings: Findings) -> str | None:
    """Say what the fusion that is chosen is worth against the single layer that is chosen."""
    fused, alone = group.chosen_fusion, group.chosen
    if fused is None or alone is None:
        return None
    names = all_names(group)
    what = f"the fusion that {group.judge.chooses}, {names[fused]},"
    return verdict(what, findings.between(fused, alone), names[alone])


def fusion_table(rows: Sequence[Comparison]) -> Table:
    """List everything with its metrics and its difference from the chosen single layer."""
    job = next(row.job for row in rows if row.job)
    accuracy, *others = metric_columns(lambda row: row.test, job)

    def against(row: Comparison) -> Cell | Finding | None:
        return Cell(note="chosen") if row.is_reference else row.finding

    def of_job(title: str, count: Callable[[FinishedJob], int | None]) -> Column:
        return Column(title, lambda row: row.job and count(row.job), COUNT, later=True)

    return Table(
        "Single layers and fusions",
        rows,
        Column("What", lambda x: Cell(x.label, layers=every_layer(x.job.record) if x.job else "")),
        of_job("Sources", lambda job: job.sources),
        accuracy,
        Column("Against chosen layer, points", against, POINTS),
        *others,
        of_job("Head parameters", lambda job: job.record.cost.head_parameters),
        of_job("Seeds", lambda job: len(job.record.seeds)),
        note="Set off: the single layer that is chosen, with which all else is compared on the"
        " same test rows (paired bootstrap). ▲ better and ▼ worse, △ and ▽ probably so; without"
        " a mark it cannot be told (see the next table). Mean ± standard deviation over seeds,"
        f" and 95 % intervals over test rows. {LOW_IS_GOOD} Sources: layers, once for each"
        f" pooling, and lexical sources.{SHARED * any(row.twins for row in rows)}",
        mark=lambda row: "baseline" if row.job is None else "chosen" if row.is_reference else "",
    )


def finding_table(rows: Sequence[Comparison], findings: Findings, group: DataGroup) -> Table:
    """List every comparison between some rows with its exact test."""
    names = {row.job: row.name for row in rows}  # the baseline is the job None; twins count once
    shown = findings.among(list(AGAINST), list(names))
    family = "; ".join(
        f"{plural(findings.family[kind], 'comparison')} with {what}"
        for kind, what in AGAINST.items()
        if findings.family.get(kind)
    )
    others = " or, of the others, for all of their kind in this report, over all data sets"
    others = f"{others} ({family})" if family else ""
    primary = findings.family.get(PRIMARY, 0)
    drawn = "" if group.data.multilabel else ", stratified by class"
    loose = (
        " Some jobs did not keep the baseline's predictions. Their intervals are unpaired and"
        " wider, and p (≤) is the largest that the two accuracies allow."
    ) * any(not row.exact for row in shown)
    return Table(
        "What the test rows show",
        shown,
        Column("What", lambda row: names[row.what]),
        Column("Against", lambda row: AGAINST[row.kind]),
        *test_columns("Rows it has right more often", "Rows the other has"),
        note=f"The difference is that of the mean {group.measure} over seeds, with a 95 % paired"
        f" bootstrap interval{drawn}. p: two-sided {test_words(group.judge.metric)}. p (Holm):"
        f" corrected for the {plural(primary, 'comparison')} that answer the questions of this data"
        f" set (in bold type){others}. ▲ better, ▼ worse: p (Holm)"
        " below 0.05. △ probably better, ▽ probably worse: only p is. Without a mark it cannot"
        f" be told; a difference of “would show” is found four times out of five.{loose}",
        mark=lambda row: "chosen" if row.family == PRIMARY else "",
    )


def test_columns(only: str, other: str) -> tuple[Column, ...]:
    """Show findings with their exact test and what it allows to say.

    Args:
        only: heading of the rows that only the one has right.
        other: heading of the rows that only the other has right.
    """

    def p(value: float, row: Finding) -> Cell:
        return Cell(value, mark="≤" * (not row.exact))

    return (
        Column("Difference, points", lambda row: row.difference, POINTS),
        Column("Would show, points", lambda row: row.smallest_shown, REGRET, later=True),
        Column(only, lambda row: row.test.only_a if row.exact else None, COUNT, later=True),
        Column(other, lambda row: row.test.only_b if row.exact else None, COUNT, later=True),
        Column("p", lambda row: p(row.test.p, row), P_VALUE, later=True),
        Column("p (Holm)", lambda row: p(row.adjusted, row), P_VALUE, later=True),
        Column("Shown", lambda row: row.mark),
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
