"""Tables of typed cells. A number stays a number until a renderer shows it.

A table is built from rows, which may be any objects, and from columns. A column is one line: its
heading, what it shows of a row, and how its numbers are written:

    Table("Layers", jobs, Column("Layer", lambda job: job.layer.layer), Column("Test %", accuracy,
          PERCENT), note="Mean ± standard deviation over seeds.")

Whatever a column takes from a row may be a text, a number, nothing, a `Cell`, any object with a
`mean` (and perhaps `sd`, `low` and `high`), such as an `Estimate` of a record, or a comparison,
such as a `Finding`, which is shown as its difference with its mark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from layerfusion.report.format import NONE, SPACE, Format
from layerfusion.report.sentences import bracket

if TYPE_CHECKING:
    import pandas as pd

Mark = Literal["", "chosen", "baseline"]
PARTS = ("value", "sd", "low", "high", "mark", "note", "layers")
"""Parts of a cell. Each part that some cell of a column has is a column of the data frame."""


SPARE = 5
"""Letters added to half of a heading, as its words rarely fill two lines evenly."""
FEW_WORDS = 16
"""Letters of a text that stand in one line; a longer one may take several."""


@dataclass(frozen=True)
class Cell:
    """One entry of a table, in the unit of the record that it comes from."""

    value: float | str | None = None
    sd: float | None = None
    """Standard deviation."""
    low: float | None = None
    high: float | None = None
    """95 % interval."""
    mark: str = ""
    """▲ or ▼ after a difference that a test shows, △ or ▽ where only the correction hides it; ≤
    before a number that is only a bound."""
    note: str = ""
    """Words that belong to the number: `of 7`."""
    format: Format | None = None
    """Format of the number; None for that of the column."""
    layers: str = ""
    """Every layer, where the text has only their number; the page has it as the cell's title."""

    @classmethod
    def of(cls, content: object, *, mark: str = "", note: str = "") -> Cell:
        """Make a cell of a value, of nothing, of an object with a mean, or of a comparison.

        Args:
            content: what to show; a tuple is a mean with the two ends of its interval.
            mark: see `Cell.mark`.
            note: see `Cell.note`.
        """
        if isinstance(content, Cell):
            return content
        if isinstance(content, float) and math.isnan(content):
            content = None  # a share without anything to compute it from
        if content is None or isinstance(content, str | float | int):
            return cls(content, mark=mark, note=note)
        if isinstance(content, tuple):
            mean, low, high = content
            return cls(mean, None, low, high, mark, note)
        if difference := getattr(content, "difference", None):
            return cls.of(difference, mark=getattr(content, "mark", mark), note=note)
        sd, low, high = (getattr(content, name, None) for name in ("sd", "low", "high"))
        mean: Any = getattr(content, "mean")  # noqa: B009
        return cls(mean, sd, low, high, mark, note)

    @property
    def text(self) -> str:
        """The cell as a reader sees it: `86.5 ± 1.6`, `+1.2 [−0.3, +2.7] ▲`, `24 (3.0 %)`."""
        if self.value is None:
            return self.note or NONE
        if isinstance(self.value, str) or self.format is None:
            text = str(self.value)
        else:
            text = self.format(self.value)
            if self.sd is not None:
                text += f"{SPACE}±{SPACE}{self.format(self.sd).lstrip('+')}"
            if self.low is not None and self.high is not None:
                text += f" {bracket(self, self.format)}"
        if self.mark == "≤":
            text = text if text.startswith("<") else f"≤{SPACE}{text}"
        elif self.mark:
            text += f" {self.mark}"
        return f"{text} {self.note}" if self.note else text

    def part(self, name: str) -> float | str | None:
        """One of `PARTS`, numbers in the unit of the column and with all their digits."""
        value = getattr(self, name)
        if value is None or value == "" or isinstance(value, str) or self.format is None:
            return value
        return value if self.format.scale == 1 else self.format.scale * value

    @property
    def order(self) -> float | None:
        """The number that the cell sorts by; none where it holds no number."""
        found = self.part("value")
        return None if isinstance(found, str) else found


@dataclass(frozen=True)
class Column:
    """The heading and the content of a column."""

    title: str
    content: Callable[[Any], object]
    """Takes the cell, or what a cell can be made of, from a row."""
    format: Format | None = None
    """Format of the numbers; a column without a format holds texts and stands to the left."""
    later: bool = False
    """True for what is not needed at first: the page folds it where the table is too wide."""
    optional: bool = False
    """True for what a table leaves out where no row has it."""

    @property
    def numeric(self) -> bool:
        """True for a column that stands to the right."""
        return self.format is not None

    def cell(self, entry: object) -> Cell:
        """The cell of a row."""
        cell = Cell.of(self.content(entry))
        return cell if cell.format is not None else replace(cell, format=self.format)


def cell_text(content: object, format: Format) -> str:
    """Write what a cell of a column with that format would show, for use outside of tables."""
    return Column("", lambda entry: entry, format).cell(content).text


@dataclass(frozen=True)
class Row:
    """The cells of a row, one a column, and what sets the row off."""

    cells: tuple[Cell, ...]
    mark: Mark = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The cells as a reader sees them."""
        return tuple(cell.text for cell in self.cells)


class Table:
    """Rows under columns, with a title and a note on how to read them."""

    kind = "table"

    def __init__(
        self,
        title: str,
        entries: Sequence[Any],
        *columns: Column,
        note: str = "",
        mark: Callable[[Any], Mark] = lambda _: "",
    ) -> None:
        """Keep what the table shows.

        Args:
            title: stands above it.
            entries: one object a row.
            columns: each takes its cells from these objects.
            note: says how to read it.
            mark: says what sets a row off.
        """
        self.title, self.entries, self.note, self.mark = title, entries, note, mark
        self.columns = tuple(
            column
            for column in columns
            if not column.optional or any(column.cell(x).value is not None for x in entries)
        )

    def __bool__(self) -> bool:
        return bool(self.entries)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows with their cells."""
        return tuple(
            Row(tuple(column.cell(entry) for column in self.columns), self.mark(entry))
            for entry in self.entries
        )

    @property
    def is_long(self) -> bool:
        """True where the names of rows, in their first two cells, do not fit beside figures."""
        places = [n for n, column in enumerate(self.columns[:2]) if not column.numeric]
        return any(len(row.texts[n]) > FEW_WORDS for row in self.rows for n in places)

    @property
    def widest_room(self) -> int:
        """The most letters that a column after the first, needed at first, is at least wide."""
        places = (n for n, column in enumerate(self.columns) if n and not column.later)
        return max(map(self.room, places), default=0)

    def room(self, place: int) -> int:
        """Count the letters that a column is at least wide: its heading in two lines.

        A column of texts has room for a text of a few words in one line.
        """
        column = self.columns[place]
        heading = min(len(column.title), len(column.title) // 2 + SPARE)
        texts = [] if column.numeric else [len(row.texts[place]) for row in self.rows]
        return max(heading, min(FEW_WORDS, max(texts, default=0)))

    def frame(self) -> pd.DataFrame:
        """The table as a data frame with typed columns.

        A column of numbers with standard deviations, intervals or marks becomes several: `Test %`,
        `Test %, sd`, `Test %, low`, `Test %, high`, `Test %, mark`. Parts that no cell of a column
        has are left out.
        """
        import pandas as pd

        found = []
        for place, column in enumerate(self.columns):
            cells = [row.cells[place] for row in self.rows]
            for name in PARTS:
                values = [cell.part(name) for cell in cells]
                if name == "value" or any(value not in (None, "") for value in values):
                    title = column.title if name == "value" else f"{column.title}, {name}"
                    found.append(pd.Series(values, name=title, dtype=_dtype(values)))
        return pd.concat(found, axis=1)


def _dtype(values: Sequence[object]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return "Int64"
    return "float64" if kinds and kinds <= {int, float} else "object"
