"""Facts that only a job under the published protocol leaves in its record."""

from __future__ import annotations

from dataclasses import dataclass

from layerfusion.records.job import RunRecord


@dataclass(frozen=True)
class PublishedRecord:
    """Facts of a job under `protocol=as_published`; they lie in `RunRecord.protocol_facts`."""

    residual: bool
    """True if the operator was used in its residual form."""
    padding: dict[str, float]
    """Backbone to the share of the positions in its means that are padding."""
    epochs: int
    halvings: int
    """Random halvings of test behind `split_half_accuracy`."""
    test_accuracy_by_epoch: list[list[float]]
    """Test accuracy by seed and epoch. Published scripts report the maximum."""


def published_facts(record: RunRecord) -> PublishedRecord | None:
    """Read the facts of a record; None where it was made under another protocol."""
    return PublishedRecord(**record.protocol_facts) if record.protocol_facts else None
