"""Block on the cost of models and heads."""

from __future__ import annotations

from collections.abc import Mapping

from layerfusion.findings.costs import latency, model_costs
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.shown import comparisons
from layerfusion.findings.tests import Findings
from layerfusion.records.job import LATENCY_BATCH, BackboneRecord
from layerfusion.report.block import Block
from layerfusion.report.format import COUNT, NAME, NONE, SPACE, Format, decimals
from layerfusion.report.sentences import percent
from layerfusion.report.table import Cell, Column, Table

BATCH = f"ms, batch of {LATENCY_BATCH}"
FEW = Format(lambda value: f"<{SPACE}0.01" if value < 0.01 else f"{value:.2f}", 100)
TENTHS, GIGA, MEGA, MB = decimals(1), decimals(1, 1e-9), decimals(1, 1e-6), decimals(0, 1e-6)
HEAD_FLOPS = Column(
    "Head MFLOPs a text", lambda job: job.record.cost.head_flops, decimals(3, 1e-6), later=True
)
TRAINING = Column("Training seconds", lambda job: job.record.cost.train_seconds, TENTHS, later=True)


def cost_block(group: DataGroup, findings: Findings) -> Block:
    """List the costs of the models and of the heads."""
    rows = comparisons(group, findings)
    names = {row.job: row.name for row in rows if row.job is not None}
    return Block("What it costs", (model_cost_table(group), head_cost_table(names)), folded=True)


def model_cost_table(group: DataGroup) -> Table:
    """List the costs of each model up to the highest layer of any job, and up to the chosen."""
    entries = model_costs(group)

    def share(part: int, whole: int, record: BackboneRecord) -> Cell:
        if record.is_given:
            return Cell(None)
        return Cell(part, note=f"({percent(part / whole)})" if part else "")

    elsewhere = (
        " Where no operations stand, the vectors were computed elsewhere, so that their cost is not"
        " measured; the time is that of the answers of a server or a pipeline to several texts."
    )
    read = "Tokens unknown: those in whose place the model reads the token for unknown text. "
    return Table(
        "Models",
        entries,
        Column("Model", lambda x: x.name),
        Column(
            "Up to layer", lambda x: Cell(x.record.highest_layer, note="(chosen)" * x.chosen), NAME
        ),
        Column("Texts", lambda x: x.record.texts, COUNT, later=True),
        Column("Tokens", lambda x: x.tokens, COUNT, later=True),
        Column("Texts cut", lambda x: share(x.record.cut_texts, x.record.texts, x.record), COUNT),
        Column(
            "Tokens cut",
            lambda x: share(x.record.cut_tokens, x.record.tokens + x.record.cut_tokens, x.record),
            COUNT,
        ),
        Column("Tokens unknown %", lambda x: x.unknown or None, FEW, optional=True),
        Column("Parameters, M", lambda x: x.record.parameters, MEGA),
        Column("GFLOPs a text", lambda x: x.record.flops_per_text, GIGA),
        Column("ms a text, extracting", lambda x: x.milliseconds, TENTHS),
        Column("ms, one text", lambda x: x.record.milliseconds_one, TENTHS),
        Column(BATCH, lambda x: x.record.milliseconds_batch, TENTHS),
        Column("Extraction, min", lambda x: x.minutes, TENTHS, later=True),
        Column("MB stored", lambda x: x.record.store_bytes, MEGA, later=True),
        note=f"Over all splits. {read * any(x.unknown for x in entries)}"
        "Parameters count the embeddings of tokens and the blocks up to the named layer,"
        " operations the blocks: a model whose chosen layer lies low can be cut there. Extracting:"
        " the pass that took all layers, in large batches. One text and batch: up to the named"
        " layer, texts of middling length. All times are of the machine that measured them;"
        f" {NONE}: not measured." + elsewhere * any(x.record.is_given for x in entries),
        mark=lambda x: "chosen" if x.chosen else "",
    )


def head_cost_table(names: Mapping[FinishedJob, str]) -> Table:
    """List what named jobs cost beyond their models, which they share through the store."""
    return Table(
        "Heads",
        list(names),
        Column("What", names.get),
        Column("Sources", lambda job: job.sources, COUNT),
        Column("GFLOPs a text", lambda job: job.flops, GIGA),
        Column("Head parameters", lambda job: job.record.cost.head_parameters, COUNT),
        HEAD_FLOPS,
        Column("ms, one text", latency, TENTHS),
        Column(BATCH, lambda job: latency(job, batch=True), TENTHS),
        TRAINING,
        Column("Peak memory, MB", lambda job: job.record.cost.peak_memory_bytes, MB, later=True),
        note="Operations are those of all models that the job needs, each up to its highest layer;"
        " a head's are two for each entry of its matrix products. Milliseconds are those of all"
        f" models, one after another, and the head; {NONE}: not measured. Training is over all"
        " seeds, from the store. Peak memory is that of the process while the job ran, including"
        " what earlier jobs left in it and, if the job extracted embeddings, the model. Outside"
        " Linux it is that of the process so far.",
    )
