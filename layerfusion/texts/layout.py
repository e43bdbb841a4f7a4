"""Reading every split of a data set, whatever form its file or folder has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerfusion.assets.paths import data_suffix
from layerfusion.config.assets import DataSourceConfig
from layerfusion.config.options import as_option
from layerfusion.errors import UserError, unknown
from layerfusion.texts.class_files import class_files, read_class_files
from layerfusion.texts.class_folders import (
    class_folders,
    class_names,
    read_class_folders,
    tables_beside,
)
from layerfusion.texts.class_tables import class_tables, read_class_tables
from layerfusion.texts.columnar import is_saved, not_in_saved, saved_parts, saved_table
from layerfusion.texts.columns import OFTEN, Columns
from layerfusion.texts.data_card import read_card
from layerfusion.texts.line_pairs import labels_beside, line_pairs, read_line_pairs, read_pair
from layerfusion.texts.managed import refuse_managed
from layerfusion.texts.numbered_files import refuse_gap
from layerfusion.texts.readers import read_file, read_json_splits
from layerfusion.texts.split_files import (
    assign_splits,
    bare,
    beside,
    data_files,
    folders_left,
    joined,
    other_splits,
    split_files,
    split_folders,
    unused,
    unused_beside,
    unused_classes,
)
from layerfusion.texts.table import SPLITS, Table, join_tables
from layerfusion.texts.table_pairs import labels_beside_table, labels_tables, read_table_pair


def read_tables(
    path: Path,
    source: DataSourceConfig,
    columns: Columns,
    reader: str | None = None,
    given: Sequence[str] = (),
) -> dict[str, Table]:
    """Read every split of a file or folder; a single table counts as `train`.

    What lies there and is not used is noted on the table of `train`.

    Args:
        path: a file, a folder of files, or a folder that `datasets` saved.
        source: names of its splits, its encoding and lines to skip.
        columns: which columns and rows to take.
        reader: a function of the user's that reads the file (see `read_file`).
        given: the splits of the data set that the user names, if they are named one by one.

    Raises:
        UserError: if the splits cannot be told apart, a shard is missing or a file cannot be
            read.
    """
    for split in source.files:
        if split not in SPLITS:
            raise unknown("files", split, SPLITS)
    if path.is_file():
        return _read_file(path, source, columns, reader, given)
    if reader is not None:
        raise UserError(
            f"dataset.reader={reader}: it reads files, and {path} is a folder; name the files by"
            " dataset.train, dataset.validation and dataset.test"
        )
    refuse_managed(path)
    if is_saved(path):
        return _read_saved(path, source, columns)
    if not source.files and (files := (card := read_card(path)).files()):
        return _with_notes(_read_files(files, source, columns), card.notes(files))
    if folders := class_folders(path, source.files):
        tables = read_class_folders(path, folders, columns, source.encoding)
        notes = _tables_beside(path, folders, source, columns)
        if not source.files and path not in folders.values():
            notes += unused_classes(path, folders)
        return _with_notes(tables, notes)
    if not source.files and (pairs := line_pairs(path, source.encoding)):
        tables = read_line_pairs(path, pairs, columns, source.encoding)
        used = [file.parent for pair in pairs.values() for file in pair]
        return _with_notes(tables, folders_left(path, used))
    if not source.files and (by_class := class_files(path, source.encoding)):
        tables = read_class_files(path, by_class, columns, source.encoding)
        used = [file.parent for part in by_class.values() for file in part.values()]
        return _with_notes(tables, folders_left(path, used))
    if parts := split_folders(path, source.files):
        tables = {split: _read_part(part, split, source, columns) for split, part in parts.items()}
        notes = unused_beside(path, parts) if not source.files else ()
        return _with_notes(tables, notes)
    if not source.files and not tables_beside(path) and (found := class_tables(path)):
        tables = read_class_tables(path, found, source, columns)
        used = [file.parent for part in found.values() for one in part.values() for file in one]
        used += [above.parent for above in used]
        return _with_notes(tables, folders_left(path, used))
    files, notes = split_files(path, source.files)
    if len(files) == len(files["train"]) == 1 and not source.files:
        tables = _read_file(files["train"][0], source, columns, alone=False)
    else:
        tables = _read_files(files, source, columns)
    return _with_notes(tables, notes)


def _read_files(
    files: Mapping[str, Sequence[Path]], source: DataSourceConfig, columns: Columns
) -> dict[str, Table]:
    """Read the files of each split as one table."""
    tables = {}
    for split, members in files.items():
        if split != "train":
            columns = replace(columns, without_label=_without(split, files["train"][0].name))
        tables[split] = join_tables([_read(file, source, columns) for file in members])
    return tables


def _with_notes(tables: dict[str, Table], notes: Iterable[str]) -> dict[str, Table]:
    """Add notes to the table of train."""
    train = replace(tables["train"], notes=(*tables["train"].notes, *notes))
    return {**tables, "train": train}


def _tables_beside(
    folder: Path, splits: Mapping[str, Path], source: DataSourceConfig, columns: Columns
) -> list[str]:
    """Note the tables beside folders of classes, which are not read.

    Raises:
        UserError: for one that may be the data: it has texts, or other labels than the folders.
    """
    classes = {name.casefold() for name in class_names(splits)}
    notes = []
    for table in tables_beside(folder):
        way = as_option("dataset.path", str(table))
        notes.append(f"{table.name} beside the folders of the classes is not used; {way} reads it")
        if source.files:
            continue
        labels = next(
            (
                found
                for name in dict.fromkeys((columns.label, *OFTEN["label"]))
                if name is not None and (found := _column(table, name, source)) is not None
            ),
            [],
        )
        texts = _column(table, columns.text, source)
        others = {str(label).strip().casefold() for label in labels} - classes
        if texts is not None or others:
            kept = " ".join(
                as_option(f"dataset.files.{split}", str(part.relative_to(folder)))
                for split, part in splits.items()
            )
            what = "texts" if texts is not None else f"other labels ({sorted(others)[0]!r}, …)"
            raise UserError(
                f"{folder}: it has folders of texts ({', '.join(sorted(classes)[:4])}) and a table"
                f" with {what}, {table.name}; {way} reads the table, and {kept} the folders"
            )
    return notes


def _column(table: Path, name: str, source: DataSourceConfig) -> Sequence[Any] | None:
    """The values of a column of a table; none where the table has no such column, or is none."""
    try:
        return _read(table, replace(source, skip_rows=[]), Columns(name, None, {})).texts
    except UserError:
        return None


def _read_file(
    path: Path,
    source: DataSourceConfig,
    columns: Columns,
    reader: str | None = None,
    given: Sequence[str] = (),
    *,
    alone: bool = True,
) -> dict[str, Table]:
    """Read a file that is a table, or a JSON file that holds one for each split.

    Where the user named it `alone`, the splits that lie beside it are noted.
    """
    if reader is None and data_suffix(path) == ".json":
        splits = read_json_splits(path, columns, source.encoding, source.files)
        if splits is not None:
            return splits
    if source.files and source.path:
        raise UserError(
            f"dataset.files: it names files of a folder, and {path} is a file; name the file of"
            " each split by dataset.train, dataset.validation and dataset.test"
        )
    if reader is None and (labels := labels_beside(path, source.encoding)) is not None:
        table = read_pair(path, labels, columns, source.encoding)
    else:
        table = _read(path, source, columns, reader)
    return {"train": replace(table, notes=(*table.notes, *(beside(path, given) if alone else ())))}


def _read_part(folder: Path, split: str, source: DataSourceConfig, columns: Columns) -> Table:
    """Read all files of the folder of a split as one table."""
    refuse_managed(folder)
    if is_saved(folder):
        parts = saved_parts(folder)
        if set(parts) != {"train"}:
            raise UserError(f"{folder}: it has splits of its own: {', '.join(parts)}")
        table = saved_table(split, parts["train"], columns)
        return replace(table, notes=(*table.notes, *not_in_saved(folder)))
    files = data_files(folder)
    labels = labels_tables(files).values()
    files = [file for file in files if file not in labels]
    if strange := [file for file in files if other_splits(file, split)]:
        raise UserError(
            f"{folder}: it is the folder of {split}, and {strange[0].name} is called after another"
            f" split; move it away, or name what to use: {as_option(f'dataset.{split}', 'FILE')}"
        )
    if len({data_suffix(file) for file in files}) > 1:
        names = ", ".join(file.name for file in files)
        raise UserError(
            f"{folder}: its files are of several kinds ({names}); leave those of one, or name what"
            f" to use: {as_option(f'dataset.{split}', str(files[0]))}"
        )
    refuse_gap(folder, {file.name: bare(file) for file in files})
    table = join_tables([_read(file, source, columns) for file in files])
    return table if len(files) == 1 else replace(table, notes=(*table.notes, joined(files)))


def _without(split: str, train: str) -> str:
    """Say what to do about a split that has no labels."""
    return (
        f"if its rows have none, {as_option('dataset.files.train', train)} alone leaves it out, and"
        f" {split} is made from train"
    )


def _read(
    path: Path, source: DataSourceConfig, columns: Columns, reader: str | None = None
) -> Table:
    labels = labels_beside_table(path) if reader is None else None
    if labels is not None:
        return read_table_pair(path, labels, columns, source.encoding)
    return read_file(
        path, columns, encoding=source.encoding, skip_rows=source.skip_rows, reader=reader
    )


# -- data sets that `datasets` saved --------------------------------------------------------------


def _read_saved(folder: Path, source: DataSourceConfig, columns: Columns) -> dict[str, Table]:
    """Read a data set that `datasets` saved with `save_to_disk`."""
    parts = saved_parts(folder)
    members, notes = _saved_splits(str(folder), parts, source.files)
    tables = {split: saved_table(name, parts[name], columns) for split, name in members.items()}
    return _with_notes(tables, (*not_in_saved(folder), *notes))


def _saved_splits(
    place: str, parts: Iterable[str], files: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    there: Sequence[str] = list(parts)
    if files:
        for split, name in files.items():
            if name not in there:
                raise unknown(f"{place}: split for {split}", name, there)
        return dict(files), ()
    found = assign_splits(place, {name: name.lower() for name in there})
    if not there:
        raise UserError(f"{place}: it has no splits")
    if "train" not in found:
        raise UserError(
            f"{place}: a split named train is needed; there are: {', '.join(there)};"
            f" {as_option('dataset.files.train', there[0])} reads {there[0]} as train"
        )
    used = {split: names[0] for split, names in found.items()}
    left = [name for name in there if name not in used.values()]
    return used, unused(place, left, used)
