"""Rows of a delimited text (csv, tsv and the like), with every row of the file accounted for.

A quote that is never closed makes a csv reader take the lines after it for one cell, and the rows
are gone without a word. Here a text is read by the rules of RFC 4180 first. Where its quotes do not
follow them, or where they swallow lines that are rows by themselves, it is read without quoting, or
refused with the number of the row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
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
_MARK, _ITSELF, _A_RETURN = "\ue000\ue001\ue002"
"""What stands for them while a line is split, and tells them from these characters of a text."""
_DOUBLE = 'a quotation mark {}; double those that belong to a text ("")'
_SWALLOWS = "one of which is a row by itself"
LONGEST = 100_000
"""Lines after which a row of a file that is streamed counts as never closed."""
csv.field_size_limit(1 << 30)


@dataclass(frozen=True)
class Rows:
    """The rows of a delimited text."""

    names: tuple[str, ...]
    """The columns, as the header names them."""
    cells: list[list[str]]
    """A row of the file each, without the header; as many cells as columns. Blank lines are none,
    but for those between the rows of a single column."""
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
    text = line_feeds(text)
    lines = _numbered_lines(text, skip_lines)
    if not any(line.strip() for _, line in lines):
        raise UserError(f"{place}: the file is empty")
    quoted = _parse(lines, delimiter, USUAL, headed=headed)
    held = isinstance(quoted, _Fault) and _have_returns(lines)
    if held:
        quoted = _parse(lines, delimiter, replace(USUAL, held=True), headed=headed)
    if any(_SPACED.search(line) for _, line in lines):
        spaced = _parse(lines, delimiter, replace(SPACES, held=held), headed=headed)
        if isinstance(spaced, Rows) and _is_spaced(quoted):
            quoted = spaced
    known = _labels(quoted, label) if isinstance(quoted, Rows) else None
    fault = quoted if isinstance(quoted, _Fault) else _swallowed(quoted, lines, delimiter, label)
    if isinstance(quoted, Rows) and fault is None:
        return quoted
    # A quotation mark after a backslash ends a cell by the usual rules, which seldom fits.
    if f"\\{QUOTE}" in text and isinstance(quoted, _Fault):
        escaped = _parse(lines, delimiter, replace(_BACKSLASH, held=held), headed=headed)
        if isinstance(escaped, Rows) and _swallowed(escaped, lines, delimiter, label) is None:
            return escaped
    plain = _parse(lines, delimiter, replace(_PLAIN, held=held), headed=headed)
    if isinstance(plain, Rows) and not _encloses((line for _, line in lines), delimiter):
        names = tuple(_unquoted(name) for name in plain.names)
        cells = [[_unquoted(cell) for cell in row] for row in plain.cells]
        plain = replace(plain, names=names, cells=cells)
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
    lines = _numbered_lines(line_feeds(text[:100_000]), skip_lines)
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


def line_feeds(text: str) -> str:
    """End every row in a line feed where rows end in carriage returns, as on old Macs."""
    first = _FIRST_END.match(text)
    old = "\n" not in text if first is None else first[1] == "\r"
    return re.sub(r"\r\n?", "\n", text) if old else text


def _have_returns(lines: Iterable[tuple[int, str]]) -> bool:
    """Tell whether carriage returns stand where they end no line."""
    return any(_RETURN.search(line) for _, line in lines)


def _held(line: str) -> str:
    """Put marks in the place of carriage returns that end no line, as csv readers refuse them."""
    line = line.replace(_MARK, _MARK + _ITSELF)
    return _RETURN.sub(lambda found: (_MARK + _A_RETURN) * len(found[0]), line)


def _freed(cell: str) -> str:
    """Put the carriage returns back."""
    return cell.replace(_MARK + _A_RETURN, "\r").replace(_MARK + _ITSELF, _MARK)


def _parse(
    lines: Sequence[tuple[int, str]], delimiter: str, rules: Rules, *, headed: bool
) -> Rows | _Fault:
    """Read all rows under one set of rules, or say which row breaks them."""
    names: tuple[str, ...] = ()
    cells: list[list[str]] = []
    numbers: list[int] = []
    try:
        for row in parsed_rows(lines, delimiter, rules, headed=headed):
            if not names:
                names = tuple(row.cells)
                continue
            cells.append(row.cells)
            numbers.append(row.line)
    except _Broken as broken:
        return broken.fault
    return Rows(names, cells, numbers, rules.note)


@dataclass(frozen=True)
class Rules:
    """The rules under which the lines of a file become rows."""

    quoted: bool = True
    """Quotation marks enclose cells."""
    spaced: bool = False
    """A space after a delimiter is left out."""
    escape: str | None = None
    """What stands before a quotation mark that belongs to a cell, besides another one."""
    held: bool = False
    """Carriage returns that end no line belong to cells without quotation marks too."""
    unusual: str | None = None
    """What to say about a text that was read so."""

    @property
    def note(self) -> str | None:
        """Return all that is to be said."""
        said = [self.unusual, RETURN_NOTE if self.held else None]
        return "; ".join(filter(None, said)) or None


USUAL = Rules()
SPACES = Rules(spaced=True, unusual=SPACE_NOTE)
_BACKSLASH = Rules(escape="\\", unusual=BACKSLASH_NOTE)
_PLAIN = Rules(quoted=False, unusual=UNQUOTED_NOTE)


@dataclass(frozen=True)
class Row:
    """A row as it stands in its file."""

    cells: list[str]
    line: int
    """Number of the line that it begins in, counted from 1."""
    raw: Sequence[str]
    """The lines that the row takes up in the file."""


class _Broken(Exception):
    """A row breaks the rules under which it is read."""

    def __init__(self, fault: _Fault) -> None:
        super().__init__(fault.reason)
        self.fault = fault


def parsed_rows(
    lines: Iterable[tuple[int, str]],
    delimiter: str,
    rules: Rules,
    *,
    headed: bool,
    longest: int | None = None,
) -> Iterator[Row]:
    """Split lines into rows while they come.

    Args:
        lines: the lines that are data, each with its number.
        delimiter: what stands between cells.
        rules: the rules.
        headed: the first row names the columns.
        longest: most lines of a row; none: any number.

    Yields:
        The names of the columns, which are their numbers where the first row has none, and then
        each row.

    Raises:
        _Broken: at the row that breaks the rules.
    """
    started: list[tuple[int, str]] = []
    row: list[str] | None = None
    names: list[str] = []
    blank: list[int] = []
    found = 0

    def fault(reason: str) -> _Broken:
        return _Broken(_Fault(found + 1, started[0][0], reason))

    def feed() -> Iterator[str]:
        for number, line in lines:
            started.append((number, line))
            if longest is not None and len(started) > longest:
                raise fault(_DOUBLE.format(f"is opened and not closed within {longest:,} lines"))
            yield f"{_held(line) if rules.held else line}\n"

    reader = csv.reader(
        feed(),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if rules.quoted else csv.QUOTE_NONE,
        escapechar=rules.escape,
        doublequote=True,  # beside an escape, too: one damaged mark changes no other row
        skipinitialspace=rules.spaced,
        strict=True,
    )
    while True:
        started.clear()
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise fault(_reason(error)) from error
        if row is None:
            return
        row = [_freed(cell) for cell in row] if rules.held else row
        raw = [line for _, line in started]
        if len(row) < 2 and not "".join(raw).strip():
            blank += [started[0][0]] if len(names) == 1 else []
            continue
        if not names:
            names = row if headed else [str(number) for number in range(1, len(row) + 1)]
            yield Row(names, started[0][0], raw)
            if headed:
                continue
        # Between rows of a single column, a blank line is a row with an empty cell.
        found += len(blank)
        yield from (Row([""], line, [""]) for line in blank)
        blank = []
        if len(row) != len(names):
            first = "header" if headed else "first row"
            reason = f"it has {len(row)} cells where the {first} has {len(names)}"
            if len(row) > len(names):
                reason += f"; a text with {delimiter!r} in it needs quotation marks around it"
            else:
                reason += "; complete it, or remove it"
            raise fault(reason)
        found += 1
        yield Row(row, started[0][0], raw)


def streamed_rows(
    place: str,
    lines: Iterable[tuple[int, str]],
    delimiter: str,
    rules: Rules,
    *,
    headed: bool,
    hint: str = "",
) -> Iterator[Row]:
    """Split lines into rows while they come, by rules that were settled before.

    Arguments are as for `parsed_rows`; `place` is the file, for messages, and `hint` ends them.

    Raises:
        UserError: naming the row that breaks the rules, or that may have swallowed others.
    """
    width, found = 0, 0
    try:
        for row in parsed_rows(lines, delimiter, rules, headed=headed, longest=LONGEST):
            if not width:
                width = len(row.cells)
                yield row
                continue
            found += 1
            if len(row.raw) > 1 and all(
                width > 1 and len(line.split(delimiter)) == width
                for line in row.raw
                if line.strip()
            ):
                longest = max(cell.count("\n") + 1 for cell in row.cells)
                raise _Broken(_Fault(found, row.line, _swallowing(longest)))
            yield row if rules.quoted else replace(row, cells=[_unquoted(x) for x in row.cells])
    except _Broken as broken:
        fault = broken.fault
        raise UserError(
            f"{place}, row {fault.row} (line {fault.line}): {fault.reason}{hint}"
        ) from broken


def settle_rules(
    place: str,
    lines: Callable[[], Iterable[tuple[int, str]]],
    delimiter: str,
    *,
    headed: bool,
    usual: Rules = USUAL,
) -> Rules:
    """Find the rules under which all rows of a file can be read, in the order of `read_rows`.

    Args:
        place: the file, for messages.
        lines: gives its lines from the start, each with its number; called for each set of rules.
        delimiter: what stands between cells.
        headed: the first row names the columns.
        usual: the rules that fit its first rows, as `first_rows` finds them.

    Raises:
        UserError: naming the row that breaks the usual rules, if no others fit.
    """

    def misfit(rules: Rules) -> UserError | None:
        try:
            for row in streamed_rows(place, lines(), delimiter, rules, headed=headed):
                if not rules.quoted and _encloses(row.raw[:1], delimiter):
                    return UserError(place)
        except UserError as error:
            return error
        return None

    usual = replace(usual, held=False)
    if (first := misfit(usual)) is not None and _have_returns(lines()):
        usual = replace(usual, held=True)
        first = misfit(usual)
    if first is None:
        return usual
    # Rows that swallowed others are not read in another way, as nothing proves that way.
    if _SWALLOWS not in str(first):
        for rules in (_BACKSLASH, _PLAIN):
            if misfit(rules := replace(rules, held=usual.held)) is None:
                return rules
    raise first


def first_rows(
    lines: Sequence[tuple[int, str]], delimiter: str, *, headed: bool
) -> tuple[Rows, Rules]:
    """Read the first rows of a file, up to one that breaks the rules or may be cut short.

    Args:
        lines: its first lines, each with its number.
        delimiter: what stands between cells.
        headed: the first row names the columns.

    Returns:
        The rows, and the rules that fit them: the usual ones, unless there are spaces between
        delimiters and quotation marks, or carriage returns inside rows.
    """

    def read(rules: Rules) -> tuple[Rows, bool]:
        found: list[Row] = []
        whole = False
        with suppress(_Broken):
            found.extend(parsed_rows(lines, delimiter, rules, headed=headed))
            whole = True
        names, *rows = found or [Row([], 0, ())]
        rows = rows[:-1] if len(rows) > 1 else rows
        cells = [row.cells for row in rows]
        return Rows(tuple(names.cells), cells, [row.line for row in rows]), whole

    rules = USUAL
    rows, whole = read(rules)
    if not whole and _have_returns(lines):
        rules = replace(rules, held=True)
        rows, _ = read(rules)
    if any(_SPACED.search(line) for _, line in lines) and (not rows.cells or _is_spaced(rows)):
        rules = replace(SPACES, held=rules.held)
        rows, _ = read(rules)
    return rows, rules


def _encloses(lines: Iterable[str], delimiter: str) -> bool:
    """Tell whether a line has quotation marks around a whole cell with delimiters in it.

    Without quoting, such a cell would fall apart.
    """
    for line in lines:
        try:
            cells = next(csv.reader([_held(line)], delimiter=delimiter, strict=True), [])
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
    return _DOUBLE.format(found)


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

    Such a line has as many cells as the header and a label that other rows have too. It lies inside
    a cell, or all lines of the row are such, as where two rows have one quotation mark each. Where
    no labels are known, all lines of the row must have as many cells: a letter may well have a line
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
        span = range(rows.lines[number - 1], ends[number - 1])
        found = all(is_row(line) for at in span if (line := content.get(at, "")).strip())
        if place is not None:
            found |= any(is_row(line) for cell in broken for line in cell[:-1])
        if found:
            return _Fault(number, rows.lines[number - 1], _swallowing(max(map(len, broken))))
    return None


def _swallowing(lines: int) -> str:
    return (
        f"a cell runs on over {lines} lines, {_SWALLOWS}; close its quotation mark, or double those"
        ' that belong to a text (""); if all is well with it, save the table as .jsonl or .parquet'
    )


def _unquoted(cell: str) -> str:
    """Take away the quotes of a cell that is enclosed in them as it should be."""
    inside = cell[1:-1]
    enclosed = len(cell) > 1 and cell[0] == cell[-1] == QUOTE
    if enclosed and QUOTE not in inside.replace(QUOTE * 2, ""):
        return inside.replace(QUOTE * 2, QUOTE)
    return cell
