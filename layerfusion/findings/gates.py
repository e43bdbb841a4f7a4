"""Which gates of a fusion are worth a look: the largest, and the classes whose gates differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from layerfusion.findings.grouping import grouped
from layerfusion.findings.jobs import FinishedJob
from layerfusion.records.gates import ClassGates, GateRecord, GateText
from layerfusion.records.job import LayerRecord

MOST_CLASSES, MOST_SOURCES = 8, 12
"""Classes and sources that are shown. The record has all of them."""


@dataclass(frozen=True, eq=False)
class GateDetails:
    """The gates of a job by class, by epoch and at both ends, of the sources that are shown."""

    job: FinishedJob
    record: GateRecord

    @cached_property
    def sources(self) -> list[int]:
        """Places of the sources in the order of the selection."""
        return leading_sources(self.job.record.layers)

    @property
    def layers(self) -> list[LayerRecord]:
        """The sources."""
        return [self.job.record.layers[k] for k in self.sources]

    @cached_property
    def classes(self) -> list[ClassGates]:
        """The classes or labels that are shown, with the gates of all sources."""
        return telling_classes(self.record.classes, self.job.record.layers)

    @property
    def by_class(self) -> np.ndarray:
        """Mean gates over the rows of each class. Shape: (sources, classes)."""
        return np.array([[x.gates[k] for x in self.classes] for k in self.sources])

    @property
    def by_epoch(self) -> np.ndarray:
        """Mean gates over validation rows. Shape: (epochs, sources)."""
        return np.array(self.record.epochs)[:, self.sources]

    @property
    def texts(self) -> list[tuple[LayerRecord, str, GateText]]:
        """The texts with the highest, and with the lowest, gates of each source."""
        return [
            (layer, end, text)
            for layer, k in zip(self.layers, self.sources, strict=True)
            for end, texts in (("highest", self.record.highest), ("lowest", self.record.lowest))
            for text in texts[k]
        ]


def runs_of(layers: Sequence[LayerRecord]) -> list[list[LayerRecord]]:
    """Group layers by model and pooling, as they first occur, each from the bottom up."""
    models = list(dict.fromkeys(layer.backbone for layer in layers))
    poolings = list(dict.fromkeys(layer.pooling for layer in layers))
    found = grouped(
        layers, lambda layer: (models.index(layer.backbone), poolings.index(layer.pooling))
    )
    height = {"norm": math.inf}
    return [
        sorted(found[key], key=lambda layer: height.get(layer.layer) or float(layer.layer))
        for key in sorted(found)
    ]


def leading_sources(layers: Sequence[LayerRecord]) -> list[int]:
    """Find the places of the sources with the largest mean gates, in the order of the selection."""
    return _largest([layer.mean_gate or 0.0 for layer in layers], MOST_SOURCES)


def telling_classes(
    classes: Sequence[ClassGates], layers: Sequence[LayerRecord]
) -> list[ClassGates]:
    """Find the classes whose gates differ most from the mean, in the order of the labels.

    A difference is weighted by the root of the number of rows, since few rows may differ by chance.
    """
    mean = np.array([layer.mean_gate or 0.0 for layer in layers])
    tells = [np.abs(np.array(x.gates) - mean).max() * np.sqrt(x.rows) for x in classes]
    return [classes[place] for place in _largest(tells, MOST_CLASSES)]


def _largest(values: Sequence[float], most: int) -> list[int]:
    """Find the places of the largest values, in order of place."""
    return sorted(np.argsort(np.negative(values), kind="stable")[:most].tolist())
