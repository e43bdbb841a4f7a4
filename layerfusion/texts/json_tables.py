"""From JSON to columns: rows may stand as objects, as lists, by column, or under one key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layerfusion.assets.files import parse_json
from layerfusion.errors import UserError, short, unknown
from layerfusion.texts.columns import OFTEN, Columns
from layerfusion.texts.delimited import lines_of
from layerfusion.texts.encoding import whole_characters
from layerfusion.texts.form import distinct_columns
from layerfusion.texts.nested import column_of_path
from layerfusion.texts.split_names import named_parts

Values = dict[str, list[Any]]
"""Name of each column to its values, a row each."""
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def begins_json(content: str) -> bool:
    """Tell rows of JSON from a text on each line: it begins with an object, or a list of them."""
    start = content.lstrip()
    if not start.startswith(("{", "[")):
        return False
    try:
        found, _ = json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        return False
    rows = found if isinstance(found, list) else [found]
    return bool(rows) and all(isinstance(row, dict) for row in rows)


def is_one_row(content: str, column: str) -> bool:
    """Tell an object that is a row of its own, with a text in a column or no rows inside it."""
    try:
        found = parse_json(content)
    except ValueError:
        return False
    if not isinstance(found, dict):
        return False
    rows = any(map(_may_hold_rows, found.values()))
    return isinstance(found.get(column), str) or (
        not rows and any(isinstance(value, str) for value in found.values())
    )


def columns_of_json(path: Path, content: str, columns: Columns, *, lines: bool) -> Values:
    """Read the columns of a JSON text.

    Rows may be a list of objects, an object a line, a list of lists (columns are then called by
    their numbers, from 1, unless the first list names them), an object of lists by column, an
    object of rows by name, or any of these under the one key of an object that holds a list or an
    object.

    Args:
        path: the file, for messages.
        content: its text.
        columns: those that are wanted, which tell columns from rows.
        lines: an object is a row, as in a `.jsonl` file with one line.

    Raises:
        UserError: naming what is wrong, and the line where that is known.
    """
    if not content.strip():
        raise UserError(f"{path}: the file is empty")
    return _with_whole_names(_columns_of(path, content, columns, lines=lines))


def _with_whole_names(values: Values) -> Values:
    """Replace the half characters in the names of columns, where the names stay different."""
    whole = {whole_characters(name)[0]: column for name, column in values.items()}
    return whole if len(whole) == len(values) else values


def _columns_of(path: Path, content: str, columns: Columns, *, lines: bool) -> Values:
    try:
        found = _parsed(content, str(path))
    except json.JSONDecodeError as error:
        if (first := content.lstrip("\ufeff \t\r\n"))[0] not in '[{"':
            begin = short(first.partition("\n")[0][:60])
            raise UserError(f"{path}: not readable as json: it begins with {begin}") from error
        if not lines and error.msg != "Extra data":  # this one says one object a line
            raise UserError(f"{path}: not readable as json: {error}") from error
        return _of_rows(path, _lines(content, path), columns)
    if isinstance(found, dict) and lines and not _are_whole_columns(found, columns):
        return _of_rows(path, [found], columns)
    return _of(path, found, columns)


def splits_of_json(
    path: Path, content: str, columns: Columns, files: Mapping[str, str]
) -> tuple[dict[str, tuple[str, Values]], list[str]] | None:
    """Read the columns of each split of a JSON text that has a key for each.

    Args:
        path: the file, for messages.
        content: its text.
        columns: those that are wanted.
        files: split to its key; empty: the keys say it.

    Returns:
        Split to its key and columns, and the keys of other rows; none where the text is no object
        with a key for train.

    Raises:
        UserError: for a key that does not exist, or rows that cannot be read.
    """
    if not content.lstrip().startswith("{"):
        return None
    try:
        found = _parsed(content, str(path))
    except json.JSONDecodeError:
        return None  # an object a line, or no JSON: found out when it is read as one table
    if not isinstance(found, dict) or _are_columns(found, columns):
        return None
    empty = {key for keys in named_parts(found).values() for key in keys if found[key] == []}
    holders = [key for key, value in found.items() if _holds_table(value) or key in empty]
    splits = dict(files)
    if not files:
        named = named_parts(holders)
        if "train" not in named:
            return None
        for split, keys in named.items():
            if len(keys) > 1:
                chosen = " ".join(f"dataset.files.{one}={names[0]}" for one, names in named.items())
                raise UserError(
                    f"{path}: several keys for {split} ({', '.join(keys)}); name those to use, as"
                    f" {chosen} does"
                )
        splits = {split: keys[0] for split, keys in named.items()}
    for split, key in splits.items():
        if key not in holders:
            raise unknown(f"{path}: key of the rows of {split}", key, holders)
    for key in splits.values():
        if found[key] == []:
            raise UserError(f"{path}: there are no rows under {key!r}; remove the key")
    values = {split: (key, _of(path, found[key], columns)) for split, key in splits.items()}
    return values, [key for key in holders if key not in splits.values()]


def _holds_table(value: Any) -> bool:
    """Tell rows, or columns, from other facts about a file."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[0], dict | list)
    return isinstance(value, dict) and any(isinstance(part, dict | list) for part in value.values())


def _of(path: Path, found: Any, columns: Columns) -> Values:
    """Find the columns in a parsed file, or in what an object holds under one key."""
    if isinstance(found, list):
        return _of_rows(path, found, columns)
    if not isinstance(found, dict):
        raise _no_rows(path, found)
    if isinstance(found.get("columns"), list) and isinstance(found.get("data"), list):
        return _of_lists(path, found["data"], [str(name) for name in found["columns"]], columns)
    if _are_columns(found, columns):
        return _by_column(path, found, columns)
    if len(found) > 1 and all(isinstance(value, dict) for value in found.values()):
        if any(columns.are_in(list(value)) for value in found.values()):
            return _of_rows(
                path, list(found.values()), columns
            )  # rows by name, such as their numbers
        return _by_column(path, found, columns)
    inside = {key: value for key, value in found.items() if _may_hold_rows(value)}
    named = {key: value for key, value in inside.items() if _names_columns(value, columns)}
    if len(named) == 1:
        inside = named
    if len(inside) > 1:
        raise UserError(
            f"{path}: it holds rows under several keys: {', '.join(map(repr, inside))}; write the"
            " rows of each to a file of its own"
        )
    if not inside:
        raise _no_rows(path, found)
    return _of(path, next(iter(inside.values())), columns)


def _may_hold_rows(value: Any) -> bool:
    """Tell a list of rows, or an object with rows somewhere in it, from facts about a file."""
    if isinstance(value, dict):
        return any(_may_hold_rows(part) or isinstance(part, list) for part in value.values())
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict | list)


def _names_columns(rows: Any, columns: Columns) -> bool:
    """Tell whether the first of some rows has the columns that are wanted."""
    if not isinstance(rows, list) or not isinstance(rows[0], dict):
        return False
    names = list(rows[0])
    inside = all(name in names or column_of_path(name, names) for name in columns.named)
    return inside or columns.are_in(names)


def _are_columns(found: Mapping[str, Any], columns: Columns) -> bool:
    """Tell an object of lists (or of objects, as pandas writes them) by column from a row."""
    names = [name for name, value in found.items() if isinstance(value, list | dict)]
    return columns.are_in(names)


def _are_whole_columns(found: Mapping[str, Any], columns: Columns) -> bool:
    """Tell columns from a row whose cells are lists, such as the words of its text."""
    sizes = {len(value) if isinstance(value, list | dict) else None for value in found.values()}
    return _are_columns(found, columns) and len(sizes) == 1


def _by_column(path: Path, found: Mapping[str, Any], columns: Columns) -> Values:
    if all(isinstance(value, dict) for value in found.values()):
        rows = list(dict.fromkeys(row for value in found.values() for row in value))
        return {name: [value.get(row) for row in rows] for name, value in found.items()}
    values = {name: value for name, value in found.items() if isinstance(value, list)}
    chosen = columns.among(path.name, list(values))
    total = len(values[chosen.text])
    for name in chosen.of_labels:
        if len(values[name]) != total:
            raise UserError(
                f"{path}: columns of different length: {chosen.text} {total}, {name}"
                f" {len(values[name])}"
            )
    return {name: value for name, value in values.items() if len(value) == total}


def _of_rows(path: Path, rows: Sequence[Any], columns: Columns) -> Values:
    if not rows:
        raise UserError(f"{path}: no rows")
    if all(isinstance(row, list) for row in rows):
        if _is_header(rows, columns):
            return _of_lists(path, rows[1:], rows[0], columns)
        width = max(len(row) for row in rows)
        return _of_lists(path, rows, [str(number) for number in range(1, width + 1)], columns)
    if not isinstance(rows[0], dict):
        raise _no_rows(path, rows)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f"{path}, row {number}: it is {short(row)}, and the rows before it are objects;"
                " remove it, or write it as they are"
            )
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _is_header(rows: Sequence[Sequence[Any]], columns: Columns) -> bool:
    """Tell the names of the columns, as the first of rows that are lists, from a row.

    Columns that are asked for are among them; or one is often called so, and no cell of the first
    row occurs again below it.
    """
    first, *others = rows
    if not others or not all(isinstance(name, str) for name in first):
        return False
    if columns.are_in(first):
        return True
    often = any(name.strip().casefold() in OFTEN["text"] for name in first)
    again = (name in row[place : place + 1] for row in others for place, name in enumerate(first))
    return often and not any(again)


def _of_lists(path: Path, rows: Sequence[Any], names: Sequence[str], columns: Columns) -> Values:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != len(names):
            cells = len(row) if isinstance(row, list) else "no"
            raise UserError(f"{path}, row {number}: it has {cells} cells; {len(names)} are needed")
    names, _ = distinct_columns(path, names, columns)
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def _lines(content: str, path: Path) -> list[Any]:
    rows: list[Any] = []
    for number, line in enumerate(lines_of(content), start=1):
        if line.strip():
            try:
                rows.append(_parsed(line, f"{path}, line {number}"))
            except json.JSONDecodeError as error:
                if (objects := _objects(content, path)) is not None:
                    return objects
                raise UserError(
                    f"{path}, line {number}: not readable as json: {error}{_way_out(line, error)}"
                ) from error
    return rows


def _way_out(line: str, error: json.JSONDecodeError) -> str:
    """Say what to do about a line that is nearly JSON."""
    if error.msg == "Extra data" and line[error.pos :].strip() == ",":
        return "; each line holds an object alone: remove the commas at the ends of the lines"
    if line.startswith("\ufeff"):
        return "; files were joined there: remove the byte-order mark (U+FEFF) before its object"
    if re.match(r"\s*[\[{]+\s*'", line):
        return "; it is as Python prints it: write it with json.dumps"
    return ""


def object_of(line: str, place: str) -> dict[str, Any]:
    """Parse a line that holds an object.

    Args:
        line: the line.
        place: its file and number, for messages.

    Raises:
        UserError: if it holds anything else.
    """
    try:
        found = _parsed(line, place)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not readable as json: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{place}: an object is needed, as on the first line; it is {short(found)}")
    return found


def _objects(content: str, path: Path) -> list[Any] | None:
    """Objects one after another that are not on a line each, as `jq` prints them.

    None if something else stands between them.
    """
    rows: list[Any] = []
    at = 0
    while space := _SPACE.match(content, at):
        at = space.end()
        if at == len(content):
            return rows
        try:
            _, end = _DECODER.raw_decode(content, at)
        except (ValueError, RecursionError):
            return None
        rows.append(_parsed(content[at:end], f"{path}, row {len(rows) + 1}"))
        at = end
    return None


def _parsed(content: str, place: str) -> Any:
    """Parse JSON, and refuse an object that has one key twice."""

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            double = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{place}: an object has the key {double!r} twice")
        return found

    try:
        return parse_json(content, object_pairs_hook=distinct)
    except (json.JSONDecodeError, UserError):
        raise  # its kind tells the caller whether this is an object a line
    except ValueError as error:  # too deep, or a number of thousands of digits
        raise UserError(f"{place}: not readable as json: {error}") from error


def _no_rows(path: Path, found: Any) -> UserError:
    """Say what was found in the place of rows."""
    return UserError(
        f"{path}: a list of objects is needed, such as [{{'text': …, 'label': …}}]; it holds"
        f" {_kind(found)}"
    )


def _kind(found: Any) -> str:
    """Describe a JSON value in a few words."""
    if isinstance(found, dict):
        if not found:
            return "an empty object"
        key, value = next(iter(found.items()))
        inner = _kind(value) if isinstance(value, list) else type(value).__name__
        return f"an object of {len(found):,} keys, such as {short(key)} with {inner}"
    if isinstance(found, list):
        return f"a list of {', '.join(dict.fromkeys(type(one).__name__ for one in found[:20]))}"
    return short(found)
