"""What models cost up to the highest layer of any job, and up to the chosen one."""

from __future__ import annotations

from dataclasses import dataclass

from layerfusion.findings.compare import best_chosen
from layerfusion.findings.groups import DataGroup
from layerfusion.findings.jobs import FinishedJob
from layerfusion.records.job import BackboneRecord, PilotRecord


@dataclass(frozen=True)
class ModelCost:
    """The cost of a model up to one of its layers."""

    name: str
    record: BackboneRecord
    unknown: float
    """Share of the tokens in whose place the model reads the token for unknown text."""
    chosen: bool = False
    """True up to the layer that is chosen, which is lower than the highest of any job."""

    @property
    def tokens(self) -> int | None:
        """Number of tokens; None where the vectors were computed elsewhere."""
        return None if self.record.is_given else self.record.tokens

    @property
    def milliseconds(self) -> float | None:
        """Milliseconds a text when all layers were extracted; None up to the chosen layer."""
        return None if self.chosen else self.record.milliseconds_per_text

    @property
    def minutes(self) -> float | None:
        """Minutes that extracting all texts took; None up to the chosen layer."""
        return None if self.milliseconds is None else self.milliseconds * self.record.texts / 6e4


def model_costs(group: DataGroup) -> list[ModelCost]:
    """List the cost of each model, by name."""
    found = []
    for name in sorted({name for job in group.jobs for name in job.record.backbone_names}):
        jobs = [job for job in group.jobs if name in job.record.backbone_names]
        records = [job.record.backbones[name] for job in jobs]
        whole = max(records, key=lambda r: (r.layers.index(r.highest_layer), r.store_bytes))
        # All jobs read the same texts, but those of older versions did not count this.
        unknown = max(record.unknown_share or 0.0 for record in records)
        found.append(ModelCost(name, whole, unknown))
        best = [curve.best for curve in group.curves if curve.backbone == name]
        if best:
            cut = best_chosen(best).record.backbones[name]
            if cut.highest_layer != whole.highest_layer:
                found.append(ModelCost(name, cut, unknown, chosen=True))
    return found


def latency(job: FinishedJob, *, batch: bool = False) -> float | None:
    """Add up the milliseconds of all models of a job and of its head; None where one is unknown.

    They are those of one text or, with `batch`, of a batch of texts.
    """
    head, cost = job.record.cost, [job.record.backbones[x] for x in job.record.backbone_names]
    if batch:
        parts = [*(one.milliseconds_batch for one in cost), head.head_milliseconds_batch]
    else:
        parts = [*(one.milliseconds_one for one in cost), head.head_milliseconds]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def saved(pilot: PilotRecord, what: str) -> float | None:
    """Share of the `flops`, `bytes` or `seconds` that a pilot saved; None where it is not known."""
    spent, full = getattr(pilot, what), getattr(pilot, f"{what}_full")
    return None if spent is None or not full else 1 - spent / full
