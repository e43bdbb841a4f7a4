"""Readers: from a file to a table of texts and labels.

`config.registry.READERS` says which suffix is read by which function of this file; a user's own
reader takes the place of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerfusion.assets.paths import data_suffix
from layerfusion.config.imports import import_object
from layerfusion.config.registry import READERS
from layerfusion.config.user_code import call_user_code
from layerfusion.errors import UserError
from layerfusion.texts.columns import Columns
from layerfusion.texts.delimited import Rows, read_rows
from layerfusion.texts.encoding import refuse_page
from layerfusion.texts.fasttext import begins_fasttext, fasttext_table
from layerfusion.texts.form import (
    WORDS,
    Form,
    distinct_columns,
    form_of,
    refuse_headless,
    refuse_second_header,
)
from layerfusion.texts.json_tables import begins_json, columns_of_json, splits_of_json
from layerfusion.texts.reading import Reading
from layerfusion.texts.table import Table, make_table

_SPREADSHEET = "it is a spreadsheet; save its sheet as csv"
_ARCHIVE = "it is an archive; unpack it, and name the folder or file that was in it"
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
            a pandas DataFrame, a dict of column name to values or a list of dicts, one a row; the
            suffix then means nothing.

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


def _columns_of(found: Any) -> Any:
    """Turn a list of rows, each a dict, into columns; leave all else as it is."""
    if not (isinstance(found, list) and found and all(isinstance(row, Mapping) for row in found)):
        return found
    names = dict.fromkeys(name for row in found for name in row)
    return {name: [row.get(name) for row in found] for name in names}


def _read_by_user(path: Path, columns: Columns, reader: str) -> Table:
    read = import_object("dataset.reader", reader)
    table = _columns_of(call_user_code("reader", read, path))
    if not isinstance(table, Mapping) and not hasattr(table, "columns"):
        raise UserError(
            f"dataset.reader={reader}: it gave an object of type {type(table).__name__} for {path};"
            " a pandas DataFrame, a dict of column name to values or a list of dicts, one a row, is"
            " needed"
        )
    for name in table:
        if isinstance(table[name], str | bytes):
            raise UserError(
                f"dataset.reader={reader}: column {name} is one {type(table[name]).__name__} for"
                f" {path}; a list of the rows' values is needed"
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
        return read_rows(
            str(path),
            form.parted(text),
            form.delimiter,
            form.skipped,
            label=label,
            headed=form.headed,
        )

    form, rows = form_of(path, text, reading, usual, read)
    if form.headed:
        refuse_second_header(path, rows)
    if form.headed and not form.columns.are_in(rows.names):
        refuse_headless(path, rows, form.columns)
    names, renamed = distinct_columns(path, rows.names, form.columns)
    values = {name: [row[place] for row in rows.cells] for place, name in enumerate(names)}
    notes = form.notes(path.name, rows.note)
    found = make_table(path.name, values, form.columns, typed=False, notes=(*notes, *renamed))
    return replace(found, delimiter=form.own_delimiter)


def read_commas(path: Path, reading: Reading) -> Table:
    """Read a `.csv` file; many of them have semicolons, so the header is asked first."""
    return read_delimited(path, reading, usual=",")


def read_tabs(path: Path, reading: Reading) -> Table:
    """Read a `.tsv` or `.tab` file."""
    return read_delimited(path, reading, usual="\t")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
