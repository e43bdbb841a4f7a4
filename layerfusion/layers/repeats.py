"""Rows that repeat a text: how many texts there are, and how sure a mean over their rows is.

A row repeats a text for its weight, or where data has the text more than once. What such rows say
is no surer than what one of them says. Whatever asks how sure a mean over held-out rows is says
which text each row has, or `None` where it takes all of them to differ. Where the data have groups,
such as authors, these are what is numbered, and rows of a group what repeats a text.
"""

from __future__ import annotations

import torch
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


def take_texts(text_of: Tensor | None, rows: Tensor) -> Tensor | None:
    """Take the numbers of the texts of some rows, by a mask or by positions, if there are any."""
    return None if text_of is None else text_of[rows]


def deal_texts(text_of: Tensor | None, rows: int, folds: int, seed: int) -> Tensor:
    """Deal rows to folds at random, all rows of a text to the same one.

    Args:
        text_of: number of the text of each row; None if all differ. Shape: (rows,).
        rows: number of rows.
        folds: most folds; there are no more than texts.
        seed: seed of the deal.

    Returns:
        The fold of each row. Shape: (rows,), int64.
    """
    of_row, texts = number_texts(torch.arange(rows) if text_of is None else text_of)
    generator = torch.Generator().manual_seed(seed)
    return (torch.randperm(texts, generator=generator) % min(folds, texts))[of_row]


def standard_error(values: Tensor, text_of: Tensor | None) -> float:
    """Standard error of the mean over rows: `standard_errors` of a single mean.

    Args:
        values: one number for each row. Shape: (rows,).
        text_of: as for `standard_errors`.
    """
    return float(standard_errors(values, text_of))


def standard_errors(values: Tensor, text_of: Tensor | None) -> Tensor:
    """Standard errors of means over rows; infinite for a single text, which shows no spread.

    Args:
        values: numbers for each row. Shape: (..., rows).
        text_of: number of the row's text, where rows may repeat one (a weight, or a text with two
            classes): these are a cluster, which counts once. None if all differ. Shape: (rows,).

    Returns:
        Shape: (...), float64.
    """
    rows = values.shape[-1]
    of_row, texts = (None, rows) if text_of is None else number_texts(text_of)
    if texts < 2:
        return torch.full(values.shape[:-1], torch.inf, dtype=torch.float64)
    if of_row is None or texts == rows:
        over = -1 if values.ndim > 1 else None
        return values.std(dim=over).double() / rows**0.5
    moved = (values - values.mean(dim=-1, keepdim=True)).double()
    sums = moved.new_zeros(*moved.shape[:-1], texts).index_add_(-1, of_row, moved)
    return (sums.square().sum(dim=-1) * texts / (texts - 1)).sqrt() / rows
