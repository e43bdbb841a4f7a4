"""Finding the splits of a data set among the files of a folder or the parts of a saved data set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerfusion.assets.paths import data_suffix
from layerfusion.config.assets import DataSourceConfig
from layerfusion.config.registry import READERS
from layerfusion.errors import UserError, unknown
from layerfusion.texts.readers import read_file
from layerfusion.texts.table import SPLITS, Columns, Table, join_tables, make_table

ALIASES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""Split to the file names that mean it, in lower case and without their suffix."""
LABELS_FILE = "labels.json"
"""The file beside the data that names its classes."""
_SHARD = re.compile(r"-\d+-of-\d+$")


def read_tables(
    path: Path, source: DataSourceConfig, columns: Columns, reader: str | None = None
) -> dict[str, Table]:
    """Read every split of a file or folder; a single table counts as `train`.

    Args:
        path: a file, a folder of files, or a folder that `datasets` saved.
        source: names of its splits, its encoding and lines to skip.
        columns: which columns and rows to take.
        reader: a function of the user's that reads the file (see `read_file`).

    Raises:
        UserError: if the splits cannot be told apart or a file cannot be read.
    """
    for split in source.files:
        if split not in SPLITS:
            raise unknown("files", split, SPLITS)
    if path.is_file():
        return {"train": _read(path, source, columns, reader)}
    if reader is not None:
        raise UserError(
            f"dataset.reader={reader}: it reads files, and {path} is a folder; name the files by"
            " dataset.train, dataset.validation and dataset.test"
        )
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _read_saved(path, source, columns)
    return {
        split: join_tables([_read(file, source, columns) for file in files])
        for split, files in split_files(path, source.files).items()
    }


def split_files(folder: Path, files: Mapping[str, str]) -> dict[str, list[Path]]:
    """Map each split to its files in a folder.

    Args:
        folder: its files are looked at, those of folders in it are not.
        files: name of each split's file. If empty, splits are found by file names (train.csv,
            Dev.tsv, test-00000-of-00002.parquet), or else the only data file is train.

    Raises:
        UserError: naming the files of the folder.
    """
    data_files = sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and data_suffix(file) in READERS
        and file.name != LABELS_FILE
        and not file.name.startswith(".")
    )
    names = [file.name for file in data_files]
    if files:
        for split, name in files.items():
            if not (folder / name).is_file():
                raise unknown(f"{folder}: file of {split}", name, names)
        return {split: [folder / name] for split, name in files.items()}
    named = {
        split: [file for file in data_files if _stem(file) in ALIASES[split]] for split in SPLITS
    }
    named = {split: members for split, members in named.items() if members}
    for split, members in named.items():
        if len(members) > 1 and not all(_SHARD.search(_bare(file)) for file in members):
            clash = ", ".join(file.name for file in members)
            raise UserError(f"{folder}: several files for {split} ({clash}); leave one")
    if "train" in named:
        return named
    if named or len(data_files) != 1:
        raise UserError(
            f"{folder}: a file named train is needed, or a single data file; there are:"
            f" {', '.join(names) or 'none'}; allowed: {', '.join(READERS)}"
        )
    return {"train": data_files}


def read_label_names(path: Path) -> tuple[str, ...] | None:
    """Read the class names in `labels.json` beside the data: a list, or an object of index to name.

    Raises:
        UserError: if the file has another form.
    """
    file = (path if path.is_dir() else path.parent) / LABELS_FILE
    if not file.is_file():
        return None
    try:
        names = json.loads(file.read_text(encoding="utf-8-sig"))
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


def _stem(file: Path) -> str:
    return _SHARD.sub("", _bare(file))


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
    return {
        split: _saved_table(name, parts[name], columns)
        for split, name in _saved_splits(folder.name, parts, source.files).items()
    }


def _saved_splits(place: str, parts: Iterable[str], files: Mapping[str, str]) -> dict[str, str]:
    there: Sequence[str] = list(parts)
    if files:
        for split, name in files.items():
            if name not in there:
                raise unknown(f"{place}: split for {split}", name, there)
        return dict(files)
    splits = {split: name for split in SPLITS for name in there if name.lower() in ALIASES[split]}
    if "train" not in splits:
        raise UserError(f"{place}: a split named train is needed; there are: {', '.join(there)}")
    return splits


def _saved_table(name: str, part: Any, columns: Columns) -> Table:
    wanted = {columns.text, columns.label, *columns.where}
    values = {column: () for column in part.column_names}
    values |= {column: part[column][:] for column in part.column_names if column in wanted}
    names = getattr(part.features.get(columns.label), "names", None)
    label_names = tuple(names) if names else None
    return make_table(name, values, columns, typed=True, label_names=label_names)
