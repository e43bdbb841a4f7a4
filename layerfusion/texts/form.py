"""The form of a delimited file: its header, its delimiter, and what its first lines say of it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layerfusion.config.options import as_option
from layerfusion.errors import Mendable, UserError, short
from layerfusion.texts.columns import OFTEN, Columns, NoColumn, asked, find_column
from layerfusion.texts.delimited import Rows, cells_of, first_line, first_lines
from layerfusion.texts.reading import Reading

DELIMITERS = (",", "\t", ";", "|")
"""Delimiters that a header is tried with, in this order."""
_TOP = 20
"""Lines that are looked at for a header."""
_HEAD = 10_000
"""Characters that tell a table from lines."""
_COMMENTS = ("#", "%", "//")
_FIRST_WORD = re.compile(r"^([^\S\n]*\S+)[^\S\n]+", re.MULTILINE)
_APART = "\x1f"
"""Parts a label from its text; no text has this character."""
_FEW, _AGAIN = 8, 3
"""Fewer lines, or words that occur less often on average, are not known for labels."""
_MOST = 0.8
"""Smallest share of the lines that must have the same number of cells, two or more, in a table."""
_NO_NAME = 3
"""A cell of so many words is seldom the name of a column."""
_RULE = re.compile(r":?-{2,}:?")
"""A cell of the line below a header, as Markdown and databases print it."""
_SEP = re.compile(r'"?sep=([^"\s]|\t)"?[,;\t]*', re.IGNORECASE)
"""The first line with which a file tells Excel its delimiter."""
WORDS = "it has a label for each word; write a row for each text, with one label"


@dataclass(frozen=True)
class Form:
    """How a delimited file is read, as its first lines say."""

    columns: Columns
    """The columns to take, by the names that its header has for them."""
    delimiter: str
    skipped: Sequence[int]
    """Numbers (0 = first) of the lines that are not data."""
    above: int
    """How many of them are comments above the header."""
    by_words: bool
    """The first word of each line is its label."""
    headed: bool
    """The first row names the columns."""
    header: str | None = None
    """That row, where columns were asked for by their numbers."""
    numbered: bool = False
    """Columns were asked for by their numbers."""

    @property
    def own_delimiter(self) -> str:
        """Return the delimiter, if the file has one and was not only cut at its first words."""
        return "" if self.by_words else self.delimiter

    def parted(self, text: str) -> str:
        """Put the delimiter of `by_words` into a line, or into each line of a text."""
        return _FIRST_WORD.sub(rf"\1{_APART}", text) if self.by_words else text

    def notes(self, name: str, of_rows: str | None) -> tuple[str, ...]:
        """Say how the file was read, with the note of its rows."""
        notes: list[str] = []
        if self.above:
            what = "a comment" if self.above == 1 else f"{self.above} comments"
            notes.append(f"{name}: {what} above the header left out")
        if of_rows is not None:
            notes.append(f"{name}: {of_rows}")
        if self.numbered:
            shown = f"its header is {(self.header or '')[:80]!r}"
            found = shown if self.headed else "read without a header"
            notes.append(f"{name}: {found}; its columns are numbered from 1")
        return tuple(notes)


def form_of(
    path: Path, text: str, reading: Reading, usual: str | None, read: Callable[[Form], Rows]
) -> tuple[Form, Rows]:
    """Find how a delimited file is read.

    Args:
        path: the file, for messages.
        text: its content, or the first 100,000 characters of it.
        reading: its columns, and the lines to skip.
        usual: as for `read_delimited`.
        read: reads its rows, or the first of them.

    Returns:
        The form, and the rows that were read with it.

    Raises:
        UserError: naming what is wrong with its first lines.
    """
    columns, skipped = reading.columns, list(reading.skip_rows)
    above = _lines_above_header(path, text, skipped, columns)
    skipped += above
    number, header = first_line(text, skipped)
    if not header.strip():
        raise UserError(f"{path}: the file is empty")
    if stated := _SEP.fullmatch(header.strip("\ufeff")):  # Excel's line for itself
        delimiter = stated[1]
        skipped.append(number)
        _, header = first_line(text, skipped)
    else:
        delimiter = _delimiter(path, header, columns, usual, text)
    by_words = columns.numbered and _label_words(text)
    delimiter = _APART if by_words else delimiter
    numbered = columns.numbered and not columns.are_in(cells_of(header, delimiter))
    form = Form(
        columns, delimiter, skipped, len(above), by_words, headed=not numbered, header=header,
        numbered=numbered,
    )  # fmt: skip
    rows = read(form)
    if numbered and _begins_with_header(rows, columns):
        form = replace(form, headed=True)
        rows = read(form)
        form = replace(form, columns=columns.by_number(rows.names))
    return form, rows


def distinct_names(names: Sequence[str]) -> list[str]:
    """Give columns of one name a number each, as pandas does, so that none hides another.

    Example:
        >>> distinct_names(["text", "id", "id"])
        ['text', 'id', 'id.1']
    """
    result: list[str] = []
    for name in names:
        new, number = name, 0
        while new in result or (number and new in names):
            number += 1
            new = f"{name}.{number}"
        result.append(new)
    return result


def begins_table(content: str, column: str) -> bool:
    """Tell a table from a text on each line, for a file whose suffix says neither.

    Its first line names the column of texts beside others; or it names one that is often called so,
    and the next lines have as many cells; or it names the only column, whose cells are quoted.
    """
    _, header = first_line(content)
    if _SEP.fullmatch(header):
        return True
    rows = (line for _, line in first_lines(content) if not line.startswith(_COMMENTS))
    named = [cells_of(line, delimiter) for line in [next(rows, "")] for delimiter in DELIMITERS]
    if header.count('"') % 2:  # the name of a column runs over several lines
        named += [cells_of(content[:_HEAD], delimiter) for delimiter in DELIMITERS]
    if any(len(names) > 1 and Columns(column, None, {}).are_in(names) for names in named):
        return True
    lines = [line for line in content[:_HEAD].splitlines() if line.strip()][1:20]
    for delimiter in DELIMITERS:
        names = cells_of(header, delimiter)
        often = any(name.strip().casefold() in OFTEN["text"] for name in names)
        alike = all(len(cells_of(line, delimiter)) == len(names) for line in lines[:-1])
        if len(names) > 1 and often and len(lines) > 1 and alike:
            return True
    return _is_quoted_column(content, column)


def _is_quoted_column(content: str, column: str) -> bool:
    """Tell whether a text is the only column of a table, some of whose cells are quoted.

    A line that merely begins with a quotation is no such cell.
    """
    header, _, below = content[:_HEAD].partition("\n")
    name = header.strip().strip('"')
    if name.casefold() not in OFTEN["text"] and not Columns(column, None, {}).are_in([name]):
        return False
    if len(content) > _HEAD:  # a cell may go on beyond it
        below = below[: below.rfind('"\n') + 2]
    if not re.search(r'^"', below, re.MULTILINE):
        return False
    try:
        return all(len(row) < 2 for row in csv.reader(io.StringIO(below), strict=True))
    except csv.Error:
        return False


def _lines_above_header(
    path: Path, text: str, skipped: Sequence[int], columns: Columns
) -> list[int]:
    """Numbers (0 = first) of the comments that stand above the line that names the columns.

    Raises:
        UserError: for other lines above it; and where no line names them, and each holds a word.
    """
    if columns.numbered:
        return []
    lines = first_lines(text, skipped)
    named = [
        place
        for place, (_, line) in enumerate(lines[:_TOP])
        if any(columns.are_in(cells_of(line, delimiter)) for delimiter in DELIMITERS)
    ]
    if not named:
        _refuse_words(path, text, lines)
        _refuse_header(path, lines[0][1] if lines else "", columns)
        return []
    above = lines[: named[0]]
    if above and _SEP.fullmatch(above[0][1].strip("\ufeff")):
        return []
    if all(line.startswith(_COMMENTS) for _, line in above):
        return [number for number, _ in above]
    raise UserError(
        f"{path}: line {lines[named[0]][0] + 1} names the columns, and the lines above it are no"
        f" rows; remove them (the first is {short(above[0][1][:80])})"
    )


def _refuse_header(path: Path, header: str, columns: Columns) -> None:
    """Refuse a header whose names stand between characters that are not known."""
    names = [re.escape(name) for name in (columns.text, columns.label) if name is not None]
    for first, last in (names, names[::-1]) if len(names) == 2 else ():
        if (
            found := re.fullmatch(
                rf"[\"']?{first}[\"']?([^\w\"']+)[\"']?{last}[\"']?", header.strip()
            )
        ) and not any(delimiter in found[1] for delimiter in DELIMITERS):
            raise UserError(
                f"{path}: {found[1]!r} stands between the columns of its first line; save it with"
                " commas, tabs, semicolons or bars between them"
            )


def _refuse_words(path: Path, text: str, lines: Sequence[tuple[int, str]]) -> None:
    """Refuse a word with its label on each line, and a blank line after each sentence."""
    cells = [line.split() for _, line in lines if not line.startswith(_COMMENTS)]
    blank = len(re.findall(r"\S[^\S\n]*\r?\n[^\S\n]*\r?\n[^\S\n]*\S", text[:100_000]))
    alike = len({len(row) for row in cells[:-1]}) == 1 and len(cells[0]) > 1 if cells else False
    if blank > 1 and alike and blank < len(cells):
        raise UserError(f"{path}: {WORDS}")


def _label_words(text: str) -> bool:
    """Tell lines that begin with a label, as in `DESC:def What is an atom ?`, and have no cells.

    A label is one of few words, which occur again and again in front of lines.
    """
    lines = [line for _, line in first_lines(text)]
    parts = [line.split(maxsplit=1) for line in lines]
    cells = [Counter(len(cells_of(line, delimiter)) for line in lines) for delimiter in DELIMITERS]
    if len(lines) < _FEW or any(len(part) < 2 for part in parts):
        return False
    seen = Counter(first for first, _ in parts)
    few = len(seen) > 1 and len(lines) >= _AGAIN * len(seen)
    usual = [found.most_common(1)[0] for found in cells]
    return few and all(width == 1 or many < _MOST * len(lines) for width, many in usual)


def _delimiter(path: Path, header: str, columns: Columns, usual: str | None, text: str) -> str:
    """The delimiter under which the first line names both columns, else the likeliest one."""
    for delimiter in DELIMITERS:
        if columns.are_in(cells_of(header, delimiter)):
            return delimiter
    most = max(DELIMITERS, key=lambda delimiter: len(cells_of(header, delimiter)))
    if usual is not None:
        return usual if len(cells_of(header, usual)) > 1 or usual in header else most
    if columns.numbered:
        return most
    cells = cells_of(header, most)
    meant = columns.meant(cells)
    wanted = [repr(name) for name in (columns.text, *columns.of_labels)]
    alone = "there has to be a label beside each text"
    if not columns.of_labels:
        alone = "a file with a text on each line has a name that ends in .txt"
    shortest, longest = (place(cells, key=len) for place in (min, max))
    by_number = _by_number(columns, cells.index(longest) + 1, cells.index(shortest) + 1)
    no_header = f"if it is no header, columns go by number: {' '.join(by_number)}"
    if columns.label is not None and _label_words(text):
        by_number = _by_number(columns, 2, 1)
        alone = no_header = (
            f"if the first word of each line is its label, say {' '.join(by_number)}"
        )
    line = (
        f"{path}: the first line does not name the column{'s'[: len(wanted) - 1]}"
        f" {' and '.join(wanted)} between commas, tabs, semicolons or bars; it reads"
        f" {header[:80]!r}; " + (asked(meant) or (no_header if len(cells) > 1 else alone))
    )
    raise NoColumn(line, cells, meant) if meant and len(cells) > 1 else UserError(line)


def _by_number(columns: Columns, text: int, label: int) -> list[str]:
    """Write the options that take columns by their numbers."""
    words = [as_option(columns.text_key, str(text))]
    return words if columns.label is None else [*words, f"dataset.label={label}"]


def _begins_with_header(rows: Rows, columns: Columns) -> bool:
    """Tell whether the first row of a table with numbered columns is a header after all.

    It is one if its cell in the column of texts is a usual name of such a column, or its cell in
    the column of labels is no label of any other row, and its form not that of a row.
    """
    if not {columns.text, *columns.of_labels} <= set(rows.names) or len(rows.cells) < 2:
        return False
    first, *others = rows.cells
    if first[rows.names.index(columns.text)].strip().casefold() in OFTEN["text"]:
        return True
    if not columns.of_labels:
        return False
    by_column = [list(column) for column in zip(*others, strict=True)]
    text, label = (rows.names.index(name) for name in (columns.text, columns.of_labels[0]))
    sentence = len(first[text].split()) >= _NO_NAME
    data = sentence and not _is_usual(first[label]) and not _above_numbers(first, by_column)
    return first[label] not in by_column[label] and not data


def refuse_headless(path: Path, rows: Rows, columns: Columns) -> None:
    """Say how a file is read whose first line looks like data, and names nothing.

    A header may be long sentences, as of a survey. But it has no cell that occurs again below it,
    unless its names say what both columns hold; and where none is a usual name, it differs from
    what is below it.
    """
    first, width = rows.names, len(rows.names)
    if not first:
        return
    by_column = [[row[place] for row in rows.cells] for place in range(width)]
    again = {
        cell
        for cell, others in zip(first, by_column, strict=True)
        if cell.strip() and cell in others
    }
    likely = columns.likely_among(first)
    wanted = {"text": columns.text, "label": columns.label}
    named = all(
        kind in likely or name is None or find_column(name, first) is not None
        for kind, name in wanted.items()
    )
    usual = any(_is_usual(name) for name in first) or any(
        name is not None and find_column(name, first) is not None for name in wanted.values()
    )
    order = sorted(range(width), key=lambda place: -sum(map(len, by_column[place])))
    text = order[0]
    alike = width > 1 and not usual and _is_like_those_below(first, by_column, text)
    if likely and not alike and (not again or (named and not again & set(likely.values()))):
        return
    long = any(cell.count(" ") > 2 or cell.strip().isdecimal() for cell in first)
    if not again and not alike and not long:
        return
    classes = [len({*column, cell}) for column, cell in zip(by_column, first, strict=True)]
    label = min(order[1:], key=lambda place: (classes[place] < 2, classes[place]), default=text)
    header = ""
    if columns.label is not None and not again:
        words = {columns.text_key: first[text], "dataset.label": first[label]}
        named = " ".join(as_option(key, cell.strip()) for key, cell in words.items())
        header = f"; if that is its header, by their names: {named}"
    by_number = _by_number(columns, text + 1, label + 1)
    line = (
        f"{path}: its first line names no column {columns.text!r} ({columns.text_key}); it reads"
        f" {', '.join(map(repr, first))[:160]}; if the file has no header, its columns go by"
        f" number: {' '.join(by_number)}{header}"
    )
    raise UserError(line) if header else Mendable(line, *by_number)


def _is_usual(name: str) -> bool:
    """Tell whether a cell is what columns of texts or labels are often called.

    That is a usual name, or a short one with such a word in it, as in `review text`.
    """
    lower = name.strip().casefold()
    words = {lower, *(re.split(r"[\W_]+", lower) if len(lower.split()) < _NO_NAME else ())}
    return any(words & {*names} for names in OFTEN.values())


def _is_like_those_below(
    first: Sequence[str], by_column: Sequence[Sequence[str]], text: int
) -> bool:
    """Tell whether the first line is a row like those below it, by their form alone.

    Its text is a sentence, or as long as many of those below; and no word stands in it above a
    column of numbers.
    """
    below = sorted(map(len, by_column[text]))
    if not below or _above_numbers(first, by_column):
        return False
    sentence = len(first[text].split()) >= _NO_NAME
    return sentence or len(first[text]) >= below[len(below) // 4]


def _above_numbers(first: Sequence[str], by_column: Sequence[Sequence[str]]) -> bool:
    """Tell whether the first line has a word above a column of numbers."""
    return any(
        _is_number(column) and not _is_number([cell])
        for cell, column in zip(first, by_column, strict=True)
    )


def _is_number(cells: Sequence[str]) -> bool:
    """Tell whether all cells are numbers."""
    try:
        return all(math.isfinite(float(cell)) for cell in cells)
    except ValueError:
        return False


def refuse_second_header(path: Path, rows: Rows, before: int = 0) -> None:
    """Refuse a header among the rows, as of files joined end to end, and the dashes below one.

    Args:
        path: the file, for messages.
        rows: its rows, or some of them.
        before: number of the rows before these.
    """

    def plain(cells: Sequence[str]) -> list[str]:
        return [cell.strip('\ufeff" ').casefold() for cell in cells]

    header = plain(rows.names)
    again = [number for number, row in enumerate(rows.cells) if plain(row) == header]
    if again:
        raise UserError(
            f"{path}, row {before + again[0] + 1} (line {rows.lines[again[0]]}): it repeats the"
            " header; remove it"
        )
    below = [cell for cell in plain(rows.cells[0]) if cell] if rows.cells and not before else []
    if below and all(map(_RULE.fullmatch, below)):
        raise UserError(
            f"{path}, row 1 (line {rows.lines[0]}): it is a line of dashes below the header, as in"
            " Markdown; remove it"
        )


def _refuse_doubles(path: Path, names: Sequence[str], columns: Columns) -> None:
    wanted = set(columns.named)
    double = [name for name in names if name in wanted and names.count(name) > 1]
    if double:
        raise UserError(
            f"{path}: {names.count(double[0])} columns are called {double[0]!r}; rename all but one"
            " of them"
        )


def distinct_columns(
    path: Path, names: Sequence[str], columns: Columns
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give columns of one name names of their own, and note it where all are kept.

    Raises:
        UserError: for two columns of one name that is wanted.
    """
    _refuse_doubles(path, names, columns)
    result = distinct_names(names)
    if not columns.keep_others:
        return tuple(result), ()
    again = [f"{old!r} is {new!r}" for old, new in zip(names, result, strict=True) if old != new]
    notes = (f"{path.name}: columns of one name are told apart: {', '.join(again)}",)
    return tuple(result), notes if again else ()
