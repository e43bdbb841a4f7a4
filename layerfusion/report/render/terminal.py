"""Tables as lines for a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Sequence

from layerfusion.report.format import SPACE
from layerfusion.report.sentences import shortened
from layerfusion.report.table import Cell, Column, Table

WIDTH = 100
"""Columns of a terminal."""


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
        room, taken = WIDTH - len(columns[0][0]), 1
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
    width = max(len(text) for text in [*texts, *re.split(r"(?<=-)| ", title)])
    lines = [*(textwrap.wrap(title, width) or [""]), *texts]
    return [line.rjust(width) if column.numeric else line.ljust(width) for line in lines]


def wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    """Break a text into lines that fit a terminal."""
    return textwrap.wrap(
        text.replace(SPACE, " "), WIDTH, initial_indent=first, subsequent_indent=rest
    )
