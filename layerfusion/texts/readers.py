"""Reading a table of texts and labels from a file: parquet, csv, tsv, tab, json, jsonl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layerfusion.errors import UserError
from layerfusion.texts.delimited import read_rows
from layerfusion.texts.encoding import encoding_notes, read_text
from layerfusion.texts.table import Columns, Table, make_table

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
"""The usual one of each suffix; many a .csv has semicolons, so its header is asked first."""
SNIFFED = (",", "\t", ";", "|")
SNIFFED_SUFFIXES = (".txt", ".data", "")
SUFFIXES = (".parquet", *DELIMITERS, ".json", ".jsonl", *SNIFFED_SUFFIXES[:-1])
"""What a data file may end in, with or without `.gz` after it (but parquet)."""


def read_file(
    path: Path, columns: Columns, *, encoding: str = "utf-8", skip_rows: Sequence[int] = ()
) -> Table:
    """Read one file.

    Args:
        path: its suffix says the format; `.gz` after it is unpacked on the way. Other text files
            are read as csv with the delimiter whose header names both columns.
        columns: which columns and rows to take.
        encoding: of a text file; a byte-order mark is tolerated.
        skip_rows: line numbers (0 = first) of a csv-like file that are not data.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    suffix = data_suffix(path)
    try:
        if suffix == ".parquet":
            return _read_parquet(path, columns)
        if suffix in (".json", ".jsonl"):
            return _read_json(path, columns, encoding, lines=suffix == ".jsonl")
        if suffix not in (*DELIMITERS, *SNIFFED_SUFFIXES):
            raise UserError(f"{path}: cannot read {suffix!r}; allowed: {', '.join(SUFFIXES)}")
        delimiter = _sniffed(path, columns, encoding, usual=DELIMITERS.get(suffix))
        return _read_csv(path, columns, encoding, skip_rows, delimiter)
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read: {_first_line(error)}") from error


def data_suffix(path: Path) -> str:
    """The suffix that says the format: `.csv` of `reviews.CSV.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


# -- formats ------------------------------------------------------------------------------------


def _read_parquet(path: Path, columns: Columns) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        wanted = {columns.text, columns.label, *columns.where}
        read = file.read(columns=[name for name in file.schema_arrow.names if name in wanted])
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: not readable as parquet: {_first_line(error)}") from error
    values: dict[str, Any] = dict.fromkeys(file.schema_arrow.names, ())
    values |= {name: read.column(name).to_pylist() for name in read.column_names}
    names = _parquet_label_names(file.schema_arrow.metadata or {}, columns.label)
    return make_table(path.name, values, columns, typed=True, label_names=names)


def _parquet_label_names(metadata: dict[bytes, bytes], label: str | None) -> tuple[str, ...] | None:
    """The class names that the `datasets` library writes into the files it makes."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(features[label]["names"]) if label is not None else None
    except (KeyError, ValueError, TypeError):
        return None


def _read_json(path: Path, columns: Columns, encoding: str, *, lines: bool) -> Table:
    content = read_text(path, encoding)
    try:
        records = _json_lines(content, path) if lines else json.loads(content)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # which is what json lines look like under this name
            raise UserError(f"{path}: not readable as json: {error}") from error
        records = _json_lines(content, path)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path}: a list of objects is needed, such as [{{'text': …, 'label': …}}]")
    names = list(dict.fromkeys(name for record in records for name in record))
    values = {name: [record.get(name) for record in records] for name in names}
    return make_table(path.name, values, columns, typed=True)


def _json_lines(content: str, path: Path) -> list[Any]:
    records: list[Any] = []
    # Only line feeds end a record: a text may hold other line separators unescaped.
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: not readable as json: {error}") from error
    return records


def _read_csv(
    path: Path, columns: Columns, encoding: str, skip_rows: Sequence[int], delimiter: str
) -> Table:
    text = read_text(path, encoding)
    rows = read_rows(str(path), text, delimiter, skip_rows, label=columns.label)
    wanted = {columns.text, columns.label, *columns.where}
    double = [name for name in rows.names if name in wanted and rows.names.count(name) > 1]
    if double:
        raise UserError(
            f"{path}: {rows.names.count(double[0])} columns are called {double[0]!r}; rename all"
            " but one of them"
        )
    values = {name: [row[place] for row in rows.cells] for place, name in enumerate(rows.names)}
    notes = encoding_notes(path, text)
    if rows.note is not None:
        notes = (*notes, f"{path.name}: {rows.note}")
    return make_table(path.name, values, columns, typed=False, notes=notes)


def _sniffed(path: Path, columns: Columns, encoding: str, usual: str | None) -> str:
    """The delimiter under which the first line names both columns, else the usual one."""
    header = next(iter(read_text(path, encoding).splitlines()), "")
    for delimiter in SNIFFED:
        names = [name.strip().strip('"') for name in header.split(delimiter)]
        if columns.text in names and columns.label in (None, *names):
            return delimiter
    if usual is not None:
        return usual
    raise UserError(
        f"{path}: the first line does not name the columns {columns.text!r} and {columns.label!r}"
        f" between commas, tabs, semicolons or bars; it reads {header[:80]!r}"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
