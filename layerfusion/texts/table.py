"""The texts and labels of one split, as read and not yet judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerfusion.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what, and which rows count."""

    text: str
    label: str | None
    """None: the rows have no labels."""
    where: Mapping[str, str]
    """Keep the rows whose column equals the value."""


@dataclass(frozen=True)
class Table:
    """Rows of a file or of a Hugging Face split."""

    place: str
    """The file or split, for messages."""
    texts: list[Any]
    labels: list[Any]
    rows: list[int]
    """Number of each row in its source, the first row of data being 1."""
    typed: bool
    """False where every value is a string because the format (csv) knows nothing else."""
    label_names: tuple[str, ...] | None = None
    """Names of integer labels, where the format carries them."""

    def where(self, index: int) -> str:
        """A row, for messages."""
        return f"{self.place}, row {self.rows[index]}"


def make_table(
    place: str,
    values: Mapping[str, Sequence[Any]],
    columns: Columns,
    *,
    typed: bool,
    label_names: tuple[str, ...] | None = None,
) -> Table:
    """Pick the columns and rows that count.

    Raises:
        UserError: for a column that does not exist, naming those that do, or where no row is left.
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
    """The rows of several files of one split, in order."""
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


def require_column(place: str, name: str, key: str, there: Mapping[str, Any]) -> None:
    """Raise a `UserError` naming the columns that exist, unless `name` is one of them."""
    if name not in there:
        found = ", ".join(repr(column) for column in there) or "none"
        raise UserError(f"{place}: there is no column {name!r} ({key}); there are: {found}")
