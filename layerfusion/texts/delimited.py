"""Rows of a delimited text (csv, tsv and the like), with every row of the file accounted for.

A quote that is never closed makes a csv reader take the lines after it for one cell, and the rows
are gone without a word. Here a text is read by the rules of RFC 4180 first. Where its quotes do not
follow them, or where they swallow lines that are rows by themselves, it is read without quoting, or
refused with the number of the row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from layerfusion.errors import UserError

QUOTE = '"'
UNQUOTED_NOTE = "quotation marks are read as part of the text, as they do not enclose whole cells"
BACKSLASH_NOTE = 'quotation marks that follow a backslash (\\") are read as part of the text'
SPACE_NOTE = "spaces between a delimiter and a quotation mark are left out"
RETURN_NOTE = "carriage returns inside rows are read as part of the text"
_FIRST_END = re.compile(r'(?:[^"\r\n]++|"[^"]*+")*+(\r+\n|\r|\n)')
"""The end of the first row; a line break inside of quotation marks is none."""
_SPACED = re.compile(r'[,;\t|] +"')
_RETURN = re.compile(r"\r+(?=[^\r\n])")
"""Carriage returns that end no line."""
csv.field_size_limit(1 << 30)


@dataclass(frozen=True)
class Rows:
    """The rows of a delimited text."""

    names: tuple[str, ...]
    """The columns, as the header names them."""
    cells: list[list[str]]
    """A row of the file each, the header and blank lines left out; as many cells as columns."""
    lines: list[int]
    """The line of the text that each row begins in, counted from 1."""
    note: str | None = None
    """A note on the rules under which the text was read, if they are not the usual ones."""


@dataclass(frozen=True)
class _Fault:
    """Why a text cannot be read under some rules, and where."""

    row: int
    line: int
    reason: str


def read_rows(
    place: str,
    text: str,
    delimiter: str,
    skip_lines: Sequence[int] = (),
    label: str | None = None,
    *,
    headed: bool = True,
) -> Rows:
    """Split a text into rows and cells; nothing is interpreted.

    Args:
        place: the file, for messages.
        text: its content.
        delimiter: what stands between cells.
        skip_lines: numbers (0 = first) of lines that are not data.
        label: the column whose values are few, which tells a swallowed row from a text.
        headed: the first row names the columns; if not, they are called by their numbers, from 1.

    Raises:
        UserError: naming the row: a quote that is never closed, a row with another number of cells
            than the header; for an empty text.
    """
    text = _line_feeds(text)
    lines = _numbered_lines(text, skip_lines)
    if not any(line.strip() for _, line in lines):
        raise UserError(f"{place}: the file is empty")
    quoted = _parse(lines, delimiter, headed=headed)
    if isinstance(quoted, _Fault) and (held := _held_returns(text)) is not None:
        mark, text = held
        rows = read_rows(place, text, delimiter, skip_lines, label, headed=headed)
        names = tuple(name.replace(mark, "\r") for name in rows.names)
        cells = [[cell.replace(mark, "\r") for cell in row] for row in rows.cells]
        note = "; ".join(filter(None, (rows.note, RETURN_NOTE)))
        return Rows(names, cells, rows.lines, note)
    if _SPACED.search(text):
        spaced = _parse(lines, delimiter, headed=headed, spaced=True)
        if isinstance(spaced, Rows) and _is_spaced(quoted):
            quoted = replace(spaced, note=SPACE_NOTE)
    known = _labels(quoted, label) if isinstance(quoted, Rows) else None
    fault = quoted if isinstance(quoted, _Fault) else _swallowed(quoted, lines, delimiter, label)
    if isinstance(quoted, Rows) and fault is None:
        return quoted
    # A quotation mark after a backslash ends a cell by the usual rules, which seldom fits.
    if f"\\{QUOTE}" in text and isinstance(quoted, _Fault):
        escaped = _parse(lines, delimiter, headed=headed, escape="\\")
        if isinstance(escaped, Rows) and _swallowed(escaped, lines, delimiter, label) is None:
            return replace(escaped, note=BACKSLASH_NOTE)
    plain = _parse(lines, delimiter, headed=headed, quoted=False)
    if isinstance(plain, Rows) and not _encloses(lines, delimiter):
        names = tuple(_unquoted(name) for name in plain.names)
        cells = [[_unquoted(cell) for cell in row] for row in plain.cells]
        plain = Rows(names, cells, plain.lines, UNQUOTED_NOTE)
        # Lines of a letter that happen to have a delimiter each are no rows: they have no label.
        # Where the table has no labels at all, nothing tells them from rows.
        sure = _labels(plain, label) <= known if known else label is not None
        if known is None or sure:
            return plain
    assert fault is not None
    raise UserError(f"{place}, row {fault.row} (line {fault.line}): {fault.reason}")


def first_line(text: str, skip_lines: Sequence[int] = ()) -> tuple[int, str]:
    """Give the first line that is data, usually the header, and its number (0 = first)."""
    return next(iter(first_lines(text, skip_lines)), (0, ""))


def first_lines(text: str, skip_lines: Sequence[int] = ()) -> list[tuple[int, str]]:
    """Give the lines of a text's beginning that are not blank, each with its number (0 = first)."""
    lines = _numbered_lines(_line_feeds(text[:100_000]), skip_lines)
    return [(number - 1, line.rstrip("\r")) for number, line in lines if line.strip()]


def lines_of(text: str) -> list[str]:
    """Split a text that has a row on each line.

    Only line feeds end a row, since a text may contain other line separators; or carriage returns,
    where there is no line feed, as on old Macs.
    """
    text = text if "\n" in text else text.replace("\r", "\n")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def cells_of(line: str, delimiter: str) -> list[str]:
    """Split a line into its cells; of several lines, the first row."""
    *rest, last = line.replace("\r", " ").split("\n")
    lines = [*(f"{one}\n" for one in rest), last]
    return next(csv.reader(lines, delimiter=delimiter), [])


def _numbered_lines(text: str, skip_lines: Sequence[int]) -> list[tuple[int, str]]:
    """The lines that are data, each with its number, counted from 1."""
    skipped = set(skip_lines)
    numbered = enumerate(text.split("\n"), start=1)
    return [(number, line) for number, line in numbered if number - 1 not in skipped]


def _line_feeds(text: str) -> str:
    """End every row in a line feed where rows end in carriage returns, as on old Macs."""
    first = _FIRST_END.match(text)
    old = "\n" not in text if first is None else first[1] == "\r"
    return re.sub(r"\r\n?", "\n", text) if old else text


def _held_returns(text: str) -> tuple[str, str] | None:
    """Put a mark that the text does not have in the place of carriage returns that end no line.

    Returns:
        The mark and the text; none if there are no such carriage returns.
    """
    if not _RETURN.search(text):
        return None
    mark = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in text)
    return mark, _RETURN.sub(lambda found: mark * len(found[0]), text)


def _parse(
    lines: Sequence[tuple[int, str]],
    delimiter: str,
    *,
    headed: bool,
    quoted: bool = True,
    spaced: bool = False,
    escape: str | None = None,
) -> Rows | _Fault:
    """Read all rows under one set of rules, or say which row breaks them."""
    started: list[int] = []

    def feed() -> Iterator[str]:
        for number, line in lines:
            started.append(number)
            yield f"{line}\n"

    reader = csv.reader(
        feed(),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        escapechar=escape,
        doublequote=True,  # beside an escape, too: one damaged mark changes no other row
        skipinitialspace=spaced,
        strict=True,
    )
    names: tuple[str, ...] = ()
    cells: list[list[str]] = []
    numbers: list[int] = []
    while True:
        taken = len(started)
        try:
            row = next(reader, None)
        except csv.Error as error:
            return _Fault(len(cells) + 1, started[taken], _reason(error))
        if row is None:
            return Rows(names, cells, numbers)
        if len(row) < 2 and not "".join(row).strip():
            continue
        if not names:
            names = tuple(row if headed else map(str, range(1, len(row) + 1)))
            if headed:
                continue
        if len(row) != len(names):
            first = "header" if headed else "first row"
            reason = f"it has {len(row)} cells where the {first} has {len(names)}"
            if len(row) > len(names):
                reason += f"; a text with {delimiter!r} in it needs quotation marks around it"
            else:
                reason += "; complete it, or remove it"
            return _Fault(len(cells) + 1, started[taken], reason)
        cells.append(row)
        numbers.append(started[taken])


def _encloses(lines: Sequence[tuple[int, str]], delimiter: str) -> bool:
    """Tell whether a line has quotation marks around a whole cell with delimiters in it.

    Without quoting, such a cell would fall apart.
    """
    for _, line in lines:
        try:
            cells = next(csv.reader([line], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        if any(delimiter in cell for cell in cells):
            return True
    return False


def _is_spaced(rows: Rows | _Fault) -> bool:
    """Tell whether rows cannot be read, or a column has quotation marks after a space in each."""
    if isinstance(rows, _Fault):
        return True
    columns = zip(*rows.cells, strict=True)
    return any(all(re.fullmatch(r' +".*" *', cell, re.S) for cell in column) for column in columns)


def _reason(error: csv.Error) -> str:
    """Say what Python's csv module found wrong, in the words of a table."""
    unclosed = "unexpected end of data" in str(error)
    found = "is opened and never closed" if unclosed else "is closed before its cell ends"
    return f'a quotation mark {found}; double those that belong to a text ("")'


def _labels(rows: Rows, label: str | None) -> set[str]:
    """The labels of all rows; none where there are too few to tell a row from a text."""
    names = [name.strip() for name in rows.names]
    if label is None or label.strip() not in names:
        return set()
    place = names.index(label.strip())
    found = {row[place].strip() for row in rows.cells if "\n" not in row[place]}
    return found if len(found) > 1 else set()


def _swallowed(
    rows: Rows, lines: Sequence[tuple[int, str]], delimiter: str, label: str | None
) -> _Fault | None:
    """Find a row that runs over lines which are rows of this table by themselves.

    Such a line has as many cells as the header and a label that other rows have too. Where no
    labels are known, all lines of the row must have as many cells: a letter may well have a line
    with one comma in it.
    """
    width = len(rows.names)
    names = [name.strip() for name in rows.names]
    labels = _labels(rows, label)
    place = names.index(label.strip()) if label and labels else None

    def is_row(line: str) -> bool:
        parts = line.split(delimiter)
        if len(parts) != width or width < 2:
            return False
        return place is None or parts[place].strip().strip(QUOTE) in labels

    content = dict(lines)
    ends = [*rows.lines[1:], lines[-1][0] + 1]
    for number, row in enumerate(rows.cells, start=1):
        broken = [cell.split("\n") for cell in row if "\n" in cell]
        if not broken:
            continue
        if place is not None:
            found = any(is_row(line) for cell in broken for line in cell[:-1])
        else:
            span = range(rows.lines[number - 1], ends[number - 1])
            found = all(is_row(line) for at in span if (line := content.get(at, "")).strip())
        if found:
            reason = (
                f"a cell runs on over {max(map(len, broken))} lines, one of which is a row by"
                ' itself; close its quotation mark, or double those that belong to a text ("");'
                " if all is well with it, save the table as .jsonl or .parquet"
            )
            return _Fault(number, rows.lines[number - 1], reason)
    return None


def _unquoted(cell: str) -> str:
    """Take away the quotes of a cell that is enclosed in them as it should be."""
    inside = cell[1:-1]
    enclosed = len(cell) > 1 and cell[0] == cell[-1] == QUOTE
    if enclosed and QUOTE not in inside.replace(QUOTE * 2, ""):
        return inside.replace(QUOTE * 2, QUOTE)
    return cell
