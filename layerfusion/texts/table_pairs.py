"""Texts and labels in two tables, row by row: `X_train.csv` beside `y_train.csv`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layerfusion.assets.paths import data_suffix
from layerfusion.errors import UserError, short
from layerfusion.texts.columns import OFTEN, Columns, find_column
from layerfusion.texts.delimited import cells_of, first_line, read_rows
from layerfusion.texts.encoding import read_text
from layerfusion.texts.line_pairs import name_of_pair
from layerfusion.texts.readers import read_file
from layerfusion.texts.table import Table, make_table

_TABLES = {".csv": ",;\t", ".tsv": "\t", ".tab": "\t"}
"""Suffixes of the tables, and what may stand between their cells."""


@dataclass(frozen=True)
class _Cells:
    """The rows of a table, the first of which may be a header."""

    path: Path
    rows: list[list[str]]
    headed: bool
    """True if the first row is a header."""

    def columns(self, alone: str) -> dict[str, list[str]]:
        """Name of each column to its cells; the only column without a name is called `alone`."""
        names = self.rows[0] if self.headed else [alone]
        if len(names) != len(self.rows[0]) or len(set(names)) < len(names):
            raise UserError(f"{self.path}: give its columns names of their own, in a first line")
        rows = self.rows[self.headed :]
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def labels_tables(files: Sequence[Path]) -> dict[Path, Path]:
    """Find the table of labels that belongs to each table of texts, by their names.

    Args:
        files: the data files of a folder.

    Returns:
        Texts to labels: `X_train.csv` to `y_train.csv`, `test.csv` to `test_labels.csv`.
    """
    texts: dict[str, list[Path]] = {}
    labels: dict[str, list[Path]] = {}
    for file in files:
        if data_suffix(file) in _TABLES:
            common, named = name_of_pair(file)
            (labels if named else texts).setdefault(common, []).append(file)
    return {
        group[0]: labels[common][0]
        for common, group in texts.items()
        if len(group) == len(labels.get(common, ())) == 1
    }


def labels_beside_table(texts: Path) -> Path | None:
    """Find the table with the labels of a table; none where none lies beside it."""
    if data_suffix(texts) not in _TABLES:
        return None
    return labels_tables([one for one in sorted(texts.parent.iterdir()) if one.is_file()]).get(
        texts
    )


def read_table_pair(texts: Path, labels: Path, columns: Columns, encoding: str) -> Table:
    """Read the texts of one table with the labels of another, row by row.

    Columns that both have, such as the numbers of the rows, must agree. A table that has labels of
    its own is read alone, and it is noted that the other is not used.

    Raises:
        UserError: where the tables differ in their rows.
    """
    own, more = _cells(texts, encoding, columns), _cells(labels, encoding, columns)
    more = replace(more, headed=_are_headed(own, more, columns))
    total = len(more.rows) - more.headed
    fits = 0 <= len(own.rows) - total <= 1
    shared = set(own.rows[0]) & set(more.rows[0])
    if _names_labels(own, columns) or not (fits or len(own.rows[0]) <= len(shared) + 1):
        table = read_file(texts, columns, encoding=encoding)
        note = f"{labels.name} beside {texts.name} is not used"
        return replace(table, notes=(*table.notes, note))
    own = replace(own, headed=_names_texts(own, columns) or len(own.rows) == total + 1)
    if len(own.rows) - own.headed != total:
        raise UserError(
            f"{texts}: it has {len(own.rows):,} lines, and {labels.name}, which would have the"
            f" label of each, has {len(more.rows):,}; write both into one table"
        )
    values, others = own.columns(columns.text), more.columns(str(columns.label))
    if len(values) == len(others) == 1:  # pandas may call both columns 0
        others = {columns.label or "label": next(iter(others.values()))}
        values = {columns.text: next(iter(values.values()))}
    for name in values.keys() & others.keys():
        for row, (one, other) in enumerate(zip(values[name], others[name], strict=True), start=1):
            if one != other:
                raise UserError(
                    f"{texts}, row {row}: its {name or 'first cell'} is {short(one)}, and that of"
                    f" {labels.name} {short(other)}; put their rows in the same order"
                )
    new = [name for name in others if name not in values]
    if len(new) == 1 and columns.label is not None and find_column(columns.label, new) is None:
        others[columns.label] = others.pop(new[0])
    note = f"{texts.name}, {labels.name}: a text and its label on each row"
    return make_table(texts.name, {**values, **others}, columns, typed=False, notes=[note])


def _cells(path: Path, encoding: str, columns: Columns) -> _Cells:
    text = read_text(path, encoding, columns.encoding_key)
    _, header = first_line(text)
    delimiter = max(_TABLES[data_suffix(path)], key=lambda mark: len(cells_of(header, mark)))
    rows = read_rows(str(path), text, delimiter, headed=False).cells
    return _Cells(path, rows, headed=True)


def _names_texts(table: _Cells, columns: Columns) -> bool:
    """Tell whether the first row of a table names its column of texts."""
    usual = (*OFTEN["text"], columns.text.strip().casefold())
    return any(name.strip().casefold() in usual for name in table.rows[0])


def _names_labels(table: _Cells, columns: Columns) -> bool:
    """Tell whether the first row of a table names its own column of labels."""
    names = [name.strip().casefold() for name in table.rows[0]]
    wanted = {*OFTEN["label"], *(name.strip().casefold() for name in columns.of_labels)}
    return len(names) > 1 and any(name in wanted for name in names)


def _are_headed(own: _Cells, more: _Cells, columns: Columns) -> bool:
    """Tell whether the first row of a table of labels is a header: no other row has its label.

    Two tables of as many lines begin alike; pandas calls a column without a name 0, as a label is.
    """
    first, *others = [row[-1] for row in more.rows]
    alike = own.rows[0] == more.rows[0] or _names_texts(own, columns)
    return first not in others or (len(own.rows) == len(more.rows) and alike)
