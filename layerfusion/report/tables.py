"""The tables of the report as data; the pages decide how they look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from layerfusion.report.compare import Difference, best_on_validation, over, over_floor
from layerfusion.report.load import DataGroup, Job
from layerfusion.report.names import (
    NONE,
    count,
    floor_name,
    interval,
    job_names,
    layer_name,
    mean_sd,
    point_interval,
    points,
)

Mark = Literal["", "chosen", "floor"]


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
    """None is the floor."""
    difference: Difference | None
    """None for the chosen single layer itself, and where there is none."""
    is_reference: bool = False


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


def comparisons(group: DataGroup) -> tuple[Comparison, ...]:
    """The floor, single layers that stand for their model, and everything fused, in order."""
    reference = best_on_validation(group.singles) if group.singles else None
    named: dict[Job, str] = {}
    for curve in group.curves:
        if curve.last is not None:
            also = ", also its best" if curve.last is curve.best else ""
            top = layer_name(curve.last.layer.layer)
            named[curve.last] = f"{curve.label}: last layer ({top}){also}"
    for curve in group.curves:
        best = layer_name(curve.best.layer.layer)
        named.setdefault(curve.best, f"{curve.label}: best layer by validation ({best})")
    names = job_names(group)
    rank = {"last": 0, "all": 1}
    others = sorted(
        names,
        key=lambda job: (
            job.sources == 1,
            rank.get(job.record.selection, 2),
            len(job.record.backbone_names),
            job.sources,
            names[job],
        ),
    )
    named |= {job: sentence_case(names[job], job) for job in others}
    shown = group.jobs[0] if reference is None else reference
    floor = _floor_difference(shown) if reference is not None else None
    return (
        Comparison(floor_name(shown.record.floor), None, floor),
        *(
            Comparison(
                name,
                job,
                None if reference is None or job is reference else over(job, reference),
                job is reference,
            )
            for job, name in named.items()
        ),
    )


def fusion_table(rows: Sequence[Comparison], floor: Job) -> Table:
    """The comparison of everything with the chosen single layer.

    Args:
        rows: what to compare, the floor first.
        floor: any job of the group; its record says how well the floor does.
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
            Column("Log-loss"),
            Column("Calibration error %"),
            Column("Head parameters"),
            Column("Seeds"),
        ),
        tuple(
            _floor_row(row, floor) if row.job is None else _fusion_row(row, row.job) for row in rows
        ),
        "Marked: the single layer that validation chooses, against which all else is compared on"
        " the same test rows (paired bootstrap). An interval that contains 0 shows no difference."
        " The floor's difference has a wider, unpaired interval. K is the number of layers fused.",
    )


def _fusion_row(row: Comparison, job: Job) -> Row:
    test = job.record.test
    return Row(
        (
            row.name,
            count(job.sources),
            mean_sd(test["accuracy"]),
            interval(test["accuracy"].low, test["accuracy"].high),
            "chosen" if row.is_reference else _difference(row.difference),
            mean_sd(test["macro_f1"]),
            f"{test['log_loss'].mean:.3f}",
            mean_sd(test["calibration_error"]),
            count(job.record.cost.head_parameters),
            count(len(job.record.seeds)),
        ),
        "chosen" if row.is_reference else "",
    )


def _floor_row(row: Comparison, job: Job) -> Row:
    floor = job.record.floor
    return Row(
        (
            row.name,
            NONE,
            f"{100 * floor.test['accuracy']:.1f}",
            interval(floor.low, floor.high),
            _difference(row.difference),
            _optional_percent(floor.test.get("macro_f1")),
            f"{floor.test['log_loss']:.3f}" if "log_loss" in floor.test else NONE,
            _optional_percent(floor.test.get("calibration_error")),
            NONE,
            NONE,
        ),
        "floor",
    )


def _floor_difference(reference: Job) -> Difference:
    """The floor against a job: the other way round than `over_floor` says it."""
    ahead = over_floor(reference)
    return Difference(-ahead.mean, -ahead.high, -ahead.low, ahead.rows)


def _difference(difference: Difference | None) -> str:
    if difference is None:
        return NONE
    return f"{points(difference.mean)} {point_interval(difference)}"


def _optional_percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def sentence_case(name: str, job: Job) -> str:
    """A job's name with a capital, unless it starts with the name of a model."""
    return name if name.startswith(job.record.backbone_names) else name[0].upper() + name[1:]


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
