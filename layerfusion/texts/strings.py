"""Texts and labels as a program has them in memory: strings in an order, and what says of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Set
from typing import Any

from layerfusion.errors import UserError, short
from layerfusion.texts.cells import plain
from layerfusion.texts.encoding import whole_characters


def strings_of(texts: Any, place: str) -> list[str]:
    """Read texts, and strip outer white space.

    Half characters, which no tokenizer takes, become U+FFFD as in files, and a warning counts them.

    Args:
        texts: strings in an order, of Python, NumPy, pandas or pyarrow.
        place: what they are for, for messages.

    Raises:
        UserError: for anything else, naming the first that is no string with a word.
    """
    if isinstance(texts, str | bytes):
        raise UserError(f"{place}: a list of texts is needed, found one string; write [text]")
    if isinstance(texts, Set | Mapping) or not isinstance(texts, Iterable):
        raise UserError(
            f"{place}: a list of texts is needed, found an object of type {type(texts).__name__}"
        )
    read = [plain(text) for text in texts]
    for number, text in enumerate(read, start=1):
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f"{place}: text {number} of {len(read)} is {short(text)}; a string with a word is"
                " needed"
            )
    whole = [whole_characters(str(text).strip()) for text in read]
    if halves := sum(count for _, count in whole):
        warnings.warn(
            f"{place}: {halves:,} half characters (lone surrogates) became U+FFFD",
            UserWarning,
            stacklevel=3,
        )
    return [text for text, _ in whole]


def other_order(texts: Any, labels: Any) -> str:
    """Say that the index of labels has the rows of the texts in another order, if it has.

    They are matched by their positions, as scikit-learn does it, and not by the names that pandas
    has for rows.

    Args:
        texts: in any form.
        labels: in any form.

    Returns:
        What is wrong, and the way to put them in order; an empty string for other labels.
    """
    first, second = (one.index if hasattr(one, "iloc") else None for one in (texts, labels))
    if first is None or second is None or len(first) != len(second) or first.equals(second):
        return ""
    if not first.is_unique or not second.is_unique or len(first.symmetric_difference(second)):
        return ""
    return (
        "the labels have the rows of the texts in another order, as their index says;"
        " labels.loc[texts.index] puts them in it, and reset_index(drop=True) on both says that"
        " they are in it"
    )
