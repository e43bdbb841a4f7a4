"""Rows that repeat a text: how many texts there are, and how sure a mean over their rows is.

A row repeats a text for its weight, or where data has the text more than once. What such rows say
is no surer than what one of them says.
"""

from __future__ import annotations

import math

from torch import Tensor


def number_texts(text_of: Tensor) -> tuple[Tensor, int]:
    """Number the texts of some rows anew, from 0 on and without a gap.

    Args:
        text_of: any number of each row's text. Shape: (rows,).

    Returns:
        The new number of each row's text, shape (rows,), int64, and how many texts there are.
    """
    texts, of_row = text_of.unique(return_inverse=True)
    return of_row, len(texts)


def distinct_share(text_of: Tensor | None) -> float:
    """Return the number of different texts as a share of the rows: 1 where none is repeated.

    Args:
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
    """
    return 1.0 if text_of is None else number_texts(text_of)[1] / len(text_of)


def standard_error(values: Tensor, text_of: Tensor | None = None) -> float:
    """Standard error of the mean over rows; infinite for a single text, which shows no spread.

    Args:
        values: one number for each row. Shape: (rows,).
        text_of: number of the row's text, where rows may repeat one (a weight, or a text with two
            classes): these are a cluster, which counts once. None if all differ. Shape: (rows,).
    """
    if text_of is not None:
        of_row, texts = number_texts(text_of)
        if texts < len(values):
            moved = (values - values.mean()).double()
            sums = moved.new_zeros(texts).index_add_(0, of_row, moved)
            spread = float(sums.square().sum()) * texts / (texts - 1) if texts > 1 else math.inf
            return spread**0.5 / len(values)
    return float(values.std()) / len(values) ** 0.5 if len(values) > 1 else math.inf
