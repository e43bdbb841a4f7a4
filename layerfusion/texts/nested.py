"""Values inside the cells of a table: objects and lists, as JSON and parquet files hold them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LOOKED_AT = 20
"""Rows that are looked at for what lies inside their cells."""
_DEPTH = 6
_SHOWN = 12


def with_paths(
    values: Mapping[str, Sequence[Any]], wanted: Sequence[str], *, empty: bool = False
) -> Mapping[str, Sequence[Any]]:
    """Add the columns that are called by a path into another one.

    Args:
        values: name of each column to its cells.
        wanted: names; `review.body` is the entry `body` of the objects in the column `review`, and
            `messages.0` the first item of the lists in `messages`.
        empty: also add a column whose cells hold nothing under that path, as a part of a table may.

    Example:
        >>> with_paths({"review": [{"body": "warm"}, None]}, ["review.body"])["review.body"]
        ['warm', None]
    """
    result = dict(values)
    for name in wanted:
        column = column_of_path(name, list(values))
        if name in values or column is None:
            continue
        path = name[len(column) + 1 :].split(".")
        cells = [_part(cell, path) for cell in values[column]]
        if empty or any(cell is not None for cell in cells):
            result[name] = cells
    return result


def column_of_path(name: str, columns: Sequence[str]) -> str | None:
    """The column into which a path leads; none if there is no such column."""
    above = [column for column in columns if name.startswith(f"{column}.")]
    return max(above, key=len, default=None)


def _part(cell: Any, path: Sequence[str]) -> Any:
    for step in path:
        if isinstance(cell, Mapping):
            cell = cell.get(step)
        elif isinstance(cell, list | tuple) and step.isdecimal() and int(step) < len(cell):
            cell = cell[int(step)]
        else:
            return None
    return cell


def paths_inside(values: Mapping[str, Sequence[Any]]) -> tuple[list[str], list[str]]:
    """Paths to the strings and numbers inside the cells of a table.

    Returns:
        Those through objects alone, and those through a list, of which the first item is named.
    """
    found: dict[str, bool] = {}
    for name, cells in values.items():
        cell = next((cell for cell in cells[:_LOOKED_AT] if isinstance(cell, dict | list)), None)
        if cell is not None:
            found |= dict(_walk(name, cell, through_list=False))
    objects = [path for path, through_list in found.items() if not through_list]
    lists = [path for path, through_list in found.items() if through_list]
    return objects[:_SHOWN], lists[:_SHOWN]


def _walk(
    path: str, cell: Any, *, through_list: bool, depth: int = 0
) -> Iterator[tuple[str, bool]]:
    if isinstance(cell, str) or (isinstance(cell, int | float) and not through_list):
        if depth:
            yield path, through_list
    elif depth < _DEPTH and isinstance(cell, Mapping):
        for key, value in cell.items():
            yield from _walk(f"{path}.{key}", value, through_list=through_list, depth=depth + 1)
    elif depth < _DEPTH and isinstance(cell, list) and cell:
        yield from _walk(f"{path}.0", cell[0], through_list=True, depth=depth + 1)
