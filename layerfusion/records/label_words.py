"""The labels of a row in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from layerfusion.errors import UserError
from layerfusion.texts.cells import labels_in

if TYPE_CHECKING:
    import numpy as np

NO_LABEL = "no label"
SHOWN = 12
"""At most this many labels of a row are named to a reader."""
SEPARATOR = ";"
"""Stands between the labels of a row in a cell, unless its job read them with another one."""


def label_words(
    names: Sequence[str],
    label: np.ndarray | np.integer | int,
    *,
    between: str = ", ",
    nothing: str = NO_LABEL,
    most: int | None = None,
) -> str:
    """Name the label of a row, or all its labels where it may have several.

    Where a name could be read as several, such as `arts, crafts`, they are a list of JSON.

    Args:
        names: names of the labels.
        label: class index, or true where the row has a label, shape (labels,).
        between: stands between several names.
        nothing: stands for no label.
        most: how many labels of a row are named at most, and the others counted; all if None.

    Example:
        >>> label_words(["neg", "pos"], 1)
        'pos'
        >>> label_words(["sport", "music", "art"], np.array([True, False, True]))
        'sport, art'
        >>> label_words(["sport", "music"], np.array([False, False]))
        'no label'
        >>> label_words(["sport", "music", "art"], np.array([True, True, True]), most=1)
        'sport and 2 more'
        >>> label_words(["sport", "arts, crafts"], np.array([False, True]))
        '["arts, crafts"]'
    """
    import numpy as np  # imported here, so that the help of a command does not load it

    if np.ndim(label) == 0:
        return names[int(label)]
    found = [names[k] for k in np.flatnonzero(label).tolist()]
    more = f" and {len(found) - most} more" if most is not None and len(found) > most else ""
    joined = can_be_joined(tuple(names), between)
    if not found and (joined or nothing):
        return nothing
    if not joined:
        return json.dumps(found[:most], ensure_ascii=False) + more
    return between.join(found[:most]) + more


@lru_cache
def can_be_joined(names: tuple[str, ...], between: str) -> bool:
    """Tell whether labels can be told apart in a cell that joins those of a row.

    Example:
        >>> can_be_joined(("sport", "arts, crafts"), ";"), can_be_joined(("sport", "a;b"), ";")
        (True, False)
    """
    try:
        return all(
            name[:1] not in tuple("[({") and labels_in(name, between) == [name] for name in names
        )
    except UserError:  # it would be taken for a list
        return False


def shown_name(name: str) -> str:
    r"""Write the name of a class in one line that a terminal shows as it is.

    Example:
        >>> shown_name("über alles"), shown_name("two\nlines")
        ('über alles', 'two\\nlines')
    """
    return name if name.isprintable() else repr(name)[1:-1]
