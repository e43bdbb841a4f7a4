"""Tables as lines for a terminal."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Collection, Sequence

from layerfusion.report.format import SPACE
from layerfusion.report.sentences import shortened
from layerfusion.report.table import Cell, Column, Table

WIDE, NARROW = 100, 60
"""Most and fewest characters of a line."""


def width() -> int:
    """Return the characters of a line: those of the terminal, if it has one, within bounds."""
    columns = shutil.get_terminal_size((WIDE, 24)).columns
    return max(NARROW, min(WIDE, columns))


def table_lines(
    table: Table, *, leave_out: Collection[str] = (), first: int = 30, gap: str = "  "
) -> list[str]:
    """Align the cells of a table under its headings, below its title.

    Columns that have no room are shown below the others, beside the first column again.

    Args:
        table: what to show; a table without rows has no lines.
        leave_out: headings of columns to leave out.
        first: widest that the cells of a column of texts may be, in characters.
        gap: what stands between two columns.
    """
    if not table.rows:
        return []
    columns = [
        _column(column, [row.cells[n] for row in table.rows], first)
        for n, column in enumerate(table.columns)
        if column.title not in leave_out
    ]
    lines = wrapped(table.title)
    while len(columns) > 1:
        room, taken = width() - len(columns[0][0]), 1
        while taken < len(columns) and room >= len(gap) + len(columns[taken][0]):
            room -= len(gap) + len(columns[taken][0])
            taken += 1
        depth = max(map(len, columns[:taken]))
        # Empty lines stand above the headings that are shorter than others.
        shown = [[" " * len(x[0])] * (depth - len(x)) + x for x in columns[:taken]]
        lines += [gap.join(texts).rstrip() for texts in zip(*shown, strict=True)]
        columns = [columns[0], *columns[max(taken, 2) :]]
    return lines


def _column(column: Column, cells: Sequence[Cell], most: int) -> list[str]:
    """Write the lines of a column, all of one width: its heading in several lines, and its cells.

    A heading is broken at its spaces, so that columns stay narrow.
    """
    marked = any(cell.mark for cell in cells)
    texts = [cell.text.replace(SPACE, " ") for cell in cells]
    if column.numeric:
        pairs = zip(texts, cells, strict=True)
        texts = [text + "  " * (marked and not cell.mark) for text, cell in pairs]
    else:
        texts = [shortened(text, most) for text in texts]
    title = shortened(column.title, 40)
    broad = max(len(text) for text in [*texts, *re.split(r"(?<=-)| ", title)])
    lines = [*(textwrap.wrap(title, broad) or [""]), *texts]
    return [line.rjust(broad) if column.numeric else line.ljust(broad) for line in lines]


def wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines that fit a terminal."""
    return textwrap.wrap(
        text.replace(SPACE, " "), width(), initial_indent=first, subsequent_indent=rest
    )
