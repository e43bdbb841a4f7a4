"""Which gates of a fusion are worth a look: the largest, and the classes whose gates differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerfusion.records.gates import ClassGates
from layerfusion.records.job import LayerRecord

MOST_CLASSES, MOST_SOURCES = 8, 12
"""Classes and sources that are shown. The record has all of them."""


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
