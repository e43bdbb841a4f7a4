"""Colours of the figures. The page replaces them by variables, so that they follow its theme."""

from __future__ import annotations

from collections.abc import Sequence

# Okabe and Ito's colours, told apart by colour-blind readers; without black and yellow, which
# vanish on a dark or a light ground.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of lines and bars, in the order in which they are given out."""
INK, MUTED, GRID, PAPER = "#1f2328", "#666c75", "#dfe2e6", "#fffffe"


def model_colors(models: Sequence[str]) -> dict[str, str]:
    """Map each model to its colour, the same in all figures of a report."""
    return {name: SERIES[place % len(SERIES)] for place, name in enumerate(models)}
