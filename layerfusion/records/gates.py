"""What a fusion leans on: its gates by class, at both ends, and by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

EXAMPLES = 3
"""Texts shown of each end of a gate."""
LONGEST = 160
"""Characters of a text that are kept."""
_DIGITS = 6


@dataclass(frozen=True)
class GateText:
    """A test text and the gate that a source has for it."""

    row: int
    text: str
    """Its first characters, white space made plain."""
    label: str
    gate: float
    """Mean over the seeds."""


@dataclass(frozen=True)
class ClassGates:
    """The gates of the test rows of one class."""

    label: str
    rows: int
    gates: list[float]
    """Of each source, mean over rows and seeds."""


@dataclass(frozen=True)
class GateRecord:
    """The gates of a job, its sources in the order of the selection."""

    classes: list[ClassGates]
    """Of every class that test has."""
    highest: list[list[GateText]]
    """Of each source the texts with the highest gates; none where all texts have the same."""
    lowest: list[list[GateText]]
    """Those with the lowest, the very lowest first."""
    epochs: list[list[float]] = field(default_factory=list)
    """Of each epoch and source, mean over validation rows and seeds, for as many epochs as all
    seeds trained; none where the head is not trained in epochs."""


def gate_record(
    gates: np.ndarray,
    target: np.ndarray,
    texts: Sequence[str],
    label_names: Sequence[str],
    epochs: Sequence[Sequence[Sequence[float]]] = (),
) -> GateRecord:
    """Sum the gates of a job's test rows up.

    Args:
        gates: of each test row, mean over the seeds. Shape: (rows, sources).
        target: class indices. Shape: (rows,).
        texts: of the test rows.
        label_names: names of the classes.
        epochs: of each seed and epoch, the mean gate of each source.
    """
    rows_of = {label: np.flatnonzero(target == index) for index, label in enumerate(label_names)}
    orders = [np.argsort(own, kind="stable").tolist() for own in gates.T]

    def shown(source: int, rows: Sequence[int]) -> list[GateText]:
        return [
            GateText(
                row,
                clipped(texts[row]),
                label_names[int(target[row])],
                round(float(gates[row, source]), _DIGITS),
            )
            for row in rows
        ]

    varies = [float(own.max() - own.min()) > 10**-_DIGITS for own in gates.T]
    return GateRecord(
        [
            ClassGates(label, len(rows), _rounded(gates[rows].mean(axis=0)))
            for label, rows in rows_of.items()
            if len(rows)
        ],
        [shown(k, order[::-1][:EXAMPLES]) if varies[k] else [] for k, order in enumerate(orders)],
        [shown(k, order[:EXAMPLES]) if varies[k] else [] for k, order in enumerate(orders)],
        _mean_epochs(epochs),
    )


def clipped(text: str) -> str:
    """A text's first characters in one line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1].rstrip()}…"


def _mean_epochs(epochs: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    shared = min(map(len, epochs), default=0)
    return [_rounded(np.mean([seed[epoch] for seed in epochs], axis=0)) for epoch in range(shared)]


def _rounded(gates: np.ndarray) -> list[float]:
    return [round(float(gate), _DIGITS) for gate in gates]
