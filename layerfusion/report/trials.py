"""Samples of one data set that are judged on the same test rows: draws of so many rows a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerfusion.report.load import DataGroup

Size = int | None
"""Rows drawn of each class; none: all there are."""


@dataclass(frozen=True, eq=False)
class Trial:
    """All samples of a data set that are judged on the same test rows."""

    label: str
    key: str
    groups: tuple[DataGroup, ...]

    @property
    def sizes(self) -> list[Size]:
        """Rows a class that there are samples of, all rows last."""
        found = {group.data.per_class for group in self.groups}
        return sorted(found, key=lambda size: (size is None, size or 0))

    def rows(self, size: Size) -> float:
        """Mean rows a class of samples of a size."""
        data = [group.data for group in self.groups if group.data.per_class == size]
        learned = [one.rows["train"] + one.rows["validation"] for one in data]
        return float(np.mean(learned)) / len(data[0].label_names)


def trials(groups: Sequence[DataGroup]) -> tuple[Trial, ...]:
    """Groups that differ in the rows of each class to learn from, and in nothing else."""
    alike: dict[tuple[str, str, str], list[DataGroup]] = {}
    for group in groups:
        if group.data.test_fingerprint:
            protocol = group.jobs[0].record.protocol
            key = (group.data.name, group.data.test_fingerprint, protocol)
            alike.setdefault(key, []).append(group)
    found = []
    for own in alike.values():
        if len({group.data.per_class for group in own}) > 1:
            first = next((g for g in own if g.data.per_class is None), own[0])
            found.append(Trial(own[0].data.name, first.key, tuple(own)))
    return tuple(found)
