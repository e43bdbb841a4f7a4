"""What was chosen by itself and why: layers, fusions; and what a pilot saved."""

from __future__ import annotations

from layerfusion.config.job import STACKED
from layerfusion.report.compare import over
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import NONE, count, job_names, layer_name, point_interval, points
from layerfusion.report.tables import Column, Row, Table


def choice_tables(group: DataGroup) -> tuple[Table, ...]:
    """Reasons of every automatic choice, and savings of every pilot, where there are any."""
    chosen = [job for job in group.jobs if job.record.scored]
    pilots = [job for job in chosen if job.record.pilot is not None]
    races = [job for job in group.jobs if job.record.candidates]
    names = job_names(group)
    tables = []
    if chosen:
        tables.append(_reasons(group, chosen))
    tables += [_candidates(_name(job, names), job) for job in races]
    if pilots:
        tables.append(_savings(group, pilots))
    return tuple(tables)


def _reasons(group: DataGroup, jobs: list[Job]) -> Table:
    names = job_names(group)
    rows = []
    for job in jobs:
        for layer in job.record.layers:
            weight = NONE if layer.weight is None else f"{100 * layer.weight:.0f}"
            place = f"{layer.backbone}, {layer_name(layer.layer)}, {layer.pooling}"
            reason = layer.reason.partition(": ")[2] or layer.reason
            rows.append(Row((_name(job, names), place, reason, weight)))
        notes = "; ".join(job.record.selection_notes)
        if notes:
            rows.append(Row(("", "passed over", notes, NONE)))
    return Table(
        "Why these layers",
        (
            Column("What", numeric=False),
            Column("Layer", numeric=False),
            Column("Reason", numeric=False),
            Column("Weight %"),
        ),
        tuple(rows),
        "Chosen without a look at test; log-loss is in nats, of linear probes on rows they were"
        " not fitted on. The weight is what the fusion starts from.",
    )


def _candidates(name: str, job: Job) -> Table:
    first = job.record.candidates[0]
    rows = []
    for one in job.record.candidates:
        width = NONE if one.fusion == STACKED else count(one.width)
        error = NONE if one.behind_error is None else f"{one.behind_error:.4f}"
        rows.append(
            Row(
                (
                    one.fusion,
                    width,
                    f"{one.layer_set} ({', '.join(one.layers)})",
                    count(one.folds),
                    f"{one.log_loss:.4f}",
                    NONE if one is first else f"{one.behind:+.4f} ± {error}".replace("-", "−"),
                    count(one.head_parameters),
                    f"{one.flops_per_text / 1e9:.2f}",
                ),
                "chosen" if one is first else "",
            )
        )
    reasons = " ".join(f"{line.removeprefix('auto: ')}." for line in _decision(job))
    return Table(
        f"What auto judged: {name}",
        (
            Column("Fusion", numeric=False),
            Column("Width"),
            Column("Layers", numeric=False),
            Column("Folds"),
            Column("Held-out log-loss"),
            Column("Behind the chosen one"),
            Column("Head parameters"),
            Column("GFLOPs a text"),
        ),
        tuple(rows),
        "Chosen on train alone. The worse half of the trained heads is dropped after one fold, two"
        " and so on, so log-losses compare where the folds are the same; the difference is over"
        f" the rows that both were judged on, ± its standard error. {reasons}",
    )


def _decision(job: Job) -> list[str]:
    return [line for line in job.record.fusion_notes if line.startswith("auto: ")]


def _savings(group: DataGroup, pilots: list[Job]) -> Table:
    names = job_names(group)
    rows = []
    for job in pilots:
        pilot = job.record.pilot
        if pilot is None:
            continue
        full = _full_way(group, job)
        difference = None if full is None else over(job, full)
        rows.append(
            Row(
                (
                    _name(job, names),
                    " → ".join(count(size) for size in pilot.rows),
                    f"{count(pilot.texts_whole)} of {count(pilot.texts)}",
                    _saved(pilot.flops, pilot.flops_full),
                    _saved(pilot.bytes, pilot.bytes_full),
                    _saved(pilot.seconds, pilot.seconds_full),
                    NONE
                    if difference is None
                    else f"{points(difference.mean)} {point_interval(difference)}",
                )
            )
        )
    return Table(
        "What the pilot saved",
        (
            Column("What", numeric=False),
            Column("Rows tried"),
            Column("Texts extracted whole"),
            Column("FLOPs saved %"),
            Column("Bytes saved %"),
            Column("Time saved %"),
            Column("Against the full way, points"),
        ),
        tuple(rows),
        "Against extracting all layers of all models for all texts; a text counts as the mean of"
        " the pilot's, and time in proportion to the blocks. The difference in test accuracy is"
        " paired, with its 95 % interval, against the same job without a pilot.",
    )


def _name(job: Job, names: dict[Job, str]) -> str:
    """As elsewhere on the page; a job that is a point of a curve has no name of its own there."""
    return names.get(job, f"{job.record.selection} (job {job.record.job[:6]})")


def _full_way(group: DataGroup, pilot: Job) -> Job | None:
    """The job that differs from a pilot's in nothing but the pilot."""
    record = pilot.record.pilot
    wanted = None if record is None else record.full_job
    return next((job for job in group.jobs if job.record.job == wanted), None)


def _saved(spent: float | None, full: float | None) -> str:
    if spent is None or not full:
        return NONE
    return f"{100 * (1 - spent / full):.0f}"
