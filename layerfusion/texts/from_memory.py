"""Labelled texts that are in memory already: lists, a DataFrame, or a data set of `datasets`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerfusion.errors import UserError
from layerfusion.texts.columns import Columns
from layerfusion.texts.dataset import TextDataset
from layerfusion.texts.table import Table, make_table


def tables_of(
    data: Any, labels: Iterable[Any] | None, text: str, label: str, place: str
) -> dict[str, Table]:
    """Read the splits of what is in memory.

    Args:
        data: texts, with `labels` beside them; a pandas DataFrame; a `datasets.Dataset`; or a
            mapping of split to one of the last two, such as a `datasets.DatasetDict`.
        labels: one for each text, where `data` holds texts alone.
        text: name of the text column.
        label: name of the label column.
        place: what the data is called in messages.

    Raises:
        UserError: for data of another kind, a column that is missing, or lists of other lengths.
    """
    if labels is not None:
        texts, classes = list(data), list(labels)
        if len(texts) != len(classes):
            raise UserError(
                f"{place}: {len(texts)} texts and {len(classes)} labels; one label is needed for"
                " each text"
            )
        return {"train": _table(place, {text: texts, label: classes}, text, label)}
    if isinstance(data, Mapping) and data and all(_is_table(part) for part in data.values()):
        return {
            _split_name(place, name): _table_of(f"{place}, {name}", part, text, label)
            for name, part in data.items()
        }
    if _is_table(data):
        return {"train": _table_of(place, data, text, label)}
    raise UserError(
        f"{place}: an object of type {type(data).__name__} is no labelled data; a path, a name, a"
        " DataFrame, a datasets.Dataset, or texts with labels= are"
    )


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
        names = [dataset.label_names[number] for number in rows.labels]
        with temporary_beside(place / f"{split}.parquet") as temporary:
            table = pa.table({"text": list(rows.texts), "label": names})
            pq.write_table(table, temporary, write_page_checksum=True)
    return place


def _is_table(data: Any) -> bool:
    return hasattr(data, "columns") or hasattr(data, "column_names")


def _table_of(place: str, data: Any, text: str, label: str) -> Table:
    names = getattr(data, "column_names", None)
    columns = [str(name) for name in (names if names is not None else data.columns)]
    values = {name: list(data[name]) for name in columns}
    feature = getattr(data, "features", {}).get(label) if names is not None else None
    known = getattr(feature, "names", None)
    return _table(place, values, text, label, tuple(known) if known else None)


def _table(
    place: str,
    values: Mapping[str, Sequence[Any]],
    text: str,
    label: str,
    label_names: tuple[str, ...] | None = None,
) -> Table:
    plain = {name: [_plain(value) for value in column] for name, column in values.items()}
    return make_table(
        place,
        plain,
        Columns(text, label, {}, encoding_key="encoding"),
        typed=True,
        label_names=label_names,
    )


def _plain(value: Any) -> Any:
    """Take numbers and lists out of NumPy's types."""
    return value.tolist() if hasattr(value, "tolist") else value


def _split_name(place: str, name: str) -> str:
    from layerfusion.texts.split_names import ALIASES

    for split, names in ALIASES.items():
        if str(name).lower() in names:
            return split
    raise UserError(
        f"{place}: there is no split {name!r}; there are: {', '.join(ALIASES)}; leave others out"
    )
