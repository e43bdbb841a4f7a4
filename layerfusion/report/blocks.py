"""Parts of a section that appear where there are jobs for them."""

from __future__ import annotations

from dataclasses import dataclass

from layerfusion.report.canvas import Drawing
from layerfusion.report.tables import Table


@dataclass(frozen=True)
class Block:
    """A heading with figures and tables under it."""

    title: str
    text: str
    figures: tuple[Drawing, ...]
    tables: tuple[Table, ...]
    folded: tuple[Table, ...] = ()
    """Tables that a reader has to open."""
    lines: tuple[str, ...] = ()
    """Sentences below the figures, one each."""
