"""Loading a labelled data set: from a config to three splits with a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from layerfusion.assets import Asset, resolve
from layerfusion.assets.files import in_one_line, is_shown_in_one_line
from layerfusion.calls import plain_methods
from layerfusion.config.assets import DataSourceConfig
from layerfusion.config.check import check_dataset
from layerfusion.config.job import DatasetConfig, LimitConfig
from layerfusion.config.options import as_option
from layerfusion.config.rules import RULE, a_seed, check_rules
from layerfusion.errors import Mendable, UserError, first_few
from layerfusion.texts.columns import Columns
from layerfusion.texts.data_card import read_card
from layerfusion.texts.groups import groups_of
from layerfusion.texts.labels import (
    class_indices,
    class_matrix,
    clean_texts,
    read_label_names,
    refuse_constant,
    strange_texts,
    without_unlabelled,
)
from layerfusion.texts.layout import read_tables
from layerfusion.texts.split_files import LABELS_FILE
from layerfusion.texts.splits import Split, complete_splits
from layerfusion.texts.table import SPLITS, Table, read_by_own_names


@plain_methods
@dataclass(frozen=True)
class TextDataset:
    """Texts with their classes, or with any number of labels each, in three splits."""

    name: str
    splits: dict[str, Split]
    """Name of each split (train, validation and test, always all three) to its rows."""
    label_names: tuple[str, ...]
    fingerprint: str
    """sha256 of the texts, label names and groups. The same content has the same fingerprint, from
    whatever files it comes."""
    origin: str
    """The files or hub data set that it came from, in words."""
    available: dict[str, int]
    """Rows of each split before a sample was taken."""
    sampled: bool
    """True if a sample was taken, as `limit` asks for."""
    overlap: int
    """Rows of test whose text also occurs in train or validation."""
    notes: tuple[str, ...]
    """Facts that a reader of results has to know, such as splits made here and texts dropped."""
    train_order: np.ndarray | None = None
    """Position of each row of train, followed by those of validation, before validation was split
    off; none if the data has its own validation. Shape: (rows,)."""

    def __repr__(self) -> str:
        rows = ", ".join(f"{len(split)} {name}" for name, split in self.splits.items())
        what = "labels" if self.multilabel else "classes"
        return f"TextDataset({self.name}; {rows} rows; {what} {first_few(self.label_names)})"

    @property
    def multilabel(self) -> bool:
        """True where a text has any number of the labels, and not one of the classes."""
        return self.splits["train"].labels.ndim == 2

    @property
    def coding(self) -> tuple[str, tuple[str, ...]]:
        """What numbers of classes and columns of labels that are kept for later belong to.

        Content of one fingerprint may have its classes in another order, as `label_names` or the
        columns of a matrix give it.
        """
        return self.fingerprint, self.label_names


def load_dataset(
    config: DatasetConfig, limit: LimitConfig, *, seed: int, cache: Path
) -> TextDataset:
    r"""Find, read, check and split a data set.

    Args:
        config: the location of the data and how to read it. `train`, then `path`, then `hub` take
            precedence over `sources`.
        limit: sizes of the samples to take, if any.
        seed: draws the samples of `limit`; `config.split_seed` draws the splits.
        cache: folder for downloads.

    Raises:
        UserError: naming the file, split, row or label that is wrong.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> rows = "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(40))
        >>> _ = (folder / "mine.csv").write_text(f"text,label\n{rows}")
        >>> config = DatasetConfig("mine", path=str(folder / "mine.csv"))
        >>> dataset = load_dataset(config, LimitConfig(), seed=0, cache=folder)
        >>> dataset.label_names, {name: len(split) for name, split in dataset.splits.items()}
        (('a', 'b'), {'train': 29, 'validation': 3, 'test': 8})
    """
    check_dataset(config)
    check_rules(limit, "limit")
    try:
        tables, names, origin = _read(config, cache)
    except OSError as error:
        if not is_shown_in_one_line(error):
            raise
        raise UserError(f"dataset {config.name}: {in_one_line(error)}") from error
    return dataset_from_tables(config, limit, tables, names, origin, seed=seed)


def dataset_from_tables(
    config: DatasetConfig,
    limit: LimitConfig,
    tables: Mapping[str, Table],
    names: Sequence[str] | None,
    origin: str,
    *,
    seed: int,
) -> TextDataset:
    """Check and split tables that are in memory.

    Args:
        config: name of the data set, and how splits that it lacks are made.
        limit: sizes of the samples to take, if any.
        tables: split to its table; train at least.
        names: names of integer labels, or the order of string labels; none: see `class_indices`.
            Whether a row has several labels is a fact about its table.
        origin: where the tables came from, for a reader.
        seed: draws the samples of `limit`; `config.split_seed` draws the splits.

    Raises:
        UserError: naming the split, row or label that is wrong.
    """
    a_seed()[RULE].check("seed", seed)
    try:
        tables, dropped = without_unlabelled(tables)
        texts = {split: clean_texts(split, table) for split, table in tables.items()}
        read_labels = class_matrix if tables["train"].multilabel else class_indices
        label_names, labels, doubts = read_labels(tables, names)
        doubts = (*doubts, *strange_texts(texts))
        key = "groups" if config.group is None else "dataset.group"
        groups = {split: groups_of(table.groups, key) for split, table in tables.items()}
        given = {split: Split(texts[split], labels[split], groups[split]) for split in tables}
        grouped = [own for own in groups.values() if own is not None]
        if grouped and not any(map(any, grouped)):
            column = "" if config.group is None else f" in the column {config.group!r}"
            raise UserError(f"{key}: no row has a group{column}; leave it out")
        splits = complete_splits(given, label_names, config, limit, seed=seed)
        refuse_constant(splits.used["train"].labels, label_names)
        read = dict.fromkeys(note for table in tables.values() for note in table.notes)
    except UserError as error:
        raise Mendable(f"dataset {config.name}: {error}", *error.options) from error
    return TextDataset(
        name=config.title,
        splits=splits.used,
        label_names=label_names,
        fingerprint=fingerprint(splits.used, label_names),
        origin=origin,
        available=splits.available,
        sampled=splits.sampled,
        overlap=splits.overlap,
        notes=(*read, *dropped, *doubts, *splits.notes),
        train_order=splits.train_order,
    )


def fingerprint(splits: dict[str, Split], label_names: tuple[str, ...]) -> str:
    """Compute the sha256 of all texts, label names and groups, split by split, in order."""
    content = []
    for split, rows in splits.items():
        columns = [rows.texts, names_of_rows(rows, label_names)]
        if rows.groups is not None:
            columns.append(rows.groups)
        content.append([split, [list(row) for row in zip(*columns, strict=True)]])
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()


def names_of_rows(rows: Split, label_names: Sequence[str]) -> list[str] | list[list[str]]:
    """Name the class of each row; of rows with several labels, list their names in order."""
    if rows.labels.ndim == 1:
        numbers: list[int] = rows.labels.tolist()
        return [label_names[number] for number in numbers]
    marks: list[list[bool]] = rows.labels.tolist()
    return [sorted(compress(label_names, row)) for row in marks]


# -- where the tables come from -----------------------------------------------------------------


def _read(
    config: DatasetConfig, cache: Path
) -> tuple[dict[str, Table], tuple[str, ...] | None, str]:
    """Read the table of each split, the label names if there are any, and the origin."""
    if config.train or config.validation or config.test:
        tables, path, origin = _read_files(config, cache)
    else:
        asset, source = _asset(_sources(config), config, cache)
        reader = config.reader if config.path else None
        tables = read_tables(asset.path, source, _columns_of(source, config), reader)
        path, origin = asset.path, asset.origin
    beside = None if config.label_columns else read_label_names(path)
    names = tuple(config.label_names) or beside
    if names is None and not config.label_columns and path.is_dir():
        card = read_card(path, named=bool(config.files))
        names = card.class_names(config.label, tables) or None
    by_name = read_by_own_names(list(tables.values()), names or ())
    tables = dict(zip(tables, by_name, strict=True))
    if names and not config.label_names and path.is_file():
        note = f"labels: named by {LABELS_FILE} beside {path.name}"
        tables["train"] = replace(tables["train"], notes=(*tables["train"].notes, note))
    named = (table.label_names for table in tables.values() if table.label_names)
    return tables, names or next(named, None), origin


def _read_files(config: DatasetConfig, cache: Path) -> tuple[dict[str, Table], Path, str]:
    """Read the files of `dataset.train`, `dataset.validation` and `dataset.test`."""
    if config.train is None:
        raise UserError("dataset.train: a file is needed beside dataset.validation and .test")
    tables: dict[str, Table] = {}
    given = {split: getattr(config, split) for split in SPLITS if getattr(config, split)}
    assets = {
        split: _asset([_user_source(config, path=name)], config, cache)
        for split, name in given.items()
    }
    paths = [asset.path for asset, _ in assets.values()]
    for split, name in given.items():
        asset, source = assets[split]
        way_out = f"if its rows have none, leave out dataset.{split}, and it is made from train"
        columns = _columns_of(source, config)
        if split != "train":
            columns = replace(columns, without_label=way_out)
        read = read_tables(asset.path, source, columns, config.reader, list(given))
        if set(read) != {"train"}:
            raise UserError(
                f"dataset.{split}={name}: it holds several splits ({', '.join(read)});"
                f" {as_option('dataset.path', name)} reads them"
            )
        tables[split] = read["train"]
    return tables, paths[0], f"path {', '.join(given.values())}"


def _sources(config: DatasetConfig) -> list[DataSourceConfig]:
    if config.path:
        return [_user_source(config, path=config.path)]
    if config.hub:
        return [_user_source(config, hub=config.hub)]
    if not config.sources:
        raise UserError(
            "dataset: it needs dataset.path (file or folder), dataset.train (file) or dataset.hub"
            " (owner/name)"
        )
    return config.sources


def _user_source(
    config: DatasetConfig, *, path: str | None = None, hub: str | None = None
) -> DataSourceConfig:
    return DataSourceConfig(
        path=path,
        hub=hub,
        revision=config.revision,
        inside=config.subset if hub else None,
        files=dict(config.files) if hub or path == config.path else {},
        encoding=config.encoding,
    )


def _asset(
    sources: list[DataSourceConfig], config: DatasetConfig, cache: Path
) -> tuple[Asset, DataSourceConfig]:
    asset = resolve(sources, key=f"dataset {config.name}", kind="dataset", cache=cache)
    served = next(source for source in sources if source is asset.source)
    return asset, served


def _columns_of(source: DataSourceConfig, config: DatasetConfig) -> Columns:
    columns = Columns(
        text=source.text or config.text,
        label=source.label or config.label,
        where=source.where,
        group=config.group,
    )
    if config.label_columns:
        return replace(columns, label=None, label_columns=tuple(map(str, config.label_columns)))
    return replace(columns, multilabel=config.multilabel, label_separator=config.label_separator)
