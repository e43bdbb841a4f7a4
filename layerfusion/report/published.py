"""What the published protocol would have claimed, beside what holds.

Records made under `protocol=as_published` are read here and nowhere else in the report: they enter
no honest table, figure, test or sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerfusion.config.job import AS_PUBLISHED
from layerfusion.config.protocol import PUBLISHED_BATCH, PUBLISHED_OPERATORS
from layerfusion.records.job import Estimate, RunRecord
from layerfusion.report.compare import best_on_validation
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup, finished
from layerfusion.report.names import (
    NONE,
    SPACE,
    count,
    interval,
    job_names,
    listing,
    mean_sd,
    percent,
    points,
    single_name,
)
from layerfusion.report.tables import Column, Row, Table

COLUMNS = (
    Column("What", numeric=False),
    Column("Would be claimed %"),
    Column("Last epoch %"),
    Column("Epoch chosen on other rows %"),
    Column("Selection bias, points"),
    Column("Padding in the mean %"),
    Column("Seeds"),
    Column("Honest: layer that validation chooses %", numeric=False),
    Column("Honest: fusion that validation chooses %", numeric=False),
)


@dataclass(frozen=True)
class PublishedReport:
    """The section on the published protocol."""

    intro: tuple[str, ...]
    tables: tuple[Table, ...]
    """One a data set."""
    provenance: Table


def load_published(runs: Path, only: Collection[str] | None = None) -> tuple[RunRecord, ...]:
    """The records of every finished job under a folder that followed the published protocol."""
    records = [record for _, record in finished(runs, only)]
    return tuple(record for record in records if record.protocol == AS_PUBLISHED)


def published_report(
    records: Sequence[RunRecord], groups: Sequence[DataGroup]
) -> PublishedReport | None:
    """Hold each published claim against the honest jobs on the same rows and models.

    Args:
        records: jobs under the published protocol, on any data.
        groups: the honest jobs of the report.

    Returns:
        None where there is no published job.
    """
    if not records:
        return None
    honest = {group.data.fingerprint: group for group in groups}
    by_data: dict[tuple[str, str], list[RunRecord]] = {}
    for record in sorted(records, key=_order):
        by_data.setdefault((record.dataset.name, record.dataset.fingerprint), []).append(record)
    shared = Counter(name for name, _ in by_data)
    tables, jobs = [], []
    for (name, fingerprint), rows in by_data.items():
        group = honest.get(fingerprint)
        plain = f"{name} (data {fingerprint[:8]})" if shared[name] > 1 else name
        label = group.label if group else plain
        names = _names(rows)
        tables.append(_table(label, rows, names, group))
        jobs += [_job(label, what, record) for record, what in zip(rows, names, strict=True)]
    titles = ("Data set", "What", "Job", "Made", "Fingerprint", "Spec hashes")
    columns = tuple(Column(title, numeric=False) for title in titles)
    return PublishedReport(
        _intro(records), tuple(tables), Table("Jobs as published", columns, tuple(jobs))
    )


def _intro(records: Sequence[RunRecord]) -> tuple[str, ...]:
    made = [record.published for record in records if record.published is not None]
    epochs, halvings = made[0].epochs, made[0].halvings
    return (
        "These are not results. They are what scripts published for this method would report on"
        " the same rows, so that the claim can be held against what is true. The last hidden state"
        f" is averaged over all positions of a batch of {PUBLISHED_BATCH}, padding included;"
        " nothing is standardised; train and validation are trained on together; and the figure"
        f" reported is the best test accuracy over {epochs} epochs. None of it enters another"
        " table, figure, test or sentence of this page.",
        "Selection bias: the accuracy that would be claimed, less that of an epoch chosen on one"
        f" random half of the test rows and judged on the other ({halvings} stratified halvings,"
        " both directions, averaged). It is what the choice owes to having seen the rows that it"
        " is judged on. A half chooses a little worse than all rows would, so it errs to the high"
        " side. Mean ± standard deviation over seeds; in square brackets 95 % bootstrap intervals"
        " over test rows, drawn class by class, where a job recorded them. They take the epochs as"
        " they were chosen: they show the chance in the rows, not the bias of choosing on them.",
    )


# -- rows ---------------------------------------------------------------------------------------


def _table(
    label: str, records: Sequence[RunRecord], names: Sequence[str], group: DataGroup | None
) -> Table:
    rows = []
    for record, what in zip(records, names, strict=True):
        test, made = record.test, record.published
        padding = [] if made is None else [f"{100 * made.padding[x]:.0f}" for x in made.padding]
        rows.append(
            Row(
                (
                    what,
                    _figure(test["claimed_accuracy"]),
                    _figure(test["last_epoch_accuracy"]),
                    _figure(test["split_half_accuracy"]),
                    _points(test["selection_bias"]),
                    ", ".join(padding),
                    count(len(record.seeds)),
                    *_honest(record, group),
                )
            )
        )
    return Table(
        f"{label}: published against honest", COLUMNS, tuple(rows), _note(records, names, group)
    )


def _note(records: Sequence[RunRecord], names: Sequence[str], group: DataGroup | None) -> str:
    best = max(range(len(records)), key=lambda n: records[n].test["claimed_accuracy"].mean)
    claimed, left = (
        records[best].test[name].mean for name in ("claimed_accuracy", "split_half_accuracy")
    )
    biases = [record.test["selection_bias"].mean for record in records]
    among = f", the best of {len(records)} rows" if len(records) > 1 else ""
    spread = (
        points(biases[0])
        if len(biases) == 1
        else f"{points(min(biases))} to {points(max(biases))},"
        f" {points(sum(biases) / len(biases))} on average"
    )
    beside = (
        "The honest columns are on the same rows, from jobs on the same models and no other; they"
        " differ in more than the choice of the epoch: layers, pooling, head, and validation held"
        " out of training."
        if group
        else "No honest job on these rows is in this folder."
    )
    return (
        f"Would be claimed: {percent(claimed)} ({names[best]}{among}); with its epoch chosen on"
        f" other rows, {percent(left)}. Selection bias in points: {spread}. {beside}"
    )


def _honest(record: RunRecord, group: DataGroup | None) -> tuple[str, str]:
    """The layer and the fusion that validation chooses among honest jobs on the same models."""
    if group is None:
        return NONE, NONE
    models = _models(record)
    singles = [job for job in group.singles if _models(job.record) <= models]
    fused = [job for job in group.fused if _models(job.record) <= models]
    names = job_names(group)
    single, fusion = (best_on_validation(jobs) if jobs else None for jobs in (singles, fused))
    return (
        NONE if single is None else _beside(single, single_name(group, single)),
        NONE if fusion is None else _beside(fusion, names[fusion]),
    )


def _beside(job: Job, name: str) -> str:
    test = job.record.test["accuracy"]
    return f"{_figure(test)}, {name}"


def _figure(test: Estimate) -> str:
    known = "" if test.low is None else f" {interval(test.low, test.high)}"
    return f"{mean_sd(test)}{known}"


def _points(bias: Estimate) -> str:
    text = points(bias.mean) + ("" if bias.sd is None else f" ± {100 * bias.sd:.1f}")
    if bias.low is None or bias.high is None:
        return text
    return f"{text} [{points(bias.low)},{SPACE}{points(bias.high)}]"


def _models(record: RunRecord) -> set[object]:
    """What the models' files are, whatever they are called; a lexical source is none."""
    return {backbone.spec.get("model") for backbone in record.backbones.values()}


def _names(records: Sequence[RunRecord]) -> list[str]:
    plain = [_name(record) for record in records]
    seen = Counter(plain)
    return [
        name if seen[name] == 1 else f"{name} (job {record.job[:6]})"
        for name, record in zip(plain, records, strict=True)
    ]


def _name(record: RunRecord) -> str:
    models = listing(record.backbone_names)
    if len(record.layers) == 1:
        return f"Last layer of {models}"
    operator = record.fusion.removeprefix("published_").capitalize()
    residual = ", residual," if record.published and record.published.residual else ""
    return f"{operator}{residual} of {models}"


def _order(record: RunRecord) -> tuple[object, ...]:
    data = record.dataset
    operator = PUBLISHED_OPERATORS.index(record.fusion)
    models = len(record.layers), record.backbone_names
    residual = bool(record.published and record.published.residual)
    return data.name, data.fingerprint, *models, operator, residual, record.job


def _job(label: str, what: str, record: RunRecord) -> Row:
    specs = ", ".join(backbone.spec_hash for backbone in record.backbones.values())
    return Row((label, what, record.job, record.created, record.dataset.fingerprint, specs))
