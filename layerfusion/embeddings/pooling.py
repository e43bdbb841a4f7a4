"""From token vectors to one vector a text, over real tokens only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        return hidden.masked_fill(outside, -torch.inf).amax(dim=1).float()
    total = hidden.float().masked_fill(outside, 0.0).sum(dim=1)
    return total / (stop - start)[:, None]


def pool_tokens(tokens: Tensor, spans: Spans, how: str) -> Tensor:
    """Pool rows whose token vectors lie end to end, without a copy of them in float32.

    Args:
        tokens: token vectors, at first as they left the model. Shape: (tokens, width).
        spans: which of them each row pools.
        how: mean, first, last or max.

    Returns:
        Shape: (rows, width), float32; sums are taken in float32.
    """
    pooled = []
    for places, count in spans.parts:
        rows = tokens[places]
        if how == "mean" and hasattr(torch.ops.aten.bmm, "dtype") and tokens.is_cuda:
            pooled.append(_mean_of_leading(rows, count))
        else:
            pooled.append(pool(rows, torch.zeros_like(count), count, how))
    return torch.cat(pooled)


def _mean_of_leading(rows: Tensor, count: Tensor) -> Tensor:
    """The mean of the first `count` tokens of each row, as one batched matrix product.

    The product sums numbers of two bytes in float32 and returns them so. Shapes: (rows, tokens,
    width) and (rows,) to (rows, width).
    """
    positions = torch.arange(rows.shape[1], device=rows.device)
    counted = (positions < count[:, None]).to(rows.dtype)[:, None]
    if rows.dtype == torch.float32:
        total = torch.bmm(counted, rows)
    else:
        total = torch.bmm(counted, rows, out_dtype=torch.float32)
    return total[:, 0] / count[:, None]


@dataclass(frozen=True)
class Spans:
    """Which of the token vectors of a batch each row pools.

    Attributes:
        parts: rows of similar length together. For each part the places of their tokens, shape
            (rows, longest), where places beyond a row's end repeat its last one, so that no value
            of another row or of padding is ever touched; and the tokens of each row, shape (rows,).
    """

    parts: tuple[tuple[Tensor, Tensor], ...]


def find_spans(first: Tensor, last: Tensor, lengths: Sequence[int]) -> Spans:
    """Spans of rows, split where lengths halve, so that little is gathered twice.

    Args:
        first: place of the first token that a row pools. Shape: (rows,).
        last: place of the last. Shape: (rows,).
        lengths: tokens of each row on the host, at least as many as it pools.
    """
    parts = []
    begin = 0
    for end in range(1, len(lengths) + 1):
        if (
            end < len(lengths)
            and 2 * lengths[end] > lengths[begin]
            and (lengths[end] <= lengths[begin])
        ):
            continue
        steps = torch.arange(lengths[begin], device=first.device)
        start, stop = first[begin:end, None], last[begin:end, None]
        parts.append((torch.minimum(start + steps, stop), (stop - start + 1)[:, 0]))
        begin = end
    return Spans(tuple(parts))


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
