"""Finding the splits of a data set among the files of a folder or the parts of a saved data set."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerfusion.assets.files import parse_json
from layerfusion.assets.paths import data_suffix
from layerfusion.config.assets import DataSourceConfig
from layerfusion.config.options import as_option
from layerfusion.config.registry import READERS
from layerfusion.errors import UserError, unknown
from layerfusion.texts.class_folders import class_folders, read_class_folders
from layerfusion.texts.columns import Columns
from layerfusion.texts.readers import read_file
from layerfusion.texts.split_names import ALIASES, named_parts
from layerfusion.texts.table import SPLITS, Table, join_tables, make_table

LABELS_FILE = "labels.json"
"""The file beside the data that names its classes."""
_SHARD = re.compile(r"-(\d+)-of-(\d+)$")


def read_tables(
    path: Path, source: DataSourceConfig, columns: Columns, reader: str | None = None
) -> dict[str, Table]:
    """Read every split of a file or folder; a single table counts as `train`.

    What lies there and is not used is noted on the table of `train`.

    Args:
        path: a file, a folder of files, or a folder that `datasets` saved.
        source: names of its splits, its encoding and lines to skip.
        columns: which columns and rows to take.
        reader: a function of the user's that reads the file (see `read_file`).

    Raises:
        UserError: if the splits cannot be told apart, a shard is missing or a file cannot be
            read.
    """
    for split in source.files:
        if split not in SPLITS:
            raise unknown("files", split, SPLITS)
    if path.is_file():
        table = _read(path, source, columns, reader)
        return {"train": replace(table, notes=(*table.notes, *_beside(path)))}
    if reader is not None:
        raise UserError(
            f"dataset.reader={reader}: it reads files, and {path} is a folder; name the files by"
            " dataset.train, dataset.validation and dataset.test"
        )
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _read_saved(path, source, columns)
    if folders := class_folders(path, source.files):
        return read_class_folders(path, folders, columns, source.encoding)
    files, notes = split_files(path, source.files)
    tables = {}
    for split, members in files.items():
        if split != "train":
            columns = replace(columns, without_label=_without(split, files["train"][0].name))
        tables[split] = join_tables([_read(file, source, columns) for file in members])
    tables["train"] = replace(tables["train"], notes=(*tables["train"].notes, *notes))
    return tables


def _without(split: str, train: str) -> str:
    """Say what to do about a split that has no labels."""
    return (
        f"if its rows have none, {as_option('dataset.files.train', train)} alone leaves it out, and"
        f" {split} is made from train"
    )


def split_files(
    folder: Path, files: Mapping[str, str]
) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Find the files of a folder that hold each split.

    Args:
        folder: its direct members are looked at.
        files: split to file name; empty: found by their names (train.csv, Dev.tsv,
            reviews_test.csv, test-00000-of-00002.parquet), or else the only data file there is.

    Returns:
        Split to its files in order, and notes on the files that are not used.

    Raises:
        UserError: naming the files of the folder.
    """
    found = _data_files(folder)
    names = [file.name for file in found]
    if files:
        for split, name in files.items():
            if not (folder / name).is_file():
                raise unknown(f"{folder}: file of {split}", name, names)
        return {split: [folder / name] for split, name in files.items()}, ()
    named = assign_splits(str(folder), {file.name: _bare(file) for file in found})
    if "train" not in named:
        if named or len(found) != 1:
            raise UserError(
                f"{folder}: a file named train is needed, or a single data file; there are:"
                f" {', '.join(names) or 'none'}; allowed: {', '.join(READERS)}{_below(folder)}"
            )
        return {"train": found}, ()
    used = {name for members in named.values() for name in members}
    members = {split: [folder / name for name in group] for split, group in named.items()}
    return members, _unused(str(folder), [name for name in names if name not in used])


def _below(folder: Path) -> str:
    """Name the keys that would read what lies in a folder's subfolders."""
    parts = [part for part in sorted(folder.iterdir()) if part.is_dir()]
    parts = [part for part in parts if not part.name.startswith(".")]
    above_classes = [part.name for part in parts if class_folders(part, {})]
    below = {part.name: files for part in parts if (files := _data_files(part))}
    splits = {split: names[0] for split, names in named_parts(below).items()}
    words: list[str] = []
    if len(above_classes) > 1:
        pairs = zip(("train", "test"), above_classes, strict=False)
        words = [as_option(f"dataset.files.{split}", name) for split, name in pairs]
    elif "train" in splits and all(len(below[name]) == 1 for name in splits.values()):
        words = [as_option(f"dataset.{split}", str(below[splits[split]][0])) for split in splits]
    elif len(below) == 1:
        (name, files), *_ = below.items()
        if len(files) == 1 or any("train" in _splits_in(_bare(file)) for file in files):
            words = [as_option("dataset.path", str(folder / name))]
    return f"; {' '.join(words)} would read what lies below it" if words else ""


def assign_splits(place: str, stems: Mapping[str, str]) -> dict[str, list[str]]:
    """Say by their names which files, or parts of a saved data set, hold which split.

    A name that is a split's (train, dev, test-00000-of-00002) goes before one in which a split's
    name is a word (reviews_test); of several such (validation_matched, validation_mismatched) none
    is taken.

    Args:
        place: where they lie, for messages.
        stems: name of each to its stem in lower case, without suffixes.

    Raises:
        UserError: where several claim one split, or a shard is missing.
    """
    result = {}
    for split in SPLITS:
        whole = [name for name, stem in stems.items() if _SHARD.sub("", stem) in ALIASES[split]]
        members = whole or [
            name for name, stem in stems.items() if _splits_in(_SHARD.sub("", stem)) == {split}
        ]
        if not whole and len({_SHARD.sub("", stems[name]) for name in members}) > 1:
            continue
        if members:
            _check_shards(place, split, {name: stems[name] for name in members})
            result[split] = members
    return result


def _splits_in(stem: str) -> set[str]:
    words = set(re.split(r"[^a-z0-9]+", stem))
    return {split for split in SPLITS if words & set(ALIASES[split])}


def _check_shards(place: str, split: str, stems: Mapping[str, str]) -> None:
    """Several files of one split have to be all the shards of one file."""
    shards = {name: match for name, stem in stems.items() if (match := _SHARD.search(stem))}
    kinds = {(_SHARD.sub("", stem), name in shards) for name, stem in stems.items()}
    if len(kinds) > 1 or (len(stems) > 1 and not shards):
        listed = ", ".join(stems)
        raise UserError(
            f"{place}: several files for {split} ({listed}); leave one, or name what to use:"
            f" dataset.files={{{split}: {next(iter(stems))}, …}}"
        )
    totals = {int(match[2]) for match in shards.values()}
    missing = sorted(set(range(max(totals, default=0))) - {int(m[1]) for m in shards.values()})
    if missing or len(totals) > 1:
        which = ", ".join(map(str, missing[:5])) or "some"
        raise UserError(
            f"{place}: shard {which} of {split} is missing; its shards are numbered from 0 to"
            f" {max(totals) - 1}, and there are: {', '.join(shards)}"
        )


def _unused(place: str, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    are = "is" if len(names) == 1 else "are"
    return (
        f"{', '.join(names)} in {place} {are} not used, as no split has such a name;"
        f" dataset.files={{train: …, test: {names[0]}}} would use {names[0]} as test",
    )


def _beside(path: Path) -> tuple[str, ...]:
    """Note what lies beside a file of train that is read alone, such as test.csv."""
    if "train" not in _splits_in(_bare(path)):
        return ()
    others = [
        file.name
        for file in _data_files(path.parent)
        if file != path and _splits_in(_bare(file)) & {"validation", "test"}
    ]
    if not others:
        return ()
    return (
        f"{', '.join(others)} beside {path.name} {'is' if len(others) == 1 else 'are'} not used;"
        f" dataset.path={path.parent} or dataset.test=FILE would",
    )


def _data_files(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and data_suffix(file) in READERS
        and file.name != LABELS_FILE
        and not file.name.startswith(".")
    )


def read_label_names(path: Path) -> tuple[str, ...] | None:
    """Read the class names in `labels.json` beside the data: a list, or an object of index to name.

    Raises:
        UserError: if the file has another form.
    """
    file = (path if path.is_dir() else path.parent) / LABELS_FILE
    if not file.is_file():
        return None
    try:
        names = parse_json(file.read_bytes().removeprefix(BOM_UTF8))
        if isinstance(names, dict):
            if all(isinstance(value, int) for value in names.values()):
                names = {str(index): name for name, index in names.items()}
            names = [names[str(index)] for index in range(len(names))]
    except (ValueError, KeyError) as error:
        raise UserError(f"{file}: a list of names, or {{index: name}} from 0, is needed") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: a list of names, or {{index: name}} from 0, is needed")
    return tuple(names)


def _read(
    path: Path, source: DataSourceConfig, columns: Columns, reader: str | None = None
) -> Table:
    return read_file(
        path, columns, encoding=source.encoding, skip_rows=source.skip_rows, reader=reader
    )


def _bare(file: Path) -> str:
    name = file.name.lower()
    for suffix in (".gz", data_suffix(file)):
        name = name.removesuffix(suffix)
    return name


# -- Hugging Face data sets ---------------------------------------------------------------------


def _read_saved(folder: Path, source: DataSourceConfig, columns: Columns) -> dict[str, Table]:
    """Read a data set that `datasets` saved with `save_to_disk`."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{folder}: not readable as a saved data set: {reason}") from error
    parts = {str(name): part for name, part in saved.items()} if isinstance(saved, dict) else None
    parts = parts or {"train": saved}
    members, notes = _saved_splits(str(folder), parts, source.files)
    tables = {split: _saved_table(name, parts[name], columns) for split, name in members.items()}
    tables["train"] = replace(tables["train"], notes=notes)
    return tables


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
    if "train" not in found:
        raise UserError(f"{place}: a split named train is needed; there are: {', '.join(there)}")
    used = {split: names[0] for split, names in found.items()}
    left = [name for name in there if name not in used.values()]
    return used, _unused(place, left)


def _saved_table(name: str, part: Any, columns: Columns) -> Table:
    wanted = {columns.text, columns.label, *columns.where}
    values = {column: () for column in part.column_names}
    values |= {column: part[column][:] for column in part.column_names if column in wanted}
    names = getattr(part.features.get(columns.label), "names", None)
    label_names = tuple(names) if names else None
    return make_table(name, values, columns, typed=True, label_names=label_names)
