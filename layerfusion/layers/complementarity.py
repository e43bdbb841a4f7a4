"""Complementarity of two systems: the fewer errors they share, the more fusing them can gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layerfusion.errors import UserError


@dataclass(frozen=True)
class Complementarity:
    """Relation between the errors of two systems on the same rows."""

    error_overlap: float | None
    """Rows that both get wrong, divided by rows that at least one gets wrong (Jaccard): 0 where no
    error is shared, 1 where all are, none where there is no error."""
    q_statistic: float | None
    """Yule's Q, in [-1, 1]: 0 for independent errors, 1 where the errors of one system include all
    errors of the other, below 0 where they err on different rows, none where it is 0 / 0."""
    oracle_gain: float
    """Accuracy of a judge that always picks the right system, minus that of the better system, in
    [0, 0.5]: the most that picking a system for each row can gain."""


def complementarity(first: np.ndarray, second: np.ndarray) -> Complementarity:
    """Compare the errors of two systems.

    With N_ab the rows where the first is right (a = 1) or wrong (a = 0) and the second likewise:

        error_overlap = N_00 / (N_00 + N_01 + N_10)
        Q = (N_11 N_00 − N_01 N_10) / (N_11 N_00 + N_01 N_10)
        oracle_gain = min(N_01, N_10) / rows

    Complexity: O(rows).

    Args:
        first: true on each held-out row that a system gets right. Shape: (rows,), bool.
        second: the same of another system, on the same rows.

    Raises:
        UserError: if there is no row, or the two have unequal numbers of rows.

    Source: Q and the counts: Kuncheva & Whitaker, "Measures of diversity in classifier ensembles
    and their relationship with the ensemble accuracy", Machine Learning 51, 2003.
    """
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise UserError(
            f"complementarity: systems judged on rows of shape {a.shape} and {b.shape};"
            " both have to be judged on the same rows, at least one"
        )
    # Python's integers: the products of the counts never overflow.
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    errors = neither + only_first + only_second
    same, apart = both * neither, only_first * only_second
    return Complementarity(
        error_overlap=neither / errors if errors else None,
        q_statistic=(same - apart) / (same + apart) if same + apart else None,
        oracle_gain=min(only_first, only_second) / a.size,
    )
