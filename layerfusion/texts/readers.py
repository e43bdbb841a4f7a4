"""Readers: from a file to a table of texts and labels.

`config.registry.READERS` says which suffix is read by which function of this file; a user's own
reader takes the place of all of them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from layerfusion.assets.paths import data_suffix
from layerfusion.config.imports import import_object
from layerfusion.config.options import as_option
from layerfusion.config.registry import READERS
from layerfusion.errors import UserError, short
from layerfusion.texts.columns import OFTEN, Columns, NoColumn
from layerfusion.texts.delimited import Rows, cells_of, first_line, first_lines, read_rows
from layerfusion.texts.encoding import read_text, refuse_page
from layerfusion.texts.fasttext import begins_fasttext, fasttext_table
from layerfusion.texts.json_tables import columns_of_json, splits_of_json
from layerfusion.texts.table import Table, make_table

DELIMITERS = (",", "\t", ";", "|")
"""Delimiters that a header is tried with, in this order."""
_TOP = 20
"""Lines that are looked at for a header."""
_COMMENTS = ("#", "%", "//")
_FIRST_WORD = re.compile(r"^([^\S\n]*\S+)[^\S\n]+", re.MULTILINE)
_APART = "\x1f"
"""Parts a label from its text; no text has this character."""
_FEW, _AGAIN = 8, 3
"""Fewer lines, or words that occur less often on average, are not known for labels."""
_MOST = 0.8
"""Where this share of the lines has as many cells, more than one, they are rows of a table."""
_RULE = re.compile(r":?-{2,}:?")
"""A cell of the line below a header, as Markdown and databases print it."""
_SEP = re.compile(r'"?sep=([^"\s]|\t)"?[,;\t]*', re.IGNORECASE)
"""The first line with which a file tells Excel its delimiter."""


_SPREADSHEET = "it is a spreadsheet; save its sheet as csv"
_ARCHIVE = "it is an archive; unpack it, and name the folder or file that was in it"
WORDS = "it has a label for each word; write a row for each text, with one label"
_OTHERS = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), _SPREADSHEET),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar"), _ARCHIVE),
    **dict.fromkeys((".zst", ".lz4", ".z"), "it is packed; unpack it, or pack it with gzip"),
    **dict.fromkeys((".db", ".sqlite", ".sqlite3"), "it is a database; export its table as csv"),
    **dict.fromkeys((".pkl", ".pickle"), "a pickle may run code; save its table as csv"),
    **dict.fromkeys((".conll", ".conllu", ".iob", ".bio"), WORDS),
}
"""Suffix of a file that is not read to what it is, and the way out."""


def not_read(path: Path) -> str:
    """Say why a file of this name is not read, and what to do."""
    suffix = data_suffix(path)
    if suffix in _OTHERS:
        return _OTHERS[suffix]
    return (
        f"cannot read {suffix!r}; allowed: {', '.join(READERS)}; dataset.reader takes a reader of"
        " your own"
    )


def is_known_other(path: Path) -> bool:
    """Tell whether a file is data in a form that is not read, such as a spreadsheet."""
    return data_suffix(path) in _OTHERS


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


def read_file(
    path: Path,
    columns: Columns,
    *,
    encoding: str = "utf-8",
    skip_rows: Sequence[int] = (),
    reader: str | None = None,
) -> Table:
    """Read one file.

    Args:
        path: its suffix says the format; `.gz` after it is unpacked on the way. A file without a
            suffix is read like `.txt`: as a table whose delimiter is found in the header.
        columns: which columns and rows to take.
        encoding: of a text file; a byte-order mark is tolerated.
        skip_rows: line numbers (0 = first) of a csv-like file that are not data.
        reader: `package.module:name` of a function of the user's, which takes the path and returns
            a pandas DataFrame or a dict of column name to values; the suffix then means nothing.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    if reader is not None:
        return _read_by_user(path, columns, reader)
    suffix = data_suffix(path) or ".txt"
    if suffix not in READERS:
        raise UserError(f"{path}: {not_read(path)}")
    read = import_object(f"reader of {suffix}", READERS[suffix])
    try:
        refuse_page(path)
        return read(path, Reading(columns, encoding, skip_rows))
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read: {_first_line(error)}") from error


def _read_by_user(path: Path, columns: Columns, reader: str) -> Table:
    table: Any = import_object("dataset.reader", reader)(path)
    if not isinstance(table, Mapping) and not hasattr(table, "columns"):
        raise UserError(
            f"dataset.reader={reader}: it gave an object of type {type(table).__name__} for {path};"
            " a pandas DataFrame, or a dict of column name to values, is needed"
        )
    values: dict[str, list[Any]] = {
        # `tolist` of pandas and NumPy gives plain numbers.
        str(name): table[name].tolist() if hasattr(table[name], "tolist") else list(table[name])
        for name in table
    }
    if len({len(column) for column in values.values()}) > 1:
        rows = ", ".join(f"{name} {len(column)}" for name, column in values.items())
        raise UserError(f"dataset.reader={reader}: columns of different length for {path}: {rows}")
    return make_table(path.name, values, columns, typed=True)


# -- formats ------------------------------------------------------------------------------------


def read_json(path: Path, reading: Reading, *, lines: bool = False) -> Table:
    """Read rows in any of the usual forms of JSON; an object a line is read under this name too."""
    return json_table(path, reading.text(path), reading.columns, lines=lines)


def json_table(path: Path, content: str, columns: Columns, *, lines: bool) -> Table:
    """Read the text of a JSON file; `lines` says that it may be an object a line, however short."""
    values = columns_of_json(path, content, columns, lines=lines)
    return make_table(path.name, values, columns, typed=True)


def read_json_splits(
    path: Path, columns: Columns, encoding: str, files: Mapping[str, str]
) -> dict[str, Table] | None:
    """Read a JSON file that holds the rows of each split under a key of its own.

    Args:
        path: the file.
        columns: which columns and rows to take.
        encoding: of the file.
        files: split to its key; empty: the keys say it.

    Returns:
        Split to its table; none where the file is one table.

    Raises:
        UserError: for a key that does not exist, or as `read_file` does.
    """
    found = splits_of_json(path, Reading(columns, encoding, ()).text(path), columns, files)
    if found is None:
        return None
    values, unused = found
    tables = {
        split: make_table(f"{path.name}, {key}", part, columns, typed=True)
        for split, (key, part) in values.items()
    }
    if unused:
        note = (
            f"{path.name}: rows under {', '.join(map(repr, unused))} are not used;"
            f" dataset.files={{train: …, test: {unused[0]}}} would use {unused[0]} as test"
        )
        tables["train"] = replace(tables["train"], notes=(*tables["train"].notes, note))
    return tables


def read_json_lines(path: Path, reading: Reading) -> Table:
    """Read an object a line."""
    return read_json(path, reading, lines=True)


def read_delimited(path: Path, reading: Reading, usual: str | None = None) -> Table:
    """Read a table with a header, by the delimiter under which it names the columns.

    Args:
        path: the file.
        reading: its columns, encoding and the lines to skip.
        usual: the delimiter to take where none gives the columns; none: that is an error.
    """
    return delimited_table(path, reading.text(path), reading, usual)


def delimited_table(path: Path, text: str, reading: Reading, usual: str | None = None) -> Table:
    """Read the text of a delimited file. Arguments are as for `read_delimited`."""
    if begins_fasttext(text):
        return fasttext_table(path, text, reading.columns)
    if begins_json(text):
        table = json_table(path, text, reading.columns, lines=True)
        return replace(table, notes=(*table.notes, f"{path.name}: read as JSON, as it begins so"))
    label = reading.columns.label

    def read(form: Form) -> Rows:
        content = _FIRST_WORD.sub(rf"\1{_APART}", text) if form.by_words else text
        return read_rows(
            str(path), content, form.delimiter, form.skipped, label=label, headed=form.headed
        )

    form, rows = form_of(path, text, reading, usual, read)
    if form.headed:
        refuse_second_header(path, rows)
    if form.headed and not form.columns.are_in(rows.names) and not form.columns.meant(rows.names):
        refuse_headless(path, rows, form.columns)
    names, renamed = distinct_columns(path, rows.names, form.columns)
    values = {name: [row[place] for row in rows.cells] for place, name in enumerate(names)}
    notes = form.notes(path.name, rows.note)
    return make_table(path.name, values, form.columns, typed=False, notes=(*notes, *renamed))


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

    def parted(self, line: str) -> str:
        """Put the delimiter of `by_words` into a line."""
        return _FIRST_WORD.sub(rf"\1{_APART}", line) if self.by_words else line

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


def read_commas(path: Path, reading: Reading) -> Table:
    """Read a `.csv` file; many of them have semicolons, so the header is asked first."""
    return read_delimited(path, reading, usual=",")


def read_tabs(path: Path, reading: Reading) -> Table:
    """Read a `.tsv` or `.tab` file."""
    return read_delimited(path, reading, usual="\t")


def begins_table(content: str, column: str) -> bool:
    """Tell a table from a text on each line, for a file whose suffix says neither.

    Its first line names the column of texts beside others; or it names one that is often called so,
    and the next lines have as many cells.
    """
    _, header = first_line(content)
    if _SEP.fullmatch(header):
        return True
    rows = (line for _, line in first_lines(content) if not line.startswith(_COMMENTS))
    named = [cells_of(line, delimiter) for line in [next(rows, "")] for delimiter in DELIMITERS]
    if header.count('"') % 2:  # the name of a column runs over several lines
        named += [cells_of(content[:10_000], delimiter) for delimiter in DELIMITERS]
    if any(len(names) > 1 and Columns(column, None, {}).are_in(names) for names in named):
        return True
    lines = [line for line in content[:10_000].splitlines() if line.strip()][1:20]
    for delimiter in DELIMITERS:
        names = cells_of(header, delimiter)
        often = any(name.strip().casefold() in OFTEN["text"] for name in names)
        alike = all(len(cells_of(line, delimiter)) == len(names) for line in lines[:-1])
        if len(names) > 1 and often and len(lines) > 1 and alike:
            return True
    return False


def begins_json(content: str) -> bool:
    """Tell rows of JSON from a text on each line: it begins with an object, or a list of them."""
    start = content.lstrip()
    if not start.startswith(("{", "[")):
        return False
    try:
        found, _ = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        return False
    rows = found if isinstance(found, list) else [found]
    return bool(rows) and all(isinstance(row, dict) for row in rows)


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
    wanted = [repr(name) for name in (columns.text, columns.label) if name is not None]
    alone = "there has to be a label beside each text"
    if columns.label is None:
        alone = "a file with a text on each line has a name that ends in .txt"
    shortest, longest = (place(cells, key=len) for place in (min, max))
    by_number = _by_number(columns, cells.index(longest) + 1, cells.index(shortest) + 1)
    no_header = f"if it is no header, columns go by number: {by_number}"
    if columns.label is not None and _label_words(text):
        by_number = _by_number(columns, 2, 1)
        alone = no_header = f"if the first word of each line is its label, say {by_number}"
    line = (
        f"{path}: the first line does not name the column{'s'[: len(wanted) - 1]}"
        f" {' and '.join(wanted)} between commas, tabs, semicolons or bars; it reads"
        f" {header[:80]!r}; " + (meant or no_header if len(cells) > 1 else meant or alone)
    )
    raise NoColumn(line, cells) if meant and len(cells) > 1 else UserError(line)


def _by_number(columns: Columns, text: int, label: int) -> str:
    """Write the options that take columns by their numbers."""
    words = [as_option(columns.text_key, str(text))]
    return " ".join(words if columns.label is None else [*words, f"dataset.label={label}"])


def _begins_with_header(rows: Rows, columns: Columns) -> bool:
    """Tell whether the first row of a table with numbered columns is a header after all.

    It is one if its cell in the column of labels is no label of any other row, or its cell in the
    column of texts is a usual name of such a column.
    """
    if not {columns.text, columns.label or columns.text} <= set(rows.names) or len(rows.cells) < 2:
        return False
    first, *others = rows.cells
    if first[rows.names.index(columns.text)].strip().casefold() in OFTEN["text"]:
        return True
    place = None if columns.label is None else rows.names.index(columns.label)
    return place is not None and first[place] not in {row[place] for row in others}


def refuse_headless(path: Path, rows: Rows, columns: Columns) -> None:
    """Say how a file is read whose first line looks like data, and names nothing."""
    first, width = rows.names, len(rows.names)
    by_column = [[row[place] for row in rows.cells] for place in range(width)]
    looks_like_data = any(
        cell in others or cell.count(" ") > 2 or cell.strip().isdecimal()
        for cell, others in zip(first, by_column, strict=True)
    )
    if not looks_like_data:
        return
    order = sorted(range(width), key=lambda place: -sum(map(len, by_column[place])))
    text = order[0]
    classes = [len({*column, cell}) for column, cell in zip(by_column, first, strict=True)]
    label = min(order[1:], key=lambda place: (classes[place] < 2, classes[place]), default=text)
    raise UserError(
        f"{path}: its first line names no column {columns.text!r} ({columns.text_key}); it reads"
        f" {', '.join(map(repr, first))[:160]}; if the file has no header, its columns go by"
        f" number: {_by_number(columns, text + 1, label + 1)}"
    )


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
    wanted = {columns.text, columns.label, *columns.where}
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
