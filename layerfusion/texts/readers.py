"""Readers: from a file to a table of texts and labels.

`config.registry.READERS` says which suffix is read by which function of this file; a user's own
reader takes the place of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layerfusion.assets.files import parse_json
from layerfusion.assets.paths import data_suffix
from layerfusion.config.imports import import_object
from layerfusion.config.registry import READERS
from layerfusion.errors import UserError
from layerfusion.texts.delimited import header_names, read_rows
from layerfusion.texts.encoding import encoding_notes, read_text
from layerfusion.texts.table import Columns, Table, make_table

DELIMITERS = (",", "\t", ";", "|")
"""Delimiters that a header is tried with, in this order."""
HEADER = 100_000
"""The header lies within as many characters."""


@dataclass(frozen=True)
class Reading:
    """Options of a reader, besides the path."""

    columns: Columns
    encoding: str
    skip_rows: Sequence[int]
    """Line numbers (0 = first) of a delimited file that are not data."""


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
        raise UserError(
            f"{path}: cannot read {suffix!r}; allowed: {', '.join(READERS)}; dataset.reader takes"
            " a reader of your own"
        )
    read = import_object(f"reader of {suffix}", READERS[suffix])
    try:
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


def read_parquet(path: Path, reading: Reading) -> Table:
    """Read the columns that are needed from a parquet file."""
    import pyarrow
    import pyarrow.parquet

    columns = reading.columns
    try:
        file = pyarrow.parquet.ParquetFile(path)
        found: list[str] = file.schema_arrow.names
        _refuse_double(path, found, columns)
        read = file.read(columns=[name for name in found if columns.is_wanted(name)])
        cells = [column.to_pylist() for column in read.columns]
    # Besides its own errors, pyarrow raises Python's for a string that is not UTF-8, and for a date
    # that Python does not know.
    except (pyarrow.ArrowException, UnicodeDecodeError, OverflowError) as error:
        raise UserError(f"{path}: not readable as parquet: {_first_line(error)}") from error
    values: dict[str, Any] = dict.fromkeys(found, ())
    values |= dict(zip(distinct_names(read.column_names), cells, strict=True))
    label_names = _parquet_label_names(file.schema_arrow.metadata or {}, columns.label)
    return make_table(path.name, values, columns, typed=True, label_names=label_names)


def _parquet_label_names(metadata: dict[bytes, bytes], label: str | None) -> tuple[str, ...] | None:
    """Read the class names that the `datasets` library writes into its files."""
    try:
        names = parse_json(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return None
    named = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if named else None


def read_json(path: Path, reading: Reading, *, lines: bool = False) -> Table:
    """Read a list of objects; objects by line, as in `.jsonl`, are read under this name too."""
    content = read_text(path, reading.encoding)
    records: Any = None
    try:
        records = None if lines else _json(content)
    except ValueError as error:
        if getattr(error, "msg", "") != "Extra data":  # the error for an object a line
            raise UserError(f"{path}: not readable as json: {error}") from error
        lines = True
    if lines:
        records = _json_lines(content, path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path}: a list of objects is needed, such as [{{'text': …, 'label': …}}]")
    names = list(dict.fromkeys(name for record in records for name in record))
    values = {name: [record.get(name) for record in records] for name in names}
    return make_table(path.name, values, reading.columns, typed=True)


def read_json_lines(path: Path, reading: Reading) -> Table:
    """Read an object a line."""
    return read_json(path, reading, lines=True)


def _json(text: str) -> Any:
    """Parse JSON in which no object has two values of one name, one of which would be lost."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            double = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"an object has {names.count(double)} values of the name {double!r}")
        return found

    return parse_json(text, object_pairs_hook=once)


def _json_lines(content: str, path: Path) -> list[Any]:
    records: list[Any] = []
    # Only line feeds end a record, since a text may contain other line separators.
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                records.append(_json(line))
            except ValueError as error:
                raise UserError(f"{path}, line {number}: not readable as json: {error}") from error
    return records


def read_delimited(path: Path, reading: Reading, usual: str | None = None) -> Table:
    """Read a table with a header, by the delimiter under which it names the columns.

    Args:
        path: the file.
        reading: its columns, encoding and the lines to skip.
        usual: the delimiter to take where none gives the columns; none: that is an error.
    """
    text, columns = read_text(path, reading.encoding), reading.columns
    delimiter = _delimiter(path, text, reading, usual)
    rows = read_rows(str(path), text, delimiter, reading.skip_rows, label=columns.label)
    _refuse_double(path, rows.names, columns)
    names = distinct_names(rows.names)
    values = {name: [row[place] for row in rows.cells] for place, name in enumerate(names)}
    notes = encoding_notes(path, text)
    if rows.note is not None:
        notes = (*notes, f"{path.name}: {rows.note}")
    return make_table(path.name, values, columns, typed=False, notes=notes)


def _refuse_double(path: Path, names: Sequence[str], columns: Columns) -> None:
    """Refuse a table with two columns of a name that is asked for."""
    wanted = {columns.text, columns.label, *columns.where}
    double = next((name for name in names if name in wanted and names.count(name) > 1), None)
    if double is not None:
        raise UserError(
            f"{path}: {names.count(double)} columns are called {double!r}; rename all but one of"
            " them"
        )


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


def names_column(text: str, column: str) -> bool:
    """Tell whether the header of a text names a column, beside others, between delimiters."""
    headers = (header_names(text[:HEADER], delimiter) for delimiter in DELIMITERS)
    return any(len(names) > 1 and column in map(str.strip, names) for names in headers)


def _delimiter(path: Path, text: str, reading: Reading, usual: str | None) -> str:
    """The delimiter under which the header names both columns: the usual one, or else another."""
    columns = reading.columns
    start = text[:HEADER]
    for delimiter in dict.fromkeys((usual or DELIMITERS[0], *DELIMITERS)):
        names = header_names(start, delimiter, reading.skip_rows)
        found = {None, *names, *map(str.strip, names)}
        if columns.text in found and columns.label in found:
            return delimiter
    if usual is not None:
        return usual
    first = next((line for line in start.splitlines() if line.strip()), "")
    raise UserError(
        f"{path}: the first line does not name the columns {columns.text!r} and {columns.label!r}"
        f" between commas, tabs, semicolons or bars; it reads {first[:80]!r}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
