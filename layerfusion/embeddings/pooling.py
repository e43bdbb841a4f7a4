"""From token vectors to one vector a text, over real tokens only."""

from __future__ import annotations

import torch
from torch import Tensor

from layerfusion.config.job import PoolingConfig


def pool(hidden: Tensor, start: Tensor, stop: Tensor, how: str) -> Tensor:
    """Pool the tokens start ≤ t < stop of each row; what lies outside never counts.

    Args:
        hidden: token vectors. Shape: (batch, tokens, width), any floating dtype.
        start: first position of each row. Shape: (batch,), integers.
        stop: one past the last position of each row, above `start`. Shape: (batch,).
        how: mean, first, last or max.

    Returns:
        Shape: (batch, width), float32; sums are taken in float32.
    """
    rows = torch.arange(hidden.shape[0], device=hidden.device)
    if how == "first":
        return hidden[rows, start].float()
    if how == "last":
        return hidden[rows, stop - 1].float()
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    outside = ((positions < start[:, None]) | (positions >= stop[:, None]))[:, :, None]
    if how == "max":
        return hidden.float().masked_fill(outside, -torch.inf).amax(dim=1)
    total = hidden.float().masked_fill(outside, 0.0).sum(dim=1)
    return total / (stop - start)[:, None]


def first_pooled(start: Tensor, stop: Tensor, opens: Tensor, config: PoolingConfig) -> Tensor:
    """The first position to pool, the text's first token left out where the pooling says so.

    A row of one token keeps it: there is nothing else to pool.

    Args:
        start: first position of each row. Shape: (rows,).
        stop: one past its last position. Shape: (rows,).
        opens: whether the row begins its text. Shape: (rows,), bool.
        config: the pooling.
    """
    if not config.skip_first:
        return start
    return torch.minimum(start + opens.to(start.dtype), stop - 1)


def combine(windows: Tensor, tokens: Tensor, owner: Tensor, texts: int, how: str) -> Tensor:
    """Bring the pooled windows of each text together, as if its tokens had been pooled at once.

    Args:
        windows: pooled windows, those of a text in reading order. Shape: (windows, width).
        tokens: tokens pooled in each window. Shape: (windows,).
        owner: which text a window belongs to, ascending. Shape: (windows,).
        texts: number of texts.
        how: the `pool` of the pooling.

    Returns:
        Shape: (texts, width).
    """
    if len(windows) == texts:
        return windows
    result = torch.empty(texts, windows.shape[1])
    if how == "mean":
        weights = tokens.to(windows.dtype)
        total = torch.zeros_like(result).index_add_(0, owner, windows * weights[:, None])
        return total / torch.zeros(texts).index_add_(0, owner, weights)[:, None]
    if how == "max":
        index = owner[:, None].expand_as(windows)
        return result.scatter_reduce_(0, index, windows, "amax", include_self=False)
    first = torch.searchsorted(owner, torch.arange(texts))
    if how == "first":
        return windows[first]
    return windows[torch.cat([first[1:], torch.tensor([len(windows)])]) - 1]
