"""Guessing which columns of a table hold the texts and the labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerfusion.config.assets import DataSourceConfig
from layerfusion.errors import UserError, short
from layerfusion.texts.cells import is_mark, is_missing, labels_in, written_list
from layerfusion.texts.columns import OFTEN, Columns, NoColumn, find_column
from layerfusion.texts.layout import read_tables
from layerfusion.texts.nested import paths_inside, with_paths

MOST_CLASSES = 200
"""A column with more different values is taken for no column of labels."""
_ROWS_OF_A_CLASS = 2
"""Rows that a class has at least, on average."""
_LABEL_LENGTH = 60
"""Labels with more characters on average are texts."""
_WORDS = 3
"""Words that a text has at least on average, in a column whose name does not say that it is one."""
_CHARACTERS = 12
"""Characters that such a text has at least, in a script that puts no spaces between words."""
_NAMED = 4
"""At most this many columns are named in a message."""
_CLEARLY = 3
"""Texts that are so many times as long as others are longer without doubt."""


_OFTEN_SEVERAL = 0.1
"""Smallest share of rows with a list of labels from which on the lists are taken as meant."""


_USUAL = Columns("text", "label", {})


class LabelsInLists(UserError):
    """The only column that may hold the labels has several of them in a row.

    Args:
        place: the file or folder.
        column: the column.
        example: a list in it.
        likely: the columns of texts, if they have to be guessed.
    """

    def __init__(self, place: Path, column: str, example: Any, likely: Sequence[str] = ()) -> None:
        super().__init__(
            f"{place}: the column {column!r} holds lists of labels, such as {short(example)}"
        )
        self.column = column
        self.texts = list(likely)


class LabelsInColumns(UserError):
    """Several columns of yes and no may hold the labels: one label each, or the classes.

    Args:
        place: the file or folder.
        columns: all columns of yes and no.
        likely: the columns of texts, if they have to be guessed.
    """

    def __init__(self, place: Path, columns: Sequence[str], likely: Sequence[str] = ()) -> None:
        shown = ", ".join(map(repr, columns[:_NAMED]))
        more = f" and {len(columns) - _NAMED} more" if len(columns) > _NAMED else ""
        super().__init__(f"{place}: the columns {shown}{more} each hold yes or no (1 or 0)")
        self.columns = list(columns)
        self.texts = list(likely)


def likely_columns(
    path: Path, columns: Columns, given: Mapping[str, str], *, encoding: str, reader: str | None
) -> dict[str, list[str]]:
    """Find the columns of texts and labels of a file or folder.

    Args:
        path: as `read_tables` takes it.
        columns: the columns that would be read without a guess.
        given: `text` or `label`, to the name that the user gave; it is not guessed.
        encoding: of a text file.
        reader: a function of the user's that reads the file (see `read_file`).

    Returns:
        `text` and `label` to the names that fit equally well: one where it is clear, several where
        it is not, and none where no column fits. A kind is missing where nothing has to be guessed.

    Raises:
        LabelsInLists: where only lists of labels look like labels, and a row is to have one.
        LabelsInColumns: where several columns look like labels, and each of them says yes or no.
        UserError: as `read_tables` does.
    """
    source = DataSourceConfig(str(path), encoding=encoding)
    try:
        tables = read_tables(path, source, columns, reader)
    except NoColumn as error:
        if not error.names:
            raise
        wanted = {"text": columns.text, "label": columns.label}
        found = {kind: find_column(name, error.names) for kind, name in wanted.items() if name}
        settled = {kind: name for kind, name in found.items() if name is not None} | dict(given)
        if columns.group is not None:
            settled["group"] = find_column(columns.group, error.names) or columns.group
        every = Columns(error.names[0], None, columns.where, keep_others=True)
        values = read_tables(path, source, every, reader)["train"].others
        values = with_paths(values, paths_inside(values)[0])
        likely = guess_columns(values, settled, columns)
        one = columns.label is not None and not columns.multilabel
        if (
            one
            and likely.get("label") == []
            and (lists := _of_labels_in_lists(values, likely, settled))
        ):
            example = _several(values[lists[0]])
            raise LabelsInLists(path, lists[0], example, likely.get("text", ())) from error
        if one and (marks := _of_marks(values, likely, settled)):
            raise LabelsInColumns(path, marks, likely.get("text", ())) from error
        return likely
    if columns.label is not None and not columns.multilabel:
        labels = [label for table in tables.values() for label in table.labels]
        several = [one for one in map(_list_in, labels) if one is not None and len(one) > 1]
        if several and len(several) >= _OFTEN_SEVERAL * len(labels):
            raise LabelsInLists(path, columns.label, max(several, key=len))
    return {}


def guess_columns(
    values: Mapping[str, Sequence[Any]],
    settled: Mapping[str, str],
    columns: Columns = _USUAL,
) -> dict[str, list[str]]:
    """Guess the columns of texts and labels by their names and their values.

    A text is a long string, and its column is often called `text`, `review` or the like. A label is
    one of few values that occur again and again, and its column is often called `label`, `stars` or
    the like. A name goes before the values; texts that are far longer than those of the likeliest
    name make it unclear.

    Args:
        values: name of each column to its cells.
        settled: `text`, `label` or `group`, to the column that is known already.
        columns: whether a row has several labels, how they are parted, and whether they stand in
            columns that are known already.

    Returns:
        As for `likely_columns`.

    Example:
        >>> rows = {"id": ["1", "2", "3", "4"], "review": ["a warm film"] * 2 + ["so dull"] * 2,
        ...         "stars": ["5", "5", "1", "1"]}
        >>> guess_columns(rows, {})
        {'text': ['review'], 'label': ['stars']}
    """
    result = {}
    names = [name for name in values if name.strip() and name not in settled.values()]
    if "text" not in settled:
        result["text"] = _texts(values, names)
        names = [name for name in names if name not in result["text"]]
    if "label" not in settled and columns.label is not None:
        result["label"] = _labels(values, names, columns)
    return result


def _texts(values: Mapping[str, Sequence[Any]], names: Sequence[str]) -> list[str]:
    ranks: dict[str, int] = {}
    lengths: dict[str, float] = {}
    for name in names:
        cells = [cell for cell in values[name] if not is_missing(cell)]
        strings = [cell for cell in cells if isinstance(cell, str)]
        if all(_list_in(cell) is not None for cell in cells):
            continue
        if not strings or len(strings) < len(cells) or all(map(_is_number, strings)):
            continue
        rank = _rank("text", name)
        length = sum(map(len, strings)) / len(strings)
        words = sum(len(text.split()) for text in strings) / len(strings)
        unspaced = length >= _CHARACTERS and not any(text.isascii() for text in strings[:20])
        if rank == 2 and words < _WORDS and not unspaced:
            continue
        ranks[name], lengths[name] = rank, length
    order = sorted(ranks, key=lambda name: (ranks[name], -lengths[name]))
    if not order:
        return []
    first, *others = order
    rivals = [
        name
        for name in others
        if (ranks[name] == ranks[first] and _CLEARLY * lengths[name] > lengths[first])
        or lengths[name] > _CLEARLY * lengths[first]
    ]
    return [first, *rivals]


def _labels(
    values: Mapping[str, Sequence[Any]], names: Sequence[str], columns: Columns
) -> list[str]:
    ranks: dict[str, tuple[bool, int]] = {}
    for name in names:
        cells = [_only(cell) for cell in values[name] if not is_missing(cell)]
        rows = _labels_of_rows(cells, columns)
        labels = [label for row in rows for label in row]
        if any(isinstance(label, list | dict | tuple) for label in labels):
            continue
        written = [str(label) for label in labels]
        classes = len(set(written))
        short = sum(map(len, written)) <= _LABEL_LENGTH * len(written)
        again = classes * _ROWS_OF_A_CLASS <= len(written)
        filled = columns.multilabel or 2 * len(cells) > len(values[name])
        if 2 <= classes <= MOST_CLASSES and short and again and filled:
            several = any(len(row) > 1 for row in rows)
            ranks[name] = (columns.multilabel and not several, _rank("label", name))
    best = [name for name, rank in ranks.items() if rank == min(ranks.values())]
    if len(best) > 1 and _are_the_same(values, best):
        named = [name for name in best if not all(_is_number(_only(cell)) for cell in values[name])]
        return [*named, *best][:1]
    return best


def _labels_of_rows(cells: Sequence[Any], columns: Columns) -> list[list[Any]]:
    """The labels of each row; of what cannot be labels, none.

    Where a row has one label, no text that is a list of several is one.
    """
    if not columns.multilabel:
        several = any(isinstance(cell, str) and len(_list_in(cell) or ()) > 1 for cell in cells)
        return [] if several else [[cell] for cell in cells]
    try:
        return [labels_in(cell, columns.label_separator) or [] for cell in cells]
    except UserError:
        return []


def _of_labels_in_lists(
    values: Mapping[str, Sequence[Any]],
    likely: Mapping[str, Sequence[str]],
    settled: Mapping[str, str],
) -> list[str]:
    """The columns with lists of what may be labels, those first that are called so."""
    used = {*settled.values(), *(name for names in likely.values() for name in names)}
    found = []
    for name, column in values.items():
        lists = [one for one in map(_list_in, column) if one is not None]
        items = [item for cell in lists for item in cell]
        plain = all(isinstance(item, str | int) and len(str(item)) <= _LABEL_LENGTH
                    for item in items)  # fmt: skip
        if (
            name not in used
            and 2 * len(lists) > len(column)
            and plain
            and any(len(cell) > 1 for cell in lists)
        ):
            found.append(name)
    return sorted(found, key=lambda name: _rank("label", name))


def _of_marks(
    values: Mapping[str, Sequence[Any]],
    likely: Mapping[str, Sequence[str]],
    settled: Mapping[str, str],
) -> list[str]:
    """The columns of yes and no, where several columns may hold the labels and each is one."""
    used = {*settled.values(), *likely.get("text", ())}
    marks = [
        name
        for name, column in values.items()
        if name not in used and name.strip() and column and all(map(is_mark, column))
    ]
    labels = likely.get("label", ())
    return marks if len(labels) > 1 and set(labels) <= set(marks) else []


def _several(column: Sequence[Any]) -> Sequence[Any]:
    """The first list of several items."""
    return next(one for one in map(_list_in, column) if one is not None and len(one) > 1)


def _list_in(cell: Any) -> Sequence[Any] | None:
    """The list that a cell is, or holds as a text; none of another cell."""
    if isinstance(cell, str):
        return written_list(cell.strip())
    return cell if isinstance(cell, list | tuple) else None


def _only(cell: Any) -> Any:
    """The item of a list of one, which is taken out of it; of others, the cell."""
    return cell[0] if isinstance(cell, list | tuple) and len(cell) == 1 else cell


def _are_the_same(values: Mapping[str, Sequence[Any]], names: Sequence[str]) -> bool:
    """Tell whether the values of columns stand for each other, as names of classes and numbers."""
    cells = {name: [str(_only(cell)) for cell in values[name]] for name in names}
    rows = set(zip(*cells.values(), strict=True))
    return all(len(set(column)) == len(rows) for column in cells.values())


def _rank(kind: str, name: str) -> int:
    """0 for the usual name of such a column, 1 if a word of the name is one, 2 for any other."""
    lower = name.strip().casefold().rpartition(".")[2]
    if lower in OFTEN[kind]:
        return 0
    return 1 if set(re.split(r"[\W_]+", lower)) & set(OFTEN[kind]) else 2


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True
