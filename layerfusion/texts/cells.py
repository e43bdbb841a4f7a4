"""Cells of labels: a label, several of them in one of the ways people write that, or yes and no."""

from __future__ import annotations

import ast
import json
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from layerfusion.config.options import as_option
from layerfusion.errors import UserError, short

READ_SEVERAL = "dataset.multilabel=true reads several labels of a row"
"""The way out for a row with several labels, for messages."""
NO_LABEL = -1
"""Label that the `datasets` library gives rows without one, as in the tests of GLUE."""
_SEPARATORS = ",;|"
"""Marks that people put between labels."""
_BRACKETS = ("[]", "()", "{}")
_ITEM = re.compile(r"-?(0|[1-9]\d{0,15})(\.\d*)?|True|False")
"""An item of an array as NumPy writes it."""
_SIDE_BY_SIDE = re.compile(r"['\"]\s*['\"]")
"""Two quotation marks without a comma between them, or those of an empty string."""
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


def plain(value: Any) -> Any:
    """Take a value out of NumPy's and pyarrow's types, and make pandas' missing value none."""
    if type(value).__name__ == "NAType":
        return None
    if hasattr(value, "as_py"):
        return value.as_py()
    return value.tolist() if hasattr(value, "tolist") else value


def is_missing(cell: Any) -> bool:
    """Tell whether a cell holds nothing, white space or NaN."""
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


def labels_in(cell: Any, separator: str | None) -> list[Any] | None:
    """Read the labels of a row from the one cell that holds them.

    That is a list, a text that holds one as JSON or Python write it, labels between separators, or
    a single label. White space around labels is none of them, and neither is what stands between
    two separators without a letter in between.

    Args:
        cell: any value.
        separator: parts the labels in a text; none: a text that is no list is one label.

    Returns:
        The labels; none where the cell is missing.

    Raises:
        UserError: for a text that seems to hold several labels in a way that is not known. The
            message does not name the row.

    Example:
        >>> labels_in("comedy; drama;", ";"), labels_in("['comedy', 'drama']", None)
        (['comedy', 'drama'], ['comedy', 'drama'])
    """
    cell = plain(cell)
    if isinstance(cell, list | tuple | set | frozenset):
        return [plain(label) for label in cell]
    if is_missing(cell):
        return None
    if not isinstance(cell, str):
        return [cell]
    text = cell.strip()
    found = written_list(text)
    if found is not None:
        return found
    mark = None if separator is None else separator.strip() or separator
    parts = [text] if mark is None else [part.strip() for part in text.split(mark)]
    if _is_bracketed(text) and (text[-1] not in parts[0] if mark else text[0] == "["):
        raise _no_list(text)
    if mark is not None:
        return [part for part in parts if part]
    if between := next((one for one in _SEPARATORS if one in text), None):
        way_out = as_option("dataset.label_separator", between)
        raise UserError(
            f"the cell {short(text)} may hold several labels; {way_out} takes them apart"
        )
    return [text]


def joined_labels(names: Sequence[str]) -> tuple[str, str] | None:
    """Find a class whose name seems to be several labels, joined by a mark.

    All its parts are classes of their own, or parts of others that are joined so too.

    Args:
        names: those of the classes.

    Returns:
        The name, and the mark; none where there is no such class. Names that are lists, as
        `written_list` reads them, are no such ones.

    Example:
        >>> joined_labels(["crude", "crude;ship", "ship"])
        ('crude;ship', ';')
        >>> joined_labels(["arts, crafts", "sport"])
    """
    names = [name for name in names if written_list(name) is None]
    for mark in _SEPARATORS:
        parts = {name: {part.strip() for part in name.split(mark)} for name in names}
        times = Counter(part for found in parts.values() for part in found)
        for name, found in parts.items():
            if len(found) > 1 and all(part and times[part] > 1 for part in found):
                return name, mark
    return None


def written_list(text: str) -> list[Any] | None:
    """Read a list that is written as a text.

    It may be in JSON, as Python writes lists, tuples and sets, or as NumPy writes arrays: without
    commas, where Python would read two strings side by side as one.

    Returns:
        None for any other text.

    Example:
        >>> written_list("('a', 'b')"), written_list("['a' 'b']"), written_list("[ 3 27]")
        (['a', 'b'], ['a', 'b'], [3, 27])
    """
    if text == "set()":
        return []
    if not _is_bracketed(text):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        read = _python_list(text)
        return _numbers(text) if read is None else read
    return found if isinstance(found, list) else None


def _python_list(text: str) -> list[Any] | None:
    """Read a list, a tuple or a set of Python, or an array of strings as NumPy writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on backslashes in a string
        try:
            tree = ast.parse(text, mode="eval").body
            found = ast.literal_eval(tree)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None
        if not isinstance(tree, ast.List | ast.Tuple | ast.Set):
            return None
        if _SIDE_BY_SIDE.search(text) and all(isinstance(item, str) for item in found):
            tokens = tokenize.generate_tokens(StringIO(text).readline)
            return [ast.literal_eval(one.string) for one in tokens if one.type == tokenize.STRING]
    return list(found)


def _numbers(text: str) -> list[Any] | None:
    """Read an array of numbers, or of true and false, as NumPy writes it."""
    words = text[1:-1].split()
    if text[0] != "[" or not words or not all(map(_ITEM.fullmatch, words)):
        return None
    return [ast.literal_eval(word) for word in words]


def _is_bracketed(text: str) -> bool:
    return text[:1] + text[-1:] in _BRACKETS and len(text) > 1


def _no_list(text: str) -> UserError:
    return UserError(
        f"the cell {short(text)} looks like a list, and is none that JSON or Python would write;"
        ' put quotation marks around each label and commas between them, as in ["a", "b"]'
    )


def labels_marked(cells: Mapping[str, Any]) -> list[Any]:
    """Read the labels of a row from a cell of yes or no for each label.

    Args:
        cells: label to its cell: 0 or 1, true or false, yes or no, as numbers or as texts.

    Returns:
        The labels with a yes; `NO_LABEL` alone where no cell of the row says anything.

    Raises:
        UserError: for any other cell. The message names the column and not the row.

    Example:
        >>> labels_marked({"comedy": 1, "drama": "no", "war": True})
        ['comedy', 'war']
    """
    values = {name: plain(cell) for name, cell in cells.items()}
    if all(is_missing(value) or _word(value) == str(NO_LABEL) for value in values.values()):
        return [NO_LABEL]
    for name, value in values.items():
        if _word(value) not in (*_YES, *_NO):
            found = "is empty" if is_missing(value) else f"holds {short(value)}"
            hint = " (-1 stands for no label)" if _word(value) == str(NO_LABEL) else ""
            raise UserError(
                f"the column {name!r} {found}{hint}; a label has a yes or a no in each row: 1 or 0,"
                " true or false, yes or no"
            )
    return [name for name, value in values.items() if _word(value) in _YES]


def is_mark(cell: Any) -> bool:
    """Tell whether a cell says yes or no, as `labels_marked` reads it."""
    return _word(plain(cell)) in (*_YES, *_NO)


def _word(value: Any) -> str:
    return str(value).strip().casefold()


def are_vectors(rows: Sequence[Any]) -> bool:
    """Tell rows of yes and no, one for each label, from the numbers of the labels that a row has.

    All rows have as many items, which are 0 and 1, and some row has one of them twice, as no list
    of labels has; or the items are true and false.

    Args:
        rows: the labels of each row as `labels_in` gave them.
    """
    size = len(rows[0]) if rows and isinstance(rows[0], list) else 0
    if size < 2 or any(not isinstance(row, list) or len(row) != size for row in rows):
        return False
    words = [[_word(item) for item in row] for row in rows]
    if any(word not in (*_YES, *_NO) or word in ("yes", "no") for row in words for word in row):
        return False
    twice = any(len(set(row)) < size for row in words)
    return twice or all(isinstance(item, bool) for row in rows for item in row)


def numbers_of(vector: Sequence[Any]) -> list[int]:
    """Give the numbers, from 0, of the labels with a yes in a row of yes and no."""
    return [number for number, item in enumerate(vector) if _word(item) in _YES]
