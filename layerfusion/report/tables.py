"""The tables of the report as data; the pages decide how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from layerfusion.records.format import plural
from layerfusion.report.findings import Finding, Findings, Kind, outcome_of
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import (
    NONE,
    baseline_name,
    count,
    interval,
    mean_sd,
    p_value,
    point_interval,
    points,
    shown_names,
)
from layerfusion.statistics.intervals import Difference

SHARED = " =: jobs that settled on the same sources and gave the same predictions share a row."
Mark = Literal["", "chosen", "baseline"]


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers are set to the right."""

    title: str
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """Cells, one a column, and what makes the row stand out."""

    cells: tuple[str, ...]
    mark: Mark = ""


@dataclass(frozen=True)
class Table:
    """A table with the sentence that tells how to read it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """A row of the fusion table: a system and how it compares with the chosen single layer."""

    name: str
    job: Job | None
    """None is the baseline."""
    finding: Finding | None
    """None for the chosen single layer itself, and where there is none."""
    is_reference: bool = False
    twins: tuple[Job, ...] = ()
    """Other jobs that ended in the same sources and gave the same predictions."""

    @property
    def label(self) -> str:
        """The name, and which jobs are the same."""
        return f"{self.name}{''.join(f' = job {job.record.job[:6]}' for job in self.twins)}"


# -- accuracy -----------------------------------------------------------------------------------


def layer_table(group: DataGroup) -> Table:
    """Every layer that was run alone."""
    rows = []
    for curve in group.curves:
        for job in curve.points:
            test, validation = job.record.test, job.record.validation
            rows.append(
                Row(
                    (
                        curve.label,
                        job.layer.layer,
                        f"{job.layer.depth:.2f}",
                        mean_sd(validation["accuracy"]),
                        mean_sd(test["accuracy"]),
                        interval(test["accuracy"].low, test["accuracy"].high),
                        mean_sd(test["macro_f1"]),
                        f"{test['log_loss'].mean:.3f}",
                    ),
                    "chosen" if job is curve.best else "",
                )
            )
    return Table(
        "Accuracy by layer",
        (
            Column("Model", numeric=False),
            Column("Layer"),
            Column("Depth"),
            Column("Validation %"),
            Column("Test %"),
            Column("95 % interval"),
            Column("Macro-F1 %"),
            Column("Log-loss"),
        ),
        tuple(rows),
        "Mean ± standard deviation over seeds. Marked: the layer that validation chooses for its"
        " model. Layer 0 is what enters the first block, norm the output of the model's final"
        " norm.",
    )


def comparisons(group: DataGroup, findings: Findings) -> tuple[Comparison, ...]:
    """The baseline, single layers that stand for their model, and everything fused, in order.

    Selections may end in the same sources: jobs that gave the same predictions share a row.
    """
    reference = group.chosen
    baseline = (reference or group.jobs[0]).record.baseline

    def against(job: Job | None) -> Finding | None:
        return None if reference in (None, job) else findings.between(job, reference)

    named = shown_names(group)
    same: dict[tuple[object, ...], list[Job]] = {}
    for job in named:
        same.setdefault(outcome_of(job), []).append(job)
    return (
        Comparison(baseline_name(baseline), None, against(None)),
        *(
            Comparison(named[job], job, against(job), job is reference, tuple(twins))
            for job, *twins in same.values()
        ),
    )


def fusion_table(rows: Sequence[Comparison], baseline: Job) -> Table:
    """The comparison of everything with the chosen single layer.

    Args:
        rows: what to compare, the baseline first.
        baseline: any job of the group; its record says how well the baseline does.
    """
    return Table(
        "Single layers and fusions",
        (
            Column("What", numeric=False),
            Column("K"),
            Column("Test %"),
            Column("95 % interval"),
            Column("Against chosen layer, points"),
            Column("Macro-F1 %"),
            Column("Its 95 % interval"),
            Column("Log-loss"),
            Column("Calibration error %"),
            Column("Head parameters"),
            Column("Seeds"),
        ),
        tuple(
            _baseline_row(row, baseline) if row.job is None else _fusion_row(row, row.job)
            for row in rows
        ),
        "Set off: the single layer that validation chooses, against which all else is compared on"
        " the same test rows (paired bootstrap). ▲ and ▼: a difference that the exact test shows,"
        " adjusted for the number of comparisons; see the next table. Without them there is no"
        " difference that these rows can show. Mean ± standard deviation over seeds. K is the"
        " number of layers fused." + (SHARED if any(row.twins for row in rows) else ""),
    )


AGAINST: dict[Kind, str] = {
    "layer": "the chosen layer",
    "baseline": "the baseline",
    "concat": "concat of the same layers",
}
"""What the table of findings shows; the others have tables of their own."""


def finding_table(rows: Sequence[Comparison], findings: Findings) -> Table | None:
    """Every comparison with its exact test; none where there is nothing to compare.

    Args:
        rows: names of what is compared, in order.
        findings: the comparisons.
    """
    names = {row.job: row.name for row in rows}  # the baseline is the job None; twins are told once
    found = [row for row in findings.rows if row.kind in AGAINST and row.what in names]
    if not found:
        return None
    order = {job: place for place, job in enumerate(names)}
    shown = sorted(found, key=lambda row: (list(AGAINST).index(row.kind), order[row.what]))
    family = "; ".join(
        f"{plural(findings.family[kind], 'comparison')} with {what}"
        for kind, what in AGAINST.items()
        if findings.family.get(kind)
    )
    loose = (
        ""
        if all(row.exact for row in shown)
        else (
            " Some jobs did not keep the baseline's predictions: there the interval is unpaired and"
            " wider, and p (≤) the largest that the two accuracies allow."
        )
    )
    return Table(
        "What the test rows show",
        (
            Column("What", numeric=False),
            Column("Against", numeric=False),
            Column("Difference, points"),
            Column("Only it right"),
            Column("Only the other right"),
            Column("p"),
            Column("p (Holm)"),
            Column("Shown", numeric=False),
        ),
        tuple(
            Row(
                (
                    names[row.what],
                    AGAINST[row.kind],
                    _difference(row.difference),
                    count(row.mcnemar.only_a) if row.exact else NONE,
                    count(row.mcnemar.only_b) if row.exact else NONE,
                    p_value(row.mcnemar.p, bound=not row.exact),
                    p_value(row.adjusted, bound=not row.exact),
                    row.mark,
                )
            )
            for row in shown
        ),
        "The difference is that of the mean accuracies over seeds, with a 95 % paired bootstrap"
        " interval, stratified by class. The test sees one answer a row, the consensus: the class"
        " of the highest mean probability over the seeds, which is not the mean over seeds. p:"
        " exact two-sided McNemar on the rows that only one of the two has right. p (Holm):"
        " adjusted for all comparisons of its kind in this report, over all data sets"
        f" ({family}). ▲ better, ▼ worse: adjusted p below 0.05 and an interval on the same side"
        f" of 0; without a mark these rows show no difference.{loose}",
    )


def _fusion_row(row: Comparison, job: Job) -> Row:
    test = job.record.test
    return Row(
        (
            row.label,
            count(job.sources),
            mean_sd(test["accuracy"]),
            interval(test["accuracy"].low, test["accuracy"].high),
            "chosen" if row.is_reference else _finding(row.finding),
            mean_sd(test["macro_f1"]),
            interval(test["macro_f1"].low, test["macro_f1"].high),
            f"{test['log_loss'].mean:.3f}",
            mean_sd(test["calibration_error"]),
            count(job.record.cost.head_parameters),
            count(len(job.record.seeds)),
        ),
        "chosen" if row.is_reference else "",
    )


def _baseline_row(row: Comparison, job: Job) -> Row:
    baseline = job.record.baseline
    return Row(
        (
            row.name,
            NONE,
            f"{100 * baseline.test['accuracy']:.1f}",
            interval(baseline.low, baseline.high),
            _finding(row.finding),
            _optional_percent(baseline.test.get("macro_f1")),
            interval(baseline.macro_f1_low, baseline.macro_f1_high),
            f"{baseline.test['log_loss']:.3f}" if "log_loss" in baseline.test else NONE,
            _optional_percent(baseline.test.get("calibration_error")),
            NONE,
            NONE,
        ),
        "baseline",
    )


def _finding(finding: Finding | None) -> str:
    if finding is None:
        return NONE
    return f"{_difference(finding.difference)} {finding.mark}".rstrip()


def _difference(difference: Difference) -> str:
    return f"{points(difference.mean)} {point_interval(difference)}"


def _optional_percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def gate_table(name: str, job: Job) -> Table:
    """The mean gate of every layer of a gated fusion."""
    uniform = 1 / job.sources
    rows = [
        Row(
            (
                layer.backbone,
                layer.layer,
                layer.pooling,
                f"{gate:.4f}",
                f"{gate / uniform:.2f}",
            )
        )
        for layer in job.record.layers
        if (gate := layer.mean_gate) is not None
    ]
    return Table(
        f"Mean gates: {name}",
        (
            Column("Model", numeric=False),
            Column("Layer"),
            Column("Pooling", numeric=False),
            Column("Mean gate"),
            Column("Times 1/K"),
        ),
        tuple(rows),
    )
