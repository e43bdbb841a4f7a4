"""Poolings: from token vectors to one vector a text, over real tokens only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

from layerfusion.config.imports import import_object
from layerfusion.config.job import PoolingConfig
from layerfusion.config.registry import POOLINGS, import_path
from layerfusion.errors import UserError

Pool = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(hidden, start, stop) -> pooled: the tokens start ≤ t < stop of each row, brought together.

Shapes: hidden (batch, tokens, width), any floating dtype; start and stop (batch,), integers with
start < stop; pooled (batch, width), float32. What lies outside start and stop must not count.
"""
Combine = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(windows, tokens, owner, texts) -> vectors: the pooled windows of each text, brought together.

Shapes: windows (windows, width), those of a text in reading order; tokens (windows,), how many
tokens each has; owner (windows,), ascending, the text that each belongs to; vectors (texts, width).
"""


def mean_by_tokens(windows: Tensor, tokens: Tensor, owner: Tensor, texts: int) -> Tensor:
    """Mean of each text's windows, weighted by their tokens."""
    weights = tokens.to(windows.dtype)
    total = torch.zeros(texts, windows.shape[1])
    total.index_add_(0, owner, windows * weights[:, None])
    return total / torch.zeros(texts).index_add_(0, owner, weights)[:, None]


def largest_window_values(windows: Tensor, _tokens: Tensor, owner: Tensor, texts: int) -> Tensor:
    """Largest value of each dimension over a text's windows."""
    index = owner[:, None].expand_as(windows)
    result = torch.empty(texts, windows.shape[1])
    return result.scatter_reduce_(0, index, windows, "amax", include_self=False)


def first_window(windows: Tensor, _tokens: Tensor, owner: Tensor, texts: int) -> Tensor:
    """The first window of each text."""
    return windows[torch.searchsorted(owner, torch.arange(texts))]


def last_window(windows: Tensor, _tokens: Tensor, owner: Tensor, texts: int) -> Tensor:
    """The last window of each text."""
    return windows[torch.searchsorted(owner, torch.arange(texts), right=True) - 1]


def mean_tokens(hidden: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Mean of the tokens, summed in float32."""
    total = hidden.float().masked_fill(_outside(hidden, start, stop), 0.0).sum(dim=1)
    return total / (stop - start)[:, None]


def largest_values(hidden: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Largest value of each dimension over the tokens."""
    return hidden.float().masked_fill(_outside(hidden, start, stop), -torch.inf).amax(dim=1)


def first_token(hidden: Tensor, start: Tensor, _stop: Tensor) -> Tensor:
    """The first token."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), start].float()


def last_token(hidden: Tensor, _start: Tensor, stop: Tensor) -> Tensor:
    """The last token."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), stop - 1].float()


def _outside(hidden: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """True at tokens that do not count. Shape: (batch, tokens, 1)."""
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    return ((positions < start[:, None]) | (positions >= stop[:, None]))[:, :, None]


@dataclass(frozen=True)
class Pooling:
    """A way to bring the tokens of a window together, and then the windows of a long text."""

    pool: Pool
    combine: Combine = mean_by_tokens


MEAN = Pooling(mean_tokens)
MAX = Pooling(largest_values, largest_window_values)
FIRST = Pooling(first_token, first_window)
LAST = Pooling(last_token, last_window)


@lru_cache(maxsize=100)
def find_pooling(name: str) -> Pooling:
    """The pooling that `pooling.NAME.pool` names.

    Args:
        name: one of `config.registry.POOLINGS`, or `package.module:name` of a function of the
            user's (see `Pool`). Its windows are combined by their mean, weighted by their tokens,
            unless the function carries an attribute `combine` (see `Combine`).

    Raises:
        UserError: for a name that does not exist, or an object that is no function.
    """
    function: Any = import_object("pool", import_path("pool", name, POOLINGS))
    if isinstance(function, Pooling):
        return function
    if isinstance(function, type) or not callable(function):
        raise UserError(
            f"pool={name}: it is a {type(function).__name__}; a function (hidden, start, stop) ->"
            " pooled is needed"
        )
    return Pooling(cast("Pool", function), getattr(function, "combine", mean_by_tokens))


def pool(hidden: Tensor, start: Tensor, stop: Tensor, how: str) -> Tensor:
    """Pool the tokens start ≤ t < stop of each row; what lies outside never counts.

    Args:
        hidden: token vectors. Shape: (batch, tokens, width), any floating dtype.
        start: first position of each row. Shape: (batch,), integers.
        stop: one past the last position of each row, above `start`. Shape: (batch,).
        how: mean, first, last, max or `package.module:name`.

    Returns:
        Shape: (batch, width), float32; sums are taken in float32.

    Raises:
        UserError: for a name that does not exist, and where a function of the user's gives another
            shape.

    Example:
        >>> hidden = torch.tensor([[[1.0], [3.0], [50.0]]])
        >>> pool(hidden, torch.tensor([0]), torch.tensor([2]), "mean")
        tensor([[2.]])
    """
    pooled = find_pooling(how).pool(hidden, start, stop)
    wanted = (hidden.shape[0], hidden.shape[2])
    if pooled.shape != wanted:
        raise UserError(
            f"pool={how}: it gave the shape {tuple(pooled.shape)}; (batch, width) = {wanted} is"
            " needed"
        )
    return pooled.float()


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
    """The first position to pool: one further where the text's first token is to be skipped.

    A row of one token keeps it: there is nothing else to pool.

    Args:
        start: first position of each row. Shape: (rows,).
        stop: one past its last position. Shape: (rows,).
        opens: True where the row begins its text. Shape: (rows,), bool.
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
        owner: the text that each window belongs to, ascending. Shape: (windows,).
        texts: number of texts.
        how: mean, first, last, max or `package.module:name`.

    Returns:
        Shape: (texts, width).

    Raises:
        UserError: for a name that does not exist.
    """
    if len(windows) == texts:
        return windows
    return find_pooling(how).combine(windows, tokens, owner, texts)
