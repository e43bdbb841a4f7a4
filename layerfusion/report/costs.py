"""What models and heads cost, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from layerfusion.embeddings.shape import BATCH
from layerfusion.records.job import BackboneRecord
from layerfusion.report.compare import best_on_validation
from layerfusion.report.jobs import Job
from layerfusion.report.load import DataGroup
from layerfusion.report.names import NONE, count, mega, percent
from layerfusion.report.tables import Column, Comparison, Row, Table


def model_cost_table(group: DataGroup) -> Table:
    """What the models cost: up to the highest layer that any job used, and up to the chosen."""
    rows = []
    for backbone in sorted({name for job in group.jobs for name in job.record.backbone_names}):
        jobs = [job for job in group.jobs if backbone in job.record.backbone_names]
        records = [job.record.backbones[backbone] for job in jobs]
        whole = max(records, key=lambda r: (r.layers.index(r.highest_layer), r.store_bytes))
        rows.append(_model_row(backbone, whole, ""))
        curves = [curve for curve in group.curves if curve.backbone == backbone]
        if curves:
            best = best_on_validation([curve.best for curve in curves])
            cut = best.record.backbones[backbone]
            if cut.highest_layer != whole.highest_layer:
                rows.append(_model_row(backbone, cut, " (chosen)"))
    return Table(
        "Models",
        (
            Column("Model", numeric=False),
            Column("Up to layer"),
            Column("Texts"),
            Column("Tokens"),
            Column("Texts cut"),
            Column("Tokens cut"),
            Column("Parameters, M"),
            Column("GFLOPs a text"),
            Column("ms a text, extracting"),
            Column("ms, one text"),
            Column(f"ms, batch of {BATCH}"),
            Column("Extraction, min"),
            Column("MB stored"),
        ),
        tuple(rows),
        "Over all splits. Parameters and operations count the embeddings and the blocks up to the"
        " named layer: a model whose chosen layer lies low can be cut there. Extracting: the pass"
        " that took all layers, in large batches. One text and batch: up to the named layer, texts"
        f" of middling length. All on the machine that made them; {NONE}: not measured.",
    )


def _model_row(name: str, record: BackboneRecord, suffix: str) -> Row:
    milliseconds = record.milliseconds_per_text
    return Row(
        (
            name,
            f"{record.highest_layer}{suffix}",
            count(record.texts),
            count(record.tokens),
            _share(record.cut_texts, record.texts),
            _share(record.cut_tokens, record.tokens + record.cut_tokens),
            f"{record.parameters / 1e6:,.1f}",
            f"{record.flops_per_text / 1e9:,.1f}",
            NONE if suffix else _optional(milliseconds),
            _optional(record.milliseconds_one),
            _optional(record.milliseconds_batch),
            NONE if suffix or milliseconds is None else f"{milliseconds * record.texts / 6e4:,.1f}",
            f"{record.store_bytes / 1e6:,.1f}",
        ),
        "chosen" if suffix else "",
    )


def _optional(milliseconds: float | None) -> str:
    return NONE if milliseconds is None else f"{milliseconds:,.1f}"


def _total(parts: Sequence[float | None]) -> float | None:
    """The sum; none where a part is not known."""
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _share(part: int, whole: int) -> str:
    return "0" if part == 0 else f"{count(part)} ({percent(part / whole)})"


def job_cost_table(rows: Sequence[Comparison]) -> Table:
    """What the jobs cost beyond their models, which they share through the store."""
    return Table(
        "Heads",
        (
            Column("What", numeric=False),
            Column("K"),
            Column("GFLOPs a text"),
            Column("Head parameters"),
            Column("Head MFLOPs a text"),
            Column("ms, one text"),
            Column(f"ms, batch of {BATCH}"),
            Column("Training seconds"),
            Column("Peak memory, MB"),
        ),
        tuple(_job_cost_row(row.name, row.job) for row in rows if row.job is not None),
        "Operations are those of all models that the job needs, each up to its highest layer; those"
        " of a head are two for each entry of its products. Milliseconds are those of all models,"
        f" one after another, and the head; {NONE}: not measured. Training is over all seeds, from"
        " the store. Peak memory is the process's while the job ran, with what earlier jobs left in"
        " it and, where the job extracted, the model; outside Linux, the process's so far.",
    )


def _job_cost_row(name: str, job: Job) -> Row:
    record, cost = job.record, job.record.cost
    models = [record.backbones[name] for name in record.backbone_names]
    flops = sum(model.flops_per_text for model in models)
    return Row(
        (
            name,
            count(job.sources),
            f"{flops / 1e9:,.1f}",
            count(record.cost.head_parameters),
            mega(record.cost.head_flops),
            _optional(_total([*(one.milliseconds_one for one in models), cost.head_milliseconds])),
            _optional(
                _total([*(one.milliseconds_batch for one in models), cost.head_milliseconds_batch])
            ),
            f"{record.cost.train_seconds:,.1f}",
            f"{record.cost.peak_memory_bytes / 1e6:,.0f}",
        )
    )
