"""What every reader is told, besides the path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from layerfusion.texts.columns import Columns
from layerfusion.texts.encoding import read_text


@dataclass(frozen=True)
class Reading:
    """Options of a reader, besides the path."""

    columns: Columns
    encoding: str
    skip_rows: Sequence[int]
    """Line numbers (0 = first) of a delimited file that are not data."""

    def text(self, path: Path) -> str:
        """Read a file as a text."""
        return read_text(path, self.encoding, self.columns.encoding_key)
