"""Reads what users of scikit-learn pass to an estimator: texts, labels and weights of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from layerfusion.errors import UserError, short

MOST_ROWS = 1_000_000
"""Most rows that weights may add up to, since each copy of a row takes memory."""
KINDS = {"b": bool, "i": int, "u": int, "f": float, "U": str}
"""Kind of a NumPy type to the Python type of a label in JSON."""


def text_list(X: Any, place: str) -> list[str]:
    """Read texts, and strip outer white space.

    Args:
        X: a list, tuple, array or Series of strings; a data frame or an array with one column of
            strings; or any other sequence of them.
        place: name of the method, for messages.

    Raises:
        UserError: for anything else, naming the first row that is no text.
    """
    if isinstance(X, str | bytes):
        raise UserError(f"{place}: a list of texts is needed, found one string; write [text]")
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
    if isinstance(X, Mapping | set | frozenset) or not hasattr(X, "__len__"):
        raise UserError(
            f"{place}: a list of texts is needed, found an object of type {type(X).__name__}"
        )
    texts = []
    for number, text in enumerate(X, start=1):
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{place}: text {number} of {len(X)} is {short(text)}; a string with a word is"
                " needed"
            )
        texts.append(str(text).strip())
    if not texts:
        raise UserError(f"{place}: found 0 texts; a minimum of 1 is required")
    return texts


def row_names(X: Any) -> Any:
    """Return the index of a Series or data frame, and none for other texts."""
    return getattr(X, "index", None) if hasattr(X, "iloc") else None


def class_codes(y: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Read labels of any type.

    Args:
        y: one label for each row.
        rows: number of texts.

    Returns:
        The classes in order, in the type of the labels, and the class index of each row. Shapes:
        (classes,) and (rows,).

    Raises:
        UserError: for labels that are missing, of other number or no classes.
    """
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import column_or_1d

    if y is None:
        raise UserError("fit: requires y to be passed, but the target y is None")
    labels = column_or_1d(y, warn=True)
    if len(labels) != rows:
        raise UserError(
            f"fit: {rows} texts and {len(labels)} labels; one label is needed for each text"
        )
    for number, label in enumerate(labels.tolist(), start=1):
        if label is None or label != label:
            raise UserError(f"fit: label {number} of {rows} is missing ({label})")
    if labels.dtype.kind == "O":
        kinds = {type(label) for label in labels.tolist()}
        if len(kinds) > 1:
            names = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise UserError(f"fit: labels of several types ({names}) have no order; give them one")
        if kinds <= {bool, int, float}:
            labels = np.array(labels.tolist())
    check_classification_targets(labels)
    classes, codes = np.unique(labels, return_inverse=True)
    _plain(classes)
    if len(classes) < 2:
        raise UserError(
            f"fit: y has one class only, {short(classes.tolist()[0])}; two classes are needed"
        )
    return classes, codes.reshape(-1)


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
        UserError: for anything but a whole number from 0, a generator of NumPy or None.
    """
    from sklearn.utils import check_random_state

    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        if random_state < 0:
            raise UserError(f"random_state: {random_state} is below 0")
        return int(random_state)
    try:
        return int(check_random_state(random_state).randint(2**31 - 1))
    except ValueError as error:
        raise UserError(
            f"random_state: a whole number, a numpy.random.RandomState or None is needed, found"
            f" {short(random_state)}"
        ) from error


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
        UserError: for labels that JSON does not hold, such as dates.
    """
    values = classes.tolist()
    strange = [value for value in values if not isinstance(value, bool | int | float | str)]
    if strange or classes.dtype.kind not in (*KINDS, "O"):
        raise UserError(
            f"fit: the label {short((strange or values)[0])} is of type"
            f" {type((strange or values)[0]).__name__}; numbers, strings and booleans are allowed"
        )
    return {"values": values}
