"""The labels of a row in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

NO_LABEL = "no label"
SHOWN = 12
"""At most this many labels of a row are named to a reader."""


def label_words(
    names: Sequence[str],
    label: np.ndarray | np.integer | int,
    *,
    between: str = ", ",
    nothing: str = NO_LABEL,
    most: int | None = None,
) -> str:
    """Name the label of a row, or all its labels where it may have several.

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
    """
    import numpy as np  # imported here, so that the help of a command does not load it

    if np.ndim(label) == 0:
        return names[int(label)]
    found = [names[k] for k in np.flatnonzero(label).tolist()]
    more = f" and {len(found) - most} more" if most is not None and len(found) > most else ""
    return between.join(found[:most]) + more or nothing


def shown_name(name: str) -> str:
    r"""Write the name of a class in one line that a terminal shows as it is.

    Example:
        >>> shown_name("über alles"), shown_name("two\nlines")
        ('über alles', 'two\\nlines')
    """
    return name if name.isprintable() else repr(name)[1:-1]
