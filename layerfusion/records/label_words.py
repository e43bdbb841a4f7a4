"""The labels of a row in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NO_LABEL = "no label"


def label_words(
    names: Sequence[str],
    label: np.ndarray | np.integer | int,
    *,
    between: str = ", ",
    nothing: str = NO_LABEL,
) -> str:
    """Name the label of a row, or all its labels where it may have several.

    Args:
        names: names of the labels.
        label: class index, or true where the row has a label, shape (labels,).
        between: stands between several names.
        nothing: stands for no label.

    Example:
        >>> label_words(["neg", "pos"], 1)
        'pos'
        >>> label_words(["sport", "music", "art"], np.array([True, False, True]))
        'sport, art'
        >>> label_words(["sport", "music"], np.array([False, False]))
        'no label'
    """
    if np.ndim(label) == 0:
        return names[int(label)]
    return between.join(names[k] for k in np.flatnonzero(label).tolist()) or nothing
