"""Block on the cost of models and heads."""

from __future__ import annotations

from collections.abc import Sequence

from layerfusion.findings.compare import best_chosen
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.findings.shown import comparisons
from layerfusion.findings.tests import Findings
from layerfusion.records.job import LATENCY_BATCH, BackboneRecord
from layerfusion.report.block import Block
from layerfusion.report.format import COUNT, NAME, NONE, SPACE, Format, decimals, percent
from layerfusion.report.table import Cell, Column, Table

BATCH = f"ms, batch of {LATENCY_BATCH}"
FEW = Format(lambda value: f"<{SPACE}0.01" if value < 0.01 else f"{value:.2f}", 100)
TENTHS, GIGA, MEGA = decimals(1), decimals(1, 1e-9), decimals(1, 1e-6)


def cost_block(group: DataGroup, findings: Findings) -> Block:
    """List the costs of the models and of the heads."""
    rows = comparisons(group, findings)
    jobs = [(row.name, row.job) for row in rows if row.job is not None]
    return Block("What it costs", (model_cost_table(group), head_cost_table(jobs)), folded=True)


def model_cost_table(group: DataGroup) -> Table:
    """List the costs of each model up to the highest layer of any job, and up to the chosen."""
    entries: list[tuple[str, BackboneRecord, bool]] = []
    unknown: dict[str, float] = {}
    for backbone in sorted({name for job in group.jobs for name in job.record.backbone_names}):
        jobs = [job for job in group.jobs if backbone in job.record.backbone_names]
        records = [job.record.backbones[backbone] for job in jobs]
        whole = max(records, key=lambda r: (r.layers.index(r.highest_layer), r.store_bytes))
        # All jobs read the same texts, but those of older versions did not count this.
        unknown[backbone] = max(record.unknown_share or 0.0 for record in records)
        entries.append((backbone, whole, False))
        best = [curve.best for curve in group.curves if curve.backbone == backbone]
        if best:
            cut = best_chosen(best).record.backbones[backbone]
            if cut.highest_layer != whole.highest_layer:
                entries.append((backbone, cut, True))

    def counted(record: BackboneRecord, count: int) -> int | None:
        """Return a number of tokens; None where the vectors were computed elsewhere."""
        return None if record.is_given else count

    def share(part: int, whole: int, record: BackboneRecord) -> Cell:
        if record.is_given:
            return Cell(None)
        return Cell(part, note=f"({percent(part / whole)})" if part else "")

    def extraction(record: BackboneRecord) -> float | None:
        ms = record.milliseconds_per_text
        return None if ms is None else ms * record.texts / 6e4

    few = [Column("Tokens unknown %", lambda e: unknown[e[0]] or None, FEW)]
    few_note = "Tokens unknown: those in whose place the model reads the token for unknown text. "
    elsewhere = (
        " Where no operations stand, the vectors were computed elsewhere, so that their cost is not"
        " measured; the time is that of the answers of a server or a pipeline to several texts."
    )
    some_unknown = any(unknown.values())
    return Table(
        "Models",
        entries,
        Column("Model", lambda e: e[0]),
        Column("Up to layer", lambda e: Cell(e[1].highest_layer, note="(chosen)" * e[2]), NAME),
        Column("Texts", lambda e: e[1].texts, COUNT),
        Column("Tokens", lambda e: counted(e[1], e[1].tokens), COUNT),
        Column("Texts cut", lambda e: share(e[1].cut_texts, e[1].texts, e[1]), COUNT),
        Column(
            "Tokens cut",
            lambda e: share(e[1].cut_tokens, e[1].tokens + e[1].cut_tokens, e[1]),
            COUNT,
        ),
        *(few if some_unknown else ()),
        Column("Parameters, M", lambda e: e[1].parameters, MEGA),
        Column("GFLOPs a text", lambda e: e[1].flops_per_text, GIGA),
        Column(
            "ms a text, extracting", lambda e: None if e[2] else e[1].milliseconds_per_text, TENTHS
        ),
        Column("ms, one text", lambda e: e[1].milliseconds_one, TENTHS),
        Column(BATCH, lambda e: e[1].milliseconds_batch, TENTHS),
        Column("Extraction, min", lambda e: None if e[2] else extraction(e[1]), TENTHS),
        Column("MB stored", lambda e: e[1].store_bytes, MEGA),
        note=(
            "Over all splits. "
            + few_note * some_unknown
            + "Parameters and operations count the embeddings and the blocks up to the"
            " named layer: a model whose chosen layer lies low can be cut there. Extracting: the"
            " pass that took all layers, in large batches. One text and batch: up to the named"
            " layer, texts of middling length. All times are of the machine that measured them;"
            f" {NONE}: not"
            " measured." + elsewhere * any(record.is_given for _, record, _ in entries)
        ),
        mark=lambda e: "chosen" if e[2] else "",
    )


def head_cost_table(jobs: Sequence[tuple[str, FinishedJob]]) -> Table:
    """List what named jobs cost beyond their models, which they share through the store."""

    def latency(job: FinishedJob, model: str, head: str) -> float | None:
        """Add up the latencies of all models and of the head; none where one is not known."""
        backbones = [job.record.backbones[name] for name in job.record.backbone_names]
        parts = [*(getattr(x, model) for x in backbones), getattr(job.record.cost, head)]
        return None if None in parts else sum(parts)

    return Table(
        "Heads",
        jobs,
        Column("What", lambda e: e[0]),
        Column("K", lambda e: e[1].sources, COUNT),
        Column("GFLOPs a text", lambda e: e[1].flops, GIGA),
        Column("Head parameters", lambda e: e[1].record.cost.head_parameters, COUNT),
        Column("Head MFLOPs a text", lambda e: e[1].record.cost.head_flops, decimals(3, 1e-6)),
        Column(
            "ms, one text", lambda e: latency(e[1], "milliseconds_one", "head_milliseconds"), TENTHS
        ),
        Column(
            BATCH, lambda e: latency(e[1], "milliseconds_batch", "head_milliseconds_batch"), TENTHS
        ),
        Column("Training seconds", lambda e: e[1].record.cost.train_seconds, TENTHS),
        Column("Peak memory, MB", lambda e: e[1].record.cost.peak_memory_bytes, decimals(0, 1e-6)),
        note="Operations are those of all models that the job needs, each up to its highest layer;"
        " a head's are two for each entry of its matrix products. Milliseconds are those of all"
        f" models, one after another, and the head; {NONE}: not measured. Training is over all"
        " seeds, from the store. Peak memory is that of the process while the job ran, including"
        " what earlier jobs left in it and, if the job extracted embeddings, the model. Outside"
        " Linux it is that of the process so far.",
    )
