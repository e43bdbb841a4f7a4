"""The names of what probabilities stand for: a class, or any number of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layerfusion.statistics.answers import answers


def labels_of(
    probabilities: np.ndarray, names: Sequence[str], *, multilabel: bool
) -> list[str] | list[list[str]]:
    """Name the most probable class of each text, or all labels that it has.

    Args:
        probabilities: of the classes or labels. Shape: (texts, classes).
        names: their names.
        multilabel: whether a text has any number of them.

    Returns:
        A name for each text; of labels a list of names, in the order of `names`, maybe empty.

    Example:
        >>> probabilities = np.array([[0.2, 0.1, 0.7], [0.6, 0.0, 0.5], [0.1, 0.1, 0.1]])
        >>> labels_of(probabilities[:2], ["a", "b", "c"], multilabel=False)
        ['c', 'a']
        >>> labels_of(probabilities, ["a", "b", "c"], multilabel=True)
        [['c'], ['a', 'c'], []]
    """
    said = answers(probabilities, multilabel=multilabel)
    if multilabel:
        return [[names[k] for k in np.flatnonzero(row).tolist()] for row in said]
    best: list[int] = said.tolist()
    return [names[k] for k in best]
