"""Numbers as people write them: the formats of table columns, and short texts for sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from layerfusion.progress import duration

NONE = "–"
"""Stands where there is no number."""
SPACE = "\u00a0"
MINUS = "\u2212"


@dataclass(frozen=True)
class Format:
    """A way to write numbers of one kind.

    A cell holds the number as the record has it, for example the share 0.8123. The format turns it
    into the unit of the column, 81.23 %, and rounds it for readers; CSV files and data frames get
    it in that unit with all its digits.
    """

    write: Callable[[float], str]
    """Writes a number that is already in the unit of the column."""
    scale: float = 1
    """Factor from the record's number to the unit of the column: 100 from shares to per cent."""

    def __call__(self, value: float) -> str:
        """Write a number of a record for a reader."""
        return self.write(value if self.scale == 1 else self.scale * value).replace("-", MINUS)


def decimals(digits: int, scale: float = 1) -> Format:
    """Write numbers with so many decimals, and a comma at each thousand."""
    return Format(lambda value: f"{value:,.{digits}f}", scale)


def _signed(value: float) -> str:
    """Give a difference its sign, and a second decimal where one would round it to nothing."""
    text = f"{value:+.2f}" if 0 < abs(value) < 0.05 else f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text


NAME = Format(str)
"""For columns of short names, such as layers, that stand to the right like numbers."""
COUNT = decimals(0)
PERCENT = decimals(1, 100)
SHARE = decimals(0, 100)
"""Whole per cent."""
GFLOPS = decimals(2, 1e-9)
POINTS = Format(_signed, 100)
"""Percentage points of a difference, with their sign."""
REGRET = Format(lambda value: _signed(value).lstrip("+"), 100)
"""Percentage points of a loss; only those below zero have a sign."""
P_VALUE = Format(lambda p: f"<{SPACE}0.001" if p < 0.001 else f"{p:.3f}")
DURATION = Format(lambda value: f"{value:.1f} s" if value < 90 else duration(value))


def utf8(text: str) -> bytes:
    """Write a text; what is no UTF-8, as in the name of a folder, gets a question mark."""
    return text.encode(errors="replace")
