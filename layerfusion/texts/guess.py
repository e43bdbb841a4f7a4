"""Guessing which columns of a table hold the texts and the labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerfusion.config.assets import DataSourceConfig
from layerfusion.errors import UserError, short
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
_CLEARLY = 3
"""Texts that are so many times as long as others are longer without doubt."""


class LabelsInLists(UserError):
    """The only column that may hold the labels has several of them in a row."""


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
        LabelsInLists: where only lists of labels look like labels.
        UserError: as `read_tables` does.
    """
    source = DataSourceConfig(str(path), encoding=encoding)
    try:
        read_tables(path, source, columns, reader)
    except NoColumn as error:
        if not error.names:
            raise
        found = {kind: find_column(name, error.names) for kind, name in
                 (("text", columns.text), ("label", columns.label or ""))}  # fmt: skip
        settled = {kind: name for kind, name in found.items() if name is not None} | dict(given)
        every = replace(columns, text=error.names[0], label=None, keep_others=True)
        values = read_tables(path, source, every, reader)["train"].others
        values = with_paths(values, paths_inside(values)[0])
        likely = guess_columns(values, settled)
        if likely.get("label") == [] and (lists := _of_labels_in_lists(values, likely, settled)):
            raise LabelsInLists(
                f"{path}: the column {lists[0]!r} holds lists of labels, such as"
                f" {_longest(values[lists[0]])}, which are not read: a row has one label; write one"
                " of them to a column of its own"
            ) from error
        return likely
    return {}


def guess_columns(
    values: Mapping[str, Sequence[Any]], settled: Mapping[str, str]
) -> dict[str, list[str]]:
    """Guess the columns of texts and labels by their names and their values.

    A text is a long string, and its column is often called `text`, `review` or the like. A label is
    one of few values that occur again and again, and its column is often called `label`, `stars` or
    the like. A name goes before the values; texts that are far longer than those of the likeliest
    name make it unclear.

    Args:
        values: name of each column to its cells.
        settled: `text` or `label`, to the column that is known already.

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
    if "label" not in settled:
        result["label"] = _labels(values, names)
    return result


def _texts(values: Mapping[str, Sequence[Any]], names: Sequence[str]) -> list[str]:
    ranks: dict[str, int] = {}
    lengths: dict[str, float] = {}
    for name in names:
        cells = [cell for cell in values[name] if not _is_missing(cell)]
        strings = [cell for cell in cells if isinstance(cell, str)]
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


def _labels(values: Mapping[str, Sequence[Any]], names: Sequence[str]) -> list[str]:
    ranks: dict[str, int] = {}
    for name in names:
        cells = [_only(cell) for cell in values[name] if not _is_missing(cell)]
        if any(isinstance(cell, list | dict | tuple) for cell in cells):
            continue
        written = [str(cell) for cell in cells]
        classes = len(set(written))
        short = sum(map(len, written)) <= _LABEL_LENGTH * len(written)
        again = classes * _ROWS_OF_A_CLASS <= len(written)
        if 2 <= classes <= MOST_CLASSES and short and again and 2 * len(cells) > len(values[name]):
            ranks[name] = _rank("label", name)
    best = [name for name, rank in ranks.items() if rank == min(ranks.values())]
    if len(best) > 1 and _are_the_same(values, best):
        named = [name for name in best if not all(_is_number(_only(cell)) for cell in values[name])]
        return [*named, *best][:1]
    return best


def _of_labels_in_lists(
    values: Mapping[str, Sequence[Any]],
    likely: Mapping[str, Sequence[str]],
    settled: Mapping[str, str],
) -> list[str]:
    """The columns with lists of what may be labels, those first that are called so."""
    used = {*settled.values(), *(name for names in likely.values() for name in names)}
    found = []
    for name, column in values.items():
        lists = [cell for cell in column if isinstance(cell, list | tuple)]
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


def _longest(column: Sequence[Any]) -> str:
    """The first list of several items, as a message shows it."""
    return short(next(cell for cell in column if isinstance(cell, list | tuple) and len(cell) > 1))


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


def _is_missing(cell: Any) -> bool:
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True
