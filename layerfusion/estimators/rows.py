"""Reads what users of scikit-learn pass to an estimator: texts, labels and weights of rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from layerfusion.config.rules import RULE, a_seed
from layerfusion.errors import UserError, one_line, short
from layerfusion.texts.cells import is_missing, joined_labels, plain, written_list
from layerfusion.texts.class_doubts import alike_names
from layerfusion.texts.encoding import whole_characters
from layerfusion.texts.strings import strings_of

MOST_ROWS = 1_000_000
"""Most rows that weights may add up to, since each copy of a row takes memory."""
KINDS = {"b": bool, "i": int, "u": int, "f": float, "U": str}
"""Kind of a NumPy type to the Python type of a label in JSON."""
COLLECTIONS = (list, tuple, Set, np.ndarray)
"""Types in which a row may have any number of labels."""


def text_list(X: Any, place: str) -> list[str]:
    """Read texts, and strip outer white space.

    Args:
        X: a list, tuple, array or Series of strings; a data frame or an array with one column of
            strings; or any other sequence of them.
        place: name of the method, for messages.

    Raises:
        UserError: for anything else, naming the first row that is no text.
    """
    if hasattr(X, "columns"):
        if len(X.columns) != 1:
            names = ", ".join(map(repr, list(X.columns)[:8]))
            raise UserError(
                f"{place}: texts are one column, found {len(X.columns)} ({names}); select the one"
                " with the texts"
            )
        X = X[X.columns[0]]
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape) != 1:
        if not hasattr(X, "reshape") or len(shape) != 2 or shape[1] != 1:
            raise UserError(
                f"{place}: texts are one column, found data of shape {tuple(shape)}; a list of"
                " strings is needed (reshape it)"
            )
        X = X.reshape(-1)
    if not hasattr(X, "__len__"):
        raise UserError(
            f"{place}: a list of texts is needed, found an object of type {type(X).__name__}"
        )
    texts = strings_of(X, place)
    if not texts:
        raise UserError(f"{place}: found 0 texts; a minimum of 1 is required")
    return texts


def row_names(X: Any) -> Any:
    """Return the index of a Series or data frame, and none for other texts."""
    return getattr(X, "index", None) if hasattr(X, "iloc") else None


@dataclass(frozen=True)
class Targets:
    """What `y` says of the rows."""

    classes: np.ndarray
    """The classes or labels in order, in the type that they had. Shape: (classes,)."""
    codes: np.ndarray
    """Class index of each row, shape (rows,), int64; where rows have any number of labels, which
    ones each has: shape (rows, labels), bool."""

    @property
    def multilabel(self) -> bool:
        """Whether rows have any number of labels."""
        return self.codes.ndim == 2

    @property
    def names(self) -> list[str]:
        """The classes as strings, as `names_of` has them."""
        return names_of(self.classes)


def targets_of(y: Any, rows: int, kept: np.ndarray | None = None) -> Targets:
    """Read what `fit` is given as `y`, by the conventions of scikit-learn.

    A row has one class in a list, an array or a Series of labels. It has any number of labels in an
    indicator matrix, which has a column of 0 and 1 for each of two labels or more: an array, a
    data frame, whose columns name the labels, a sparse matrix, or a list of lists of such numbers;
    and in a list of lists, tuples or sets of labels.

    Args:
        y: the labels.
        rows: number of texts.
        kept: places of the rows to read; all if None. Shape: (kept rows,).

    Raises:
        UserError: for labels that are missing, of other number or no classes, or where no label
            tells two rows apart.
    """
    if y is None:
        raise UserError("fit: requires y to be passed, but the target y is None")
    several = _several(y, "fit")
    if several is None:
        return _of_classes(y, rows, kept)
    if len(several) != rows:
        raise UserError(f"fit: {rows} texts and labels of {len(several)}; each text needs its own")
    if isinstance(several, list):
        found = _of_sets(several if kept is None else [several[row] for row in kept])
    else:
        found = _of_matrix(several if kept is None else several[kept], getattr(y, "columns", None))
    if not (found.codes.any(axis=0) & ~found.codes.all(axis=0)).any():
        raise UserError("fit: every row has the same labels; rows that differ in one are needed")
    return found


def _of_classes(y: Any, rows: int, kept: np.ndarray | None) -> Targets:
    """Read one label for each row."""
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import column_or_1d

    ordered = hasattr(y, "__len__") or hasattr(y, "__array__")
    if isinstance(y, str | Mapping | Set) or not ordered:
        raise UserError(f"fit: a list of labels is needed, found an object of type {_kind(y)}")
    if hasattr(y, "to_pylist"):  # of pyarrow, which gives NumPy no copy of strings
        y = y.to_pylist()
    if not hasattr(y, "__array__") and not hasattr(y, "toarray"):
        y = _listed_labels([plain(label) for label in y])
    if hasattr(y, "to_numpy"):
        y = y.to_numpy()  # so that nullable integers and booleans of pandas stay what they are
    try:
        labels = column_or_1d(y.toarray() if hasattr(y, "toarray") else y, warn=True)
    except ValueError as error:  # such as for three dimensions
        raise UserError(f"fit: {one_line(error)}") from error
    if labels.dtype.kind == "T":  # NumPy's strings of any length
        labels = labels.astype(object)
    if len(labels) != rows:
        raise UserError(
            f"fit: {rows} texts and {len(labels)} labels; one label is needed for each text"
        )
    if kept is not None:
        labels = labels[kept]
    for number, label in enumerate(labels.tolist(), start=1):
        if is_missing(plain(label)):
            shown = repr(label) if isinstance(label, str) else label
            raise UserError(f"fit: label {number} of {len(labels)} is missing ({shown})")
    labels = _of_one_type(labels)
    _plain(labels)
    try:
        check_classification_targets(labels)
    except (ValueError, TypeError) as error:
        raise UserError(f"fit: {one_line(error)}") from error
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError(
            f"fit: y has one class only, {short(classes.tolist()[0])}; two classes are needed"
        )
    found = Targets(classes, codes.reshape(-1))
    _warn_of_joined(found.names)
    _warn_of_alike(found.names)
    return found


def _objects(cells: Sequence[Any]) -> np.ndarray:
    """Make an array of objects, each of which stays what it is. Shape: (cells,)."""
    objects = np.empty(len(cells), object)
    objects[:] = cells
    return objects


def _listed_labels(labels: list[Any]) -> np.ndarray:
    """Make an array of a list, of which NumPy would make strings if one of its labels is one."""
    mixed = len({isinstance(label, str) for label in labels}) > 1
    return _objects(labels) if mixed else np.array(labels)


def _warn_of_alike(names: Sequence[str]) -> None:
    """Warn of classes that may be one."""
    for same in alike_names(names):
        warnings.warn(
            f"fit: {' and '.join(map(short, same))} are different classes; if they are one, write"
            " them the same",
            UserWarning,
            stacklevel=6,
        )


def _warn_of_joined(names: Sequence[str]) -> None:
    """Warn of classes whose names seem to be several labels in one string."""
    lists = [name for name in names if len(written_list(name) or ()) > 1]
    joined = (lists[0], "json.loads(y)") if lists else None
    if not lists and (found := joined_labels(names)):
        joined = found[0], f"y.split({found[1]!r})"
    if joined:
        warnings.warn(
            f"fit: {short(joined[0])} is one class; if it is several labels, give a list of them"
            f" for each text, such as [{joined[1]} for y in labels]",
            UserWarning,
            stacklevel=6,
        )


def _kind(value: Any) -> str:
    return type(value).__name__


def _of_one_type(labels: np.ndarray) -> np.ndarray:
    """Find the type of labels, and refuse those that cannot be ordered."""
    if labels.dtype.kind == "O":
        kinds = {type(label) for label in labels.tolist()}
        if len(kinds) > 1:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise UserError(f"fit: labels of several types ({names}) have no order; give them one")
        if kinds <= {bool, int, float}:
            labels = np.array(labels.tolist())
            if labels.dtype.kind == "O":
                raise UserError("fit: numbers beyond 64 bits are no labels; write them as strings")
    return labels


# -- several labels a row -------------------------------------------------------------------------


def _several(y: Any, place: str) -> np.ndarray | list[Any] | None:
    """Tell whether rows have any number of labels, and bring these into one of two forms.

    Lists of numbers of one length are an array for scikit-learn, so that those of 0 and 1 alone are
    an indicator matrix, and those of one number are a column of classes.

    Returns:
        An indicator matrix, shape (rows, labels), or the labels of each row; None for classes.
    """
    shape = getattr(y, "shape", None)
    if shape is not None and len(shape) == 2 and shape[1] != 1:
        return y.toarray() if hasattr(y, "toarray") else np.asarray(y)
    if hasattr(y, "toarray"):
        return None
    if isinstance(y, str | Mapping) or not hasattr(y, "__len__"):
        return None
    cells = list(y) if shape is None or len(shape) == 1 else list(np.asarray(y).reshape(-1))
    cells = [plain(cell) if hasattr(cell, "as_py") else cell for cell in cells]  # of pyarrow
    lists = [isinstance(cell, COLLECTIONS) for cell in cells]
    if not any(lists):
        return None
    if not all(lists):
        row = lists.index(False)
        raise UserError(
            f"{place}: the labels of row {row + 1} are {short(cells[row])}; a list of labels is"
            " needed, as other rows have one"
        )
    if not _are_rows_of_an_array(cells):
        return cells
    return None if len(cells[0]) == 1 else np.array([list(cell) for cell in cells])


def _are_rows_of_an_array(cells: Sequence[Any]) -> bool:
    """Tell whether lists are those of an array: numbers, one in each list, or 0 and 1 alone."""
    values = [value for cell in cells for value in cell]
    return (
        not any(isinstance(cell, Set) for cell in cells)
        and len({len(cell) for cell in cells}) == 1
        and bool(values)
        and all(isinstance(value, bool | int | float | np.number | np.bool_) for value in values)
        and (len(cells[0]) == 1 or all(value in (0, 1) for value in values))
    )


def _of_matrix(values: np.ndarray, columns: Any) -> Targets:
    """Read an indicator matrix, shape (rows, labels), whose columns may have names."""
    if not values.shape[1]:
        raise UserError("fit: y has no column; an indicator matrix has one for each label")
    for number, row in enumerate(values.tolist(), start=1):
        for place, value in enumerate(row, start=1):
            if not isinstance(value, bool | int | float) or value not in (0, 1):
                raise UserError(
                    f"fit: row {number}, column {place} of y is {short(value)}; an indicator matrix"
                    " holds 0 and 1 alone, and labels by name are a list of lists"
                )
    classes = np.arange(values.shape[1])
    if columns is not None:
        classes = _typed(list(columns))
        if len(set(map(str, classes.tolist()))) < len(classes):
            raise UserError("fit: two columns of y have the same name; each label needs its own")
    return Targets(classes, values.astype(bool))


def _of_sets(cells: Sequence[Any]) -> Targets:
    """Read collections of labels; the labels come in the order of scikit-learn's binarizer."""
    for number, cell in enumerate(cells, start=1):
        if any(not isinstance(label, COLLECTIONS) and is_missing(plain(label)) for label in cell):
            raise UserError(f"fit: a label of row {number} of {len(cells)} is missing")
    given = [label for cell in cells for label in cell]
    if not given:
        raise UserError("fit: no row has a label")
    classes, found = np.unique(_typed(given), return_inverse=True)
    codes = np.zeros((len(cells), len(classes)), bool)
    codes[np.repeat(np.arange(len(cells)), [len(cell) for cell in cells]), found.reshape(-1)] = True
    return Targets(classes, codes)


def _typed(labels: Sequence[Any]) -> np.ndarray:
    """Make an array of labels of one type that JSON holds. Shape: (labels,)."""
    found = _of_one_type(
        _objects([label.item() if isinstance(label, np.generic) else label for label in labels])
    )
    _plain(found)
    return np.array(found.tolist())


def indicators_of(y: Any, classes: np.ndarray) -> np.ndarray:
    """Bring the labels of rows into an indicator matrix, with a column for each label first known.

    Args:
        y: as for `targets_of`. The columns of a data frame are found by their names.
        classes: the labels that a classifier knows. Shape: (labels,).

    Returns:
        1 where a row has a label. Labels of collections that the classifier does not know come
        after the others. Shape: (rows, labels or more), int64.

    Raises:
        UserError: for a matrix of another number of columns, or with columns of other names.
    """
    if hasattr(y, "columns") and len(y.columns) > 1:
        y = _in_order(y, classes)
    several = _several(y, "score")
    if not isinstance(several, list):
        matrix = np.asarray(y) if several is None else several
        if matrix.ndim != 2 or matrix.shape[1] != len(classes):
            raise UserError(
                f"score: y has the shape {matrix.shape}; a matrix with a column for each of the"
                f" {len(classes)} labels is needed, or a list of lists of labels"
            )
        return matrix.astype(np.int64)
    column = {label: number for number, label in enumerate(classes.tolist())}
    for label in (label for cell in several for label in cell):
        column.setdefault(label, len(column))
    found = np.zeros((len(several), len(column)), np.int64)
    for row, cell in enumerate(several):
        found[row, [column[label] for label in cell]] = 1
    return found


def _in_order(frame: Any, classes: np.ndarray) -> Any:
    """Put the columns of a data frame in the order of the labels, if these name them."""
    names = classes.tolist()
    if set(frame.columns) == set(names):
        return frame[names]
    if names == list(range(len(names))):  # those of an array, which had no names
        return frame
    strange = ", ".join(sorted(map(repr, set(frame.columns) ^ set(names)))[:8])
    raise UserError(f"score: the columns of y are not the labels that fit saw: {strange}")


def repeats_of(sample_weight: Any, rows: int) -> np.ndarray | None:
    """Read weights as the number of times that each row counts.

    The choice of layers and fusion rests on standard errors over rows, and whole numbers alone say
    how many rows there are. A row of weight 3 is the same as three such rows, in every part of the
    fit, and one of weight 0 is left out.

    Returns:
        Shape: (rows,), int64; None for no weights.

    Raises:
        UserError: for weights that are not whole, negative, or of other number than the texts.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    if weights.ndim == 0:
        weights = np.repeat(weights, rows)
    if weights.shape != (rows,):
        raise UserError(
            f"sample_weight: {rows} texts and weights of shape {weights.shape}; one weight is"
            " needed for each text"
        )
    try:
        weights = weights.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UserError("sample_weight: numbers are needed") from error
    strange = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0) & (weights % 1 == 0)))
    if len(strange):
        raise UserError(
            f"sample_weight: weight {strange[0] + 1} of {rows} is {weights[strange[0]]:g}; whole"
            " numbers from 0 are needed, as a weight says how many times a row counts"
        )
    if not weights.any():
        raise UserError("sample_weight: every weight is zero, so that no row is left")
    if weights.sum() > MOST_ROWS:
        raise UserError(
            f"sample_weight: the weights add up to {weights.sum():g} rows, more than"
            f" {MOST_ROWS:,}; divide them by a common factor"
        )
    return weights.astype(np.int64)


def seed_of(random_state: Any) -> int:
    """Return the seed that a `random_state` stands for: itself, or a draw from it.

    Raises:
        UserError: for anything but a whole number of 32 bits, a generator of NumPy or None.
    """
    from sklearn.utils import check_random_state

    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        a_seed()[RULE].check("random_state", random_state)
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError as error:
        raise UserError(
            f"random_state: a whole number, a numpy.random.RandomState or None is needed, found"
            f" {short(random_state)}"
        ) from error


def names_of(classes: np.ndarray) -> list[str]:
    """Name classes by their digits or letters: whole numbers have no point, as in data sets."""
    whole = classes.astype(np.int64) if classes.dtype.kind == "f" else classes
    return [str(name) for name in whole.tolist()]


def classes_to_json(classes: np.ndarray) -> dict[str, Any]:
    """Write classes as JSON holds them, with their type."""
    return {"dtype": classes.dtype.str if classes.dtype.kind != "O" else "O", **_plain(classes)}


def classes_from_json(kept: Mapping[str, Any]) -> np.ndarray:
    """Read classes that `classes_to_json` wrote; they have the type that they had."""
    dtype = np.dtype(kept["dtype"])
    if dtype.kind not in (*KINDS, "O"):
        raise ValueError(f"classes of type {dtype}")
    classes = np.empty(len(kept["values"]), dtype)
    classes[:] = kept["values"]
    return classes


def _plain(classes: np.ndarray) -> dict[str, Sequence[Any]]:
    """Return the classes as plain Python values.

    Raises:
        UserError: for labels that JSON does not hold, such as dates and half characters.
    """
    values = classes.tolist()
    strange = [value for value in values if not isinstance(value, bool | int | float | str)]
    if strange or classes.dtype.kind not in (*KINDS, "O"):
        first = (strange or list(classes))[0]
        raise UserError(
            f"fit: the label {short(first)} is of type {_kind(first)}; numbers, strings and"
            " booleans are allowed"
        )
    for value in values:
        if isinstance(value, str) and whole_characters(value)[1]:
            raise UserError(
                f"fit: the label {short(value)} has half a character (a lone surrogate), which no"
                " file can hold"
            )
    return {"values": values}
