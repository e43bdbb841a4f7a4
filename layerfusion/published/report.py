"""The section of the report that holds published claims against honest figures.

Records made under `protocol=as_published` are shown here and nowhere else: they enter no honest
table, figure, test or sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from layerfusion.findings.compare import best_chosen
from layerfusion.findings.grouping import data_labels
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.names import job_names, single_name
from layerfusion.findings.results import Results
from layerfusion.published.record import published_facts
from layerfusion.published.settings import AS_PUBLISHED, PUBLISHED_BATCH, PUBLISHED_OPERATORS
from layerfusion.records.format import listing
from layerfusion.records.job import RunRecord
from layerfusion.report.block import Block, Folded
from layerfusion.report.format import COUNT, PERCENT, POINTS
from layerfusion.report.sentences import percent
from layerfusion.report.table import Cell, Column, Table


def published_sections(results: Results) -> list[Block]:
    """Compare each published claim with the honest jobs on the same rows and models.

    Args:
        results: the jobs under a folder, of both protocols.

    Returns:
        One section, or none where no job followed the published protocol.
    """
    records = [record for _, record in results.jobs if record.protocol == AS_PUBLISHED]
    if not records:
        return []
    honest = {group.data.fingerprint: group for group in results.groups}
    by_data: dict[tuple[str, str], list[RunRecord]] = {}
    for record in sorted(records, key=_order):
        by_data.setdefault((record.dataset.name, record.dataset.fingerprint), []).append(record)
    labels = data_labels(by_data)
    tables, jobs = [], []
    for (name, fingerprint), rows in by_data.items():
        group = honest.get(fingerprint)
        label = group.label if group else labels[name, fingerprint]
        names = _names(rows)
        tables.append(_table(label, rows, names, group))
        jobs += [(label, what, record) for record, what in zip(rows, names, strict=True)]
    parts = (*_intro(records), *tables, Folded((_job_table(jobs),)))
    return [Block("Published against honest", parts, "published")]


def _intro(records: Sequence[RunRecord]) -> tuple[str, str]:
    made = [facts for record in records if (facts := published_facts(record)) is not None]
    epochs, halvings = made[0].epochs, made[0].halvings
    return (
        "These are not results. They are what scripts published for this method would report on"
        " the same rows, so that the claim can be compared with what is true. The last hidden state"
        f" is averaged over all positions of a batch of {PUBLISHED_BATCH}, padding included;"
        " nothing is standardised; train and validation are trained on together; and the figure"
        f" reported is the best test accuracy over {epochs} epochs. None of it enters another"
        " table, figure, test or sentence of this page.",
        "Selection bias: the accuracy that would be claimed, less that of an epoch chosen on one"
        f" random half of the test rows and judged on the other ({halvings} stratified halvings,"
        " both directions, averaged). It is what the choice owes to having seen the rows that it"
        " is judged on. A half chooses a little worse than all rows would, so the bias is estimated"
        " a little too high. Mean ± standard deviation over seeds; in square brackets 95 %"
        " bootstrap intervals over test rows, drawn class by class, where a job recorded them. They"
        " take the epochs as they were chosen: they show the chance in the rows, not the bias of"
        " choosing on them.",
    )


# -- tables -------------------------------------------------------------------------------------


def _table(
    label: str, records: Sequence[RunRecord], names: Sequence[str], group: DataGroup | None
) -> Table:
    def test(name: str) -> Column:
        title, form = TITLES[name]
        return Column(title, lambda entry: entry[1].test[name], form)

    def padding(record: RunRecord) -> str:
        facts = published_facts(record)
        shares = facts.padding.values() if facts else ()
        return ", ".join(f"{100 * share:.0f}" for share in shares)

    entries = [
        (name, record, _honest(record, group)) for name, record in zip(names, records, strict=True)
    ]
    return Table(
        f"{label}: published against honest",
        entries,
        Column("What", lambda entry: entry[0]),
        *map(test, TITLES),
        Column("Padding in the mean %", lambda entry: padding(entry[1]), COUNT),
        Column("Seeds", lambda entry: len(entry[1].seeds), COUNT),
        Column("Honest: layer that is chosen %", lambda e: e[2][0], PERCENT),
        Column("Honest: fusion that is chosen %", lambda e: e[2][1], PERCENT),
        note=_note(records, names, group),
    )


TITLES = {
    "claimed_accuracy": ("Would be claimed %", PERCENT),
    "last_epoch_accuracy": ("Last epoch %", PERCENT),
    "split_half_accuracy": ("Epoch chosen on other rows %", PERCENT),
    "selection_bias": ("Selection bias, points", POINTS),
}
"""Figures of a record to their headings and formats."""


def _job_table(jobs: Sequence[tuple[str, str, RunRecord]]) -> Table:
    def specs(record: RunRecord) -> str:
        return ", ".join(backbone.spec_hash for backbone in record.backbones.values())

    return Table(
        "Jobs as published",
        jobs,
        Column("Data set", lambda entry: entry[0]),
        Column("What", lambda entry: entry[1]),
        Column("Job", lambda entry: entry[2].job),
        Column("Made", lambda entry: entry[2].created),
        Column("Fingerprint", lambda entry: entry[2].dataset.fingerprint),
        Column("Spec hashes", lambda entry: specs(entry[2])),
    )


def _note(records: Sequence[RunRecord], names: Sequence[str], group: DataGroup | None) -> str:
    best = max(range(len(records)), key=lambda n: records[n].test["claimed_accuracy"].mean)
    claimed, left = (
        records[best].test[name].mean for name in ("claimed_accuracy", "split_half_accuracy")
    )
    biases = [record.test["selection_bias"].mean for record in records]
    among = f", the best of {len(records)} rows" if len(records) > 1 else ""
    spread = (
        POINTS(biases[0])
        if len(biases) == 1
        else f"{POINTS(min(biases))} to {POINTS(max(biases))},"
        f" {POINTS(sum(biases) / len(biases))} on average"
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


def _honest(record: RunRecord, group: DataGroup | None) -> tuple[Cell, Cell]:
    """Find the layer and the fusion that are chosen among honest jobs on these models."""
    if group is None:
        return Cell(), Cell()
    models = _models(record)
    singles = [job for job in group.singles if _models(job.record) <= models]
    fused = [job for job in group.fused if _models(job.record) <= models]
    names = {job: single_name(group, job) for job in singles} | job_names(group)
    layer, fusion = (
        Cell.of(best.record.test["accuracy"], note=names[best])
        if jobs and (best := best_chosen(jobs))
        else Cell()
        for jobs in (singles, fused)
    )
    return layer, fusion


def _models(record: RunRecord) -> set[object]:
    """Identify the models by their files, whatever their names; a lexical source has none."""
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
    facts = published_facts(record)
    residual = ", residual," if facts and facts.residual else ""
    return f"{operator}{residual} of {models}"


def _order(record: RunRecord) -> tuple[object, ...]:
    data = record.dataset
    operator = PUBLISHED_OPERATORS.index(record.fusion)
    models = len(record.layers), record.backbone_names
    facts = published_facts(record)
    residual = bool(facts and facts.residual)
    return data.name, data.fingerprint, *models, operator, residual, record.job
