"""Labelled texts that are in memory: lists, rows, a DataFrame, or a data set of `datasets`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from layerfusion.errors import UserError
from layerfusion.texts.cells import plain
from layerfusion.texts.columns import Columns
from layerfusion.texts.dataset import TextDataset, names_of_rows
from layerfusion.texts.form import distinct_columns
from layerfusion.texts.groups import cells_beside
from layerfusion.texts.strings import other_order
from layerfusion.texts.table import Table, make_table

GROUP = "group"
"""The column of groups in files that are written here."""
_SHOWN = 8
"""Columns that are named in a message."""


def tables_of(
    data: Any,
    labels: Any,
    columns: Columns,
    place: str,
    label_names: Sequence[str] = (),
    *,
    groups: Any = None,
) -> dict[str, Table]:
    """Read the splits of what is in memory.

    Rows have any number of labels where `columns` says so, where a row has a list of several or of
    none, and where `labels` is a matrix of 0 and 1, with a row for each text and a column for each
    label.

    Args:
        data: texts, with `labels` beside them; a pandas DataFrame; a `datasets.Dataset`; a list of
            rows, each a mapping of column to cell, or a text and its label; or a mapping of split
            to one of the last three, such as a `datasets.DatasetDict`.
        labels: one for each text, or a list of them, or a matrix (of NumPy, SciPy or pandas), where
            `data` holds texts alone.
        columns: which columns have the texts and labels.
        place: what the data is called in messages.
        label_names: names of the columns of a matrix; if empty, pandas' own, or their numbers.
        groups: group of each text, beside `labels`; None if they have none.

    Raises:
        UserError: for data of another kind, a column that is missing, or lists of other lengths.
    """
    if labels is not None:
        texts = _texts_of(data, labels, place)
        table = _table_beside(texts, labels, columns, place, label_names)
        if groups is not None:
            table = replace(table, groups=cells_beside(groups, data, len(texts), place))
        return {"train": table}
    in_splits = isinstance(data, Mapping)
    tables = {
        name: _table_of(part, columns)
        for name, part in (data.items() if in_splits else [("train", data)])
    }
    if not tables or not all(map(_is_table, tables.values())):
        raise UserError(
            f"{place}: an object of type {type(data).__name__} is no labelled data; a path, a name,"
            " a DataFrame, a datasets.Dataset, a list of dicts or of (text, label), or texts with"
            " labels= are"
        )
    parts = {
        _split_name(place, name): (f"{place}, {name}" if in_splits else place, table)
        for name, table in tables.items()
    }
    values = {split: _values(called, part, columns) for split, (called, part) in parts.items()}
    cells = [cell for part in values.values() for cell in part.get(columns.label or "", ())]
    if _have_several(cells):
        columns = replace(columns, multilabel=True)
    return {
        split: make_table(
            called,
            values[split],
            columns,
            typed=True,
            label_names=_class_names(part, columns.label),
        )
        for split, (called, part) in parts.items()
    }


def _texts_of(data: Any, labels: Any, place: str) -> list[Any]:
    """The texts that labels stand beside, in the order that they have."""
    for what, found in (("texts", data), ("labels", labels)):
        if isinstance(found, Set | Mapping | str | bytes) or not isinstance(found, Iterable):
            raise UserError(
                f"{place}: the {what} are an object of type {type(found).__name__}, which has no"
                " rows in an order; a list has"
            )
    if wrong := other_order(data, labels):
        raise UserError(f"{place}: {wrong}")
    if not _is_table(data):
        return [plain(text) for text in data]
    names = _names_of(data)
    if len(names) > 1:
        raise UserError(
            f"{place}: labels= goes with texts alone, and this table has {len(names)} columns"
            f" ({', '.join(map(repr, names[:_SHOWN]))}); select that of the texts, or name the"
            " column of the labels by label= and leave out labels="
        )
    return [plain(text) for text in data[names[0]]]


def _table_beside(
    texts: list[Any], labels: Any, columns: Columns, place: str, label_names: Sequence[str]
) -> Table:
    """Make a table of texts and their labels, a label, a list or a row of a matrix for each."""
    marks = _matrix(place, labels, label_names)
    if marks is not None:
        text = columns.text
        while text in marks:
            text += "_"
        columns = replace(columns, text=text, label=None, label_columns=tuple(marks))
    else:
        marks = {str(columns.label): [plain(one) for one in _rows_of(labels)]}
        if _have_several(marks[str(columns.label)]):
            columns = replace(columns, multilabel=True)
    for column in marks.values():
        if len(column) != len(texts):
            raise UserError(
                f"{place}: {len(texts)} texts and {len(column)} labels; one label is needed for"
                " each text"
            )
    return make_table(place, {columns.text: texts, **marks}, columns, typed=True)


def _matrix(place: str, labels: Any, names: Sequence[str]) -> dict[str, list[Any]] | None:
    """Take a matrix apart: name of each label to its column. None for what is no matrix."""
    if hasattr(labels, "columns") and len(labels.columns) > 1:
        if len(set(labels.columns)) < len(labels.columns):
            raise UserError(
                f"{place}: two columns of labels have the same name; each label needs its own"
            )
        return {str(name): [plain(x) for x in labels[name]] for name in labels.columns}
    if hasattr(labels, "toarray"):
        labels = labels.toarray()
    if getattr(labels, "ndim", 1) != 2 or hasattr(labels, "columns"):
        return None
    array = np.asarray(labels)
    if array.shape[1] < 2 or array.dtype.kind not in "biuf":
        return None
    names = list(names) or [str(number) for number in range(array.shape[1])]
    if len(set(names)) != array.shape[1]:
        raise UserError(
            f"{place}: the matrix of labels has {array.shape[1]} columns, and there are"
            f" {len(set(names))} different label names"
        )
    return {name: array[:, number].tolist() for number, name in enumerate(names)}


def _rows_of(labels: Any) -> Iterable[Any]:
    """The labels one by one, also of a table with a single column."""
    return labels[labels.columns[0]] if hasattr(labels, "columns") else labels


def _have_several(cells: Sequence[Any]) -> bool:
    """Tell lists of any number of labels from labels, and from lists of one each."""
    return any(isinstance(cell, list | tuple | set | frozenset) and len(cell) != 1
               for cell in cells)  # fmt: skip


def write_parquet(dataset: TextDataset, folder: Path) -> Path:
    """Keep the splits of a data set as files, so that jobs on it can be traced and run again.

    Args:
        dataset: the texts.
        folder: its files go to a folder below, which the fingerprint of the data names.

    Returns:
        The folder with train.parquet, validation.parquet and test.parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from layerfusion.assets.files import temporary_beside

    place = folder / dataset.fingerprint[:16]
    place.mkdir(parents=True, exist_ok=True)
    for split, rows in dataset.splits.items():
        names = names_of_rows(rows, dataset.label_names)
        kind = pa.list_(pa.string()) if dataset.multilabel else pa.string()
        with temporary_beside(place / f"{split}.parquet") as temporary:
            table = pa.table({"text": list(rows.texts), "label": pa.array(names, kind)})
            if rows.groups is not None:
                table = table.append_column(GROUP, pa.array(rows.groups, pa.string()))
            pq.write_table(table, temporary, write_page_checksum=True)
    return place


def _table_of(data: Any, columns: Columns) -> Any:
    """Make a DataFrame of a list of rows, which may be mappings or pairs; leave others alone."""
    if not isinstance(data, list | tuple) or not data:
        return data
    import pandas

    if all(isinstance(row, Mapping) for row in data):
        return pandas.DataFrame(list(data), dtype=object)
    pairs = all(isinstance(row, list | tuple) and len(row) == 2 for row in data)
    if pairs and columns.label is not None:
        cells = {name: [row[n] for row in data] for n, name in enumerate(("text", "label"))}
        return pandas.DataFrame(cells, dtype=object).set_axis([columns.text, columns.label], axis=1)
    return data


def _is_table(data: Any) -> bool:
    return hasattr(data, "columns") or hasattr(data, "column_names")


def _values(place: str, data: Any, columns: Columns) -> dict[str, list[Any]]:
    """Name of each column of a DataFrame or a `datasets.Dataset` to its cells."""
    names = _names_of(data)
    distinct, _ = distinct_columns(Path(place), list(map(str, names)), columns)
    cells = [
        data.iloc[:, n] if hasattr(data, "iloc") else data[name] for n, name in enumerate(names)
    ]
    return {
        name: [plain(cell) for cell in column] for name, column in zip(distinct, cells, strict=True)
    }


def _names_of(data: Any) -> list[Any]:
    """The names of the columns of a table, which pandas may have several times."""
    names = getattr(data, "column_names", None)
    return list(names if names is not None else data.columns)


def _class_names(data: Any, label: str | None) -> tuple[str, ...] | None:
    """The class names that a `datasets.Dataset` knows of a column, also of one with lists."""
    if not hasattr(data, "column_names"):
        return None
    feature = getattr(data, "features", {}).get(label)
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return tuple(names) if names else None


def _split_name(place: str, name: str) -> str:
    from layerfusion.texts.split_names import ALIASES

    for split, names in ALIASES.items():
        if str(name).lower() in names:
            return split
    raise UserError(
        f"{place}: there is no split {name!r}; there are: {', '.join(ALIASES)}; leave others out"
    )
