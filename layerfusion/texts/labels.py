"""Cleaning texts, and mapping labels to class indices and names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from layerfusion.errors import UserError
from layerfusion.texts.table import Table

_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0+)?")
_SHOWN = 10
"""At most this many names are listed in a message."""


def clean_texts(split: str, table: Table) -> tuple[str, ...]:
    """Strip white space at both ends, and change nothing else.

    Raises:
        UserError: if a text is missing, empty or not a string, naming its row.
    """
    texts: list[str] = []
    for index, text in enumerate(table.texts):
        if text is None or text != text:
            raise UserError(f"{split}: {table.where(index)}: the text is missing")
        if not isinstance(text, str):
            kind = f"{type(text).__name__} {text!r}"
            raise UserError(f"{split}: {table.where(index)}: the text is no string but {kind}")
        stripped = text.strip()
        if not stripped:
            raise UserError(f"{split}: {table.where(index)}: the text is empty")
        texts.append(stripped)
    return tuple(texts)


def class_indices(
    tables: Mapping[str, Table], names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Map the labels of all splits to indices of the classes that train has.

    Args:
        tables: split to table.
        names: names of integer labels, or the order of string labels. If none, strings are sorted,
            and integers are sorted by value and named by their digits.

    Returns:
        The class names by index, and split to indices. Shape: (rows,), int64.

    Raises:
        UserError: if a label is missing, is no class or is unknown to train, or if there are fewer
            than two classes.
    """
    labels = {split: _values(split, table) for split, table in tables.items()}
    if not any(table.typed for table in tables.values()):
        labels = _whole_numbers(labels)
    _refuse_mixture(tables, labels)
    if names is None:
        order = sorted({value for values in labels.values() for value in values})  # type: ignore[type-var]
        named = {value: str(value) for value in order}
    else:
        named = _named(tables, labels, names)
    trained = set(labels["train"])
    for split, values in labels.items():
        strange = sorted({named[value] for value in values if value not in trained})
        if strange:
            raise UserError(
                f"{split} has labels that train never has: {_listed(strange)};"
                f" train has: {_listed(named[value] for value in named if value in trained)}"
            )
    classes = [value for value in named if value in trained]
    if len(classes) < 2:
        raise UserError(f"train has one label only ({named[classes[0]]}); two are needed")
    index = {value: number for number, value in enumerate(classes)}
    indices = {
        split: np.fromiter((index[value] for value in values), np.int64, len(values))
        for split, values in labels.items()
    }
    return tuple(named[value] for value in classes), indices


def _values(split: str, table: Table) -> list[int | str]:
    """Turn every label into a whole number or a stripped string."""
    values: list[int | str] = []
    for index, label in enumerate(table.labels):
        if label is None or label != label or (isinstance(label, str) and not label.strip()):
            raise UserError(f"{split}: {table.where(index)}: the label is missing")
        if isinstance(label, bool) and table.label_names is None:
            values.append(str(label))
        elif isinstance(label, str):
            values.append(label.strip())
        elif isinstance(label, int) or (isinstance(label, float) and label.is_integer()):
            values.append(int(label))
        else:
            raise UserError(
                f"{split}: {table.where(index)}: the label {label!r} is no class; whole numbers,"
                " strings and true or false are allowed"
            )
    return values


def _whole_numbers(labels: dict[str, list[int | str]]) -> dict[str, list[int | str]]:
    """Turn the labels of an untyped format into numbers if every one of them is a whole number."""
    matched = {
        split: [_WHOLE.fullmatch(str(value)) for value in values]
        for split, values in labels.items()
    }
    if not all(match for matches in matched.values() for match in matches):
        return labels
    return {
        split: [int(match[1]) for match in matches if match] for split, matches in matched.items()
    }


def _refuse_mixture(tables: Mapping[str, Table], labels: Mapping[str, list[int | str]]) -> None:
    first: dict[type, str] = {}
    for split, values in labels.items():
        for index, value in enumerate(values):
            first.setdefault(type(value), f"{value!r} in {split} ({tables[split].where(index)})")
    if len(first) > 1:
        raise UserError(f"labels are numbers and strings at once: {' and '.join(first.values())}")


def _named(
    tables: Mapping[str, Table], labels: Mapping[str, list[int | str]], names: Sequence[str]
) -> dict[int | str, str]:
    """Map the value of each class to its name, in the order of the names."""
    if len(set(names)) != len(names):
        raise UserError(f"the label names are not all different: {_listed(names)}")
    numbers = any(isinstance(value, int) for values in labels.values() for value in values)
    named: dict[int | str, str] = dict(enumerate(names)) if numbers else {n: n for n in names}
    for split, values in labels.items():
        for index, value in enumerate(values):
            if value not in named:
                missing = " (-1 stands for no label)" if value == -1 else ""
                allowed = (
                    f"0 to {len(names) - 1} for {_listed(names)}" if numbers else _listed(names)
                )
                raise UserError(
                    f"{split}: {tables[split].where(index)}: the label {value!r}{missing} has no"
                    f" name; there are: {allowed}"
                )
    return named


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f", … ({len(shown)} in all)" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more
