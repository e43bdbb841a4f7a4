"""The texts and labels of one split as they were read, before any check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerfusion.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Columns:
    """The columns to read from a table, and a filter of its rows."""

    text: str
    """Name of the text column."""
    label: str | None
    """Name of the label column; none if the rows have no labels."""
    where: Mapping[str, str]
    """Column to value: only rows with all these values are kept."""


@dataclass(frozen=True)
class Table:
    """Rows of a file or of a Hugging Face split."""

    place: str
    """Name of the file or split, for messages."""
    texts: list[Any]
    labels: list[Any]
    rows: list[int]
    """Number of each row in its file, counted from 1."""
    typed: bool
    """False if all values are strings because the format, such as csv, has no other type."""
    label_names: tuple[str, ...] | None = None
    """Names of integer labels, if the format has them."""

    def where(self, index: int) -> str:
        """Name a row, for messages: `train.csv, row 7`."""
        return f"{self.place}, row {self.rows[index]}"


def make_table(
    place: str,
    values: Mapping[str, Sequence[Any]],
    columns: Columns,
    *,
    typed: bool,
    label_names: tuple[str, ...] | None = None,
) -> Table:
    """Pick the wanted columns and rows.

    Raises:
        UserError: if a column does not exist, naming those that do, or if no row is left.
    """
    for name, key in [(columns.text, "text"), (columns.label, "label")]:
        if name is not None:
            require_column(place, name, f"dataset.{key}", values)
    for name in columns.where:
        require_column(place, name, "where", values)
    total = len(values[columns.text])
    kept = [
        index
        for index in range(total)
        if all(str(values[name][index]) == wanted for name, wanted in columns.where.items())
    ]
    if not kept:
        wanted = ", ".join(f"{name}={value}" for name, value in columns.where.items())
        raise UserError(f"{place}: no rows" + (f" with {wanted}, out of {total}" if total else ""))
    texts = values[columns.text]
    labels = [None] * total if columns.label is None else values[columns.label]
    return Table(
        place=place,
        texts=[texts[index] for index in kept],
        labels=[labels[index] for index in kept],
        rows=[index + 1 for index in kept],
        typed=typed,
        label_names=label_names,
    )


def join_tables(tables: Sequence[Table]) -> Table:
    """Join the rows of several files of one split, in order."""
    first = tables[0]
    if len(tables) == 1:
        return first
    return Table(
        place=f"{first.place} … {tables[-1].place}",
        texts=[text for table in tables for text in table.texts],
        labels=[label for table in tables for label in table.labels],
        rows=[row for table in tables for row in table.rows],
        typed=first.typed,
        label_names=first.label_names,
    )


def require_column(place: str, name: str, key: str, columns: Mapping[str, Any]) -> None:
    """Raise a `UserError` naming the columns that exist, unless `name` is one of them."""
    if name not in columns:
        found = ", ".join(map(repr, columns)) or "none"
        raise UserError(f"{place}: there is no column {name!r} ({key}); there are: {found}")
