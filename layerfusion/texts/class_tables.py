"""Tables in a folder for each class: `pos/1.csv`, whose texts are all of the class `pos`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from layerfusion.assets.paths import data_suffix
from layerfusion.config.assets import DataSourceConfig
from layerfusion.config.options import as_option
from layerfusion.errors import UserError, short
from layerfusion.texts.class_folders import (
    NO_TABLES,
    UNLABELLED,
    files_in,
    folders_of,
    is_about,
    is_hidden,
    tables_in,
)
from layerfusion.texts.columns import OFTEN, Columns, NoColumn, find_column
from layerfusion.texts.encoding import read_text
from layerfusion.texts.json_tables import is_one_row
from layerfusion.texts.readers import json_table, read_file
from layerfusion.texts.split_names import parts_by_word, splits_in
from layerfusion.texts.table import Table, join_tables

Tables = dict[str, dict[str, list[Path]]]
"""Split to the tables of each class."""
_SHOWN = 4
_NULL = "__HIVE_DEFAULT_PARTITION__"
"""What Spark and pandas call the folder of rows that lack the value."""


def class_tables(folder: Path) -> Tables:
    """Find the tables of each class: in the folders of a folder, or of its folders of splits.

    Args:
        folder: has `pos/1.csv` and `neg/1.csv`, or these below `train` and `test`.

    Returns:
        Split to class to its tables; empty if this is no such folder.
    """
    inside = {name: _classes(part) for name, part in folders_of(folder).items()}
    splits = parts_by_word(name for name, classes in inside.items() if _labels(classes))
    if "train" in splits and all(len(names) == 1 for names in splits.values()):
        found = {split: inside[names[0]] for split, names in splits.items()}
    else:
        classes = _classes(folder)
        found = {} if parts_by_word(classes) else {"train": classes}
    found = {split: _without_keys(folder, classes) for split, classes in found.items()}
    return found if len(_labels(found.get("train", ()))) > 1 else {}


def _without_keys(folder: Path, classes: dict[str, list[Path]]) -> dict[str, list[Path]]:
    """Take the name of the column out of folders like `label=good`, as Spark and pandas write them.

    Raises:
        UserError: where that column is none of labels.
    """
    keys = {name.partition("=")[0] if "=" in name else "" for name in classes}
    if len(keys) != 1 or "" in keys:
        return classes
    (key,) = keys
    if key.strip().casefold() not in OFTEN["label"]:
        raise UserError(
            f"{folder}: its rows lie in a folder for each value of {short(key)}; write them to one"
            " table with that column in it, which dataset.label names if it has the labels"
        )
    if (gap := f"{key}={_NULL}") in classes:
        raise UserError(
            f"{folder}: the rows in {gap} have no label; remove that folder, or write their labels"
        )
    return {unquote(name.partition("=")[2]): files for name, files in classes.items()}


def _labels(names: Iterable[str]) -> list[str]:
    """The names of folders that are labels."""
    return [name for name in names if name.lower() not in UNLABELLED]


def read_class_tables(
    place: Path, tables: Tables, source: DataSourceConfig, columns: Columns
) -> dict[str, Table]:
    """Read every row as a text whose label is the name of the folder of its table.

    Args:
        place: the folder that the user names; messages call files by their paths from there.
        tables: as `class_tables` found them.
        source: encoding of the tables, and lines of them to skip.
        columns: which columns and rows to take.

    Raises:
        UserError: for a table that cannot be read, or has labels of its own.
    """
    found: dict[str, Table] = {}
    notes: list[str] = []
    for split, classes in tables.items():
        parts: list[Table] = []
        for label, files in classes.items():
            if label.lower() in UNLABELLED:
                notes.append(
                    f"{split}: {files[0].parent.relative_to(place)} is left out, as its name says"
                    " that its texts have no label"
                )
                continue
            parts += [_of_class(place, file, label, source, columns) for file in files]
        # A row is named by its own file.
        names = tuple(part.where(row) for part in parts for row in range(len(part.texts)))
        found[split] = replace(join_tables(parts), row_names=names)
    used = [file for classes in tables.values() for files in classes.values() for file in files]
    shown = ", ".join(str(file.relative_to(place)) for file in used[:_SHOWN])
    more = f" and {len(used) - _SHOWN:,} more" if len(used) > _SHOWN else ""
    notes.insert(0, f"{shown}{more}: the name of the folder is the label of each row")
    others = [
        str(file.relative_to(place))
        for above in sorted({place, *(file.parent for file in used)})
        for file in files_in(above)
        if file not in used and not is_hidden(file, place)
    ]
    if others:
        are = "is" if len(others) == 1 else "are"
        notes.append(f"{', '.join(others[:_SHOWN])} in {place} {are} not used")
    found["train"] = replace(found["train"], notes=(*notes, *found["train"].notes))
    return found


def _of_class(
    place: Path, file: Path, label: str, source: DataSourceConfig, columns: Columns
) -> Table:
    every = replace(columns, label=None, label_columns=(), keep_others=True)
    try:
        table = _read(file, every, source)
    except NoColumn as error:
        # The labels are known, so that nobody has to look for their column.
        names = [*error.names, *columns.of_labels]
        # Files of many folders may have one name.
        line = str(error).removeprefix(file.name)
        raise NoColumn(f"{file.relative_to(place)}{line}", names, error.options) from error
    _refuse_labels(place, file, list(table.others), columns)
    others = table.others if columns.keep_others else {}
    if columns.label is not None and columns.keep_others:
        others = {**others, columns.label: [label] * len(table.texts)}
    return replace(
        table,
        place=str(file.relative_to(place)),
        labels=[[label] if columns.multilabel else label] * len(table.texts),
        label_names=None,
        typed=False,
        others=others,
        multilabel=columns.multilabel,
    )


def _read(file: Path, columns: Columns, source: DataSourceConfig) -> Table:
    """Read a table, or a JSON file that is one object, which is a row."""
    if data_suffix(file) == ".json":
        content = read_text(file, source.encoding)
        if is_one_row(content, columns.text):
            return json_table(file, content, columns, lines=True)
    return read_file(file, columns, encoding=source.encoding, skip_rows=source.skip_rows)


def _refuse_labels(place: Path, file: Path, names: Sequence[str], columns: Columns) -> None:
    """Refuse a table with labels of its own: its folder may be a part of the data, and no class."""
    own = [find_column(name, names) for name in columns.of_labels]
    own += [name for name in names if name.strip().casefold() in OFTEN["label"]]
    found = next((name for name in own if name and name != columns.text), None)
    if columns.of_labels and found is not None:
        raise UserError(
            f"{place}: {file.relative_to(place)} has labels of its own, in the column"
            f" {short(found)}, and lies in a folder that may be a class;"
            f" {as_option('dataset.path', str(file))} reads it, and without that column the name of"
            " the folder is the label"
        )


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Name of each folder with tables to them, in order.

    Empty if a table is called as a split is, or a folder has texts in another form.
    """
    found: dict[str, list[Path]] = {}
    for name, part in folders_of(folder).items():
        files, tables = files_in(part), tables_in(part)
        if any(splits_in(file.name) for file in tables):
            return {}
        if tables:
            found[name] = tables
        elif any(data_suffix(file) in ("", *NO_TABLES) and not is_about(file) for file in files):
            return {}
    return found
