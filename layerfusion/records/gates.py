"""The gates of a fusion: how much it relies on each source, by class, by text and by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerfusion.records.label_words import NO_LABEL, label_words

if TYPE_CHECKING:
    import numpy as np

EXAMPLES = 3
"""Number of texts kept for the highest, and for the lowest, gates of a source."""
LONGEST = 160
"""Maximum length of a kept text, in characters."""
_DIGITS = 6


@dataclass(frozen=True)
class GateText:
    """A test text and the gate of one source for it."""

    row: int
    text: str
    """The start of the text on one line, its white space collapsed."""
    label: str
    gate: float
    """Mean gate over the seeds."""


@dataclass(frozen=True)
class ClassGates:
    """Mean gates over the test rows of one class, or of all with a label or without any."""

    label: str
    rows: int
    gates: list[float]
    """One gate for each source, averaged over rows and seeds."""


@dataclass(frozen=True)
class GateRecord:
    """The gates of a job. Its sources come in the order of the selection."""

    classes: list[ClassGates]
    """One entry for each class or label that occurs in test."""
    highest: list[list[GateText]]
    """For each source, the texts with the highest gates; empty if all texts have the same gate."""
    lowest: list[list[GateText]]
    """For each source, the texts with the lowest gates, lowest first."""
    epochs: list[list[float]] = field(default_factory=list)
    """Mean gate of each epoch and source over validation rows and seeds. It covers the epochs that
    all seeds trained, and is empty if the head is not trained in epochs."""

    def fits(self, sources: int) -> bool:
        """Tell whether there are classes, and every list has one entry for each source."""
        lists = [*(one.gates for one in self.classes), *self.epochs, self.highest, self.lowest]
        return bool(self.classes) and all(len(one) == sources for one in lists)


def gate_record(
    gates: np.ndarray,
    target: np.ndarray,
    texts: Sequence[str],
    label_names: Sequence[str],
    epochs: Sequence[Sequence[Sequence[float]]] = (),
) -> GateRecord:
    """Summarise the gates of a job's test rows.

    Args:
        gates: gates of each test row, averaged over the seeds. Shape: (rows, sources).
        target: class indices, shape (rows,), or true where a text has a label, shape (rows,
            labels). A text counts with each of its labels; texts without any are one more class.
        texts: the test texts.
        label_names: names of the classes.
        epochs: mean gate of each source, for each seed and epoch.
    """
    import numpy as np  # imported here, so that the help of a command does not load it

    has = target if target.ndim == 2 else target[:, None] == np.arange(len(label_names))
    has = np.column_stack([has, ~has.any(axis=1)])
    rows_of = zip((*label_names, NO_LABEL), map(np.flatnonzero, has.T), strict=True)
    orders = [np.argsort(own, kind="stable").tolist() for own in gates.T]

    def shown(source: int, rows: Sequence[int]) -> list[GateText]:
        return [
            GateText(
                row,
                clipped(texts[row]),
                label_words(label_names, target[row]),
                round(float(gates[row, source]), _DIGITS),
            )
            for row in rows
        ]

    varies = [float(own.max() - own.min()) > 10**-_DIGITS for own in gates.T]
    return GateRecord(
        [
            ClassGates(label, len(rows), _rounded(gates[rows].mean(axis=0)))
            for label, rows in rows_of
            if len(rows)
        ],
        [shown(k, order[::-1][:EXAMPLES]) if varies[k] else [] for k, order in enumerate(orders)],
        [shown(k, order[:EXAMPLES]) if varies[k] else [] for k, order in enumerate(orders)],
        _mean_epochs(epochs),
    )


def clipped(text: str) -> str:
    """Return the start of a text on one line, at most `LONGEST` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1].rstrip()}…"


def _mean_epochs(epochs: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    import numpy as np

    shared = min(map(len, epochs), default=0)
    return [_rounded(np.mean([seed[epoch] for seed in epochs], axis=0)) for epoch in range(shared)]


def _rounded(gates: np.ndarray) -> list[float]:
    return [round(float(gate), _DIGITS) for gate in gates]
