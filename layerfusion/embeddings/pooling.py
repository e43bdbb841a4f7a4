"""Pool token vectors to one vector for each text, over real tokens only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from layerfusion.config.imports import import_object
from layerfusion.config.job import PoolingConfig
from layerfusion.config.registry import POOLINGS, import_path
from layerfusion.config.user_code import call_user_code, is_ours, name_of
from layerfusion.embeddings.memory import out_of_memory
from layerfusion.errors import UserError, short

Pool = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function (hidden, start, stop) -> pooled that pools the tokens start ≤ t < stop of each row.

Shapes: hidden (batch, tokens, width), any floating dtype; start and stop (batch,), integers with
start < stop; pooled (batch, width), float32. Tokens outside start and stop must not count.
"""
Combine = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Function (windows, tokens, owner, texts) -> vectors that combines the pooled windows of a text.

Shapes: windows (windows, width), in reading order within a text; tokens (windows,), the number of
tokens of each window; owner (windows,), the text of each window, ascending; vectors (texts, width).
"""


def mean_by_tokens(windows: Tensor, tokens: Tensor, owner: Tensor, texts: int) -> Tensor:
    """Take the mean of each text's windows, weighted by their numbers of tokens."""
    weights = tokens.to(windows.dtype)
    total = torch.zeros(texts, windows.shape[1])
    total.index_add_(0, owner, windows * weights[:, None])
    return total / torch.zeros(texts).index_add_(0, owner, weights)[:, None]


def largest_window_values(windows: Tensor, _tokens: Tensor, owner: Tensor, texts: int) -> Tensor:
    """Take the largest value of each dimension over a text's windows."""
    index = owner[:, None].expand_as(windows)
    result = torch.empty(texts, windows.shape[1])
    return result.scatter_reduce_(0, index, windows, "amax", include_self=False)


def first_window(windows: Tensor, _tokens: Tensor, owner: Tensor, texts: int) -> Tensor:
    """Take the first window of each text."""
    return windows[torch.searchsorted(owner, torch.arange(texts))]


def last_window(windows: Tensor, _tokens: Tensor, owner: Tensor, texts: int) -> Tensor:
    """Take the last window of each text."""
    return windows[torch.searchsorted(owner, torch.arange(texts), right=True) - 1]


def mean_tokens(hidden: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Take the mean of the tokens, summed in float32."""
    total = hidden.float().masked_fill(_outside(hidden, start, stop), 0.0).sum(dim=1)
    return total / (stop - start)[:, None]


def largest_values(hidden: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Take the largest value of each dimension over the tokens."""
    return hidden.float().masked_fill(_outside(hidden, start, stop), -torch.inf).amax(dim=1)


def first_token(hidden: Tensor, start: Tensor, _stop: Tensor) -> Tensor:
    """Take the first token of each row."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), start].float()


def last_token(hidden: Tensor, _start: Tensor, stop: Tensor) -> Tensor:
    """Take the last token of each row."""
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), stop - 1].float()


def _outside(hidden: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Mark the tokens that do not count. Returned shape: (batch, tokens, 1), bool."""
    positions = torch.arange(hidden.shape[1], device=hidden.device)
    return ((positions < start[:, None]) | (positions >= stop[:, None]))[:, :, None]


@dataclass(frozen=True)
class Pooling:
    """A function that pools the tokens of a window, and one that combines a text's windows."""

    pool: Pool
    combine: Combine = mean_by_tokens


MEAN = Pooling(mean_tokens)
MAX = Pooling(largest_values, largest_window_values)
FIRST = Pooling(first_token, first_window)
LAST = Pooling(last_token, last_window)


def find_pooling(name: str) -> Pooling:
    """Find the pooling for a value of `pooling.NAME.pool`.

    Args:
        name: a name from `config.registry.POOLINGS`, or `package.module:name` of a user's function
            (see `Pool`). Windows are combined by their mean, weighted by their tokens, unless the
            function has an attribute `combine` (see `Combine`).

    Raises:
        UserError: if the name does not exist or the object is not a function.
    """
    function: Any = import_object("pool", import_path("pool", name, POOLINGS))
    if isinstance(function, Pooling):
        return function
    if isinstance(function, type) or not callable(function):
        raise UserError(
            f"pool={name}: it is of type {type(function).__name__}; it must be a function"
            " (hidden, start, stop) -> pooled"
        )
    return Pooling(cast("Pool", function), getattr(function, "combine", mean_by_tokens))


def pool(hidden: Tensor, start: Tensor, stop: Tensor, how: str) -> Tensor:
    """Pool the tokens start ≤ t < stop of each row; other tokens never count.

    Args:
        hidden: token vectors. Shape: (batch, tokens, width), any floating dtype.
        start: first pooled position of each row. Shape: (batch,), integers.
        stop: one past the last pooled position of each row, above `start`. Shape: (batch,).
        how: mean, first, last, max or `package.module:name`.

    Returns:
        The pooled vectors, summed in float32. Shape: (batch, width), float32.

    Raises:
        UserError: if the name does not exist, or a user's function fails or returns another shape,
            NaN or infinity.

    Example:
        >>> hidden = torch.tensor([[[1.0], [3.0], [50.0]]])
        >>> pool(hidden, torch.tensor([0]), torch.tensor([2]), "mean")
        tensor([[2.]])
    """
    function = find_pooling(how).pool
    given = call_user_code("pooling", function, hidden, start, stop, passing=out_of_memory)
    pooled = _checked(given, function, (hidden.shape[0], hidden.shape[2])).float()
    if not is_ours(function) and bool(hidden.isfinite().all() > pooled.isfinite().all()):
        raise UserError(f"pooling {name_of(function)}: it returned NaN or infinity")
    return pooled


def _checked(vectors: object, function: object, wanted: tuple[int, int]) -> Tensor:
    """Return what a function of a pooling gave, if it is a tensor of the shape that is needed."""
    if isinstance(vectors, Tensor) and vectors.shape == wanted:
        return vectors
    found = f"the shape {tuple(vectors.shape)}" if isinstance(vectors, Tensor) else short(vectors)
    raise UserError(
        f"pooling {name_of(function)}: it returned {found}; a tensor of the shape {wanted} is"
        " needed, which is (texts, width)"
    )


def pool_tokens(tokens: Tensor, spans: Spans, how: str) -> Tensor:
    """Pool rows whose token vectors lie end to end, without copying them to float32.

    Args:
        tokens: token vectors in the dtype of the model. Shape: (tokens, width).
        spans: the tokens of each row.
        how: mean, first, last or max.

    Returns:
        The pooled vectors, summed in float32. Shape: (rows, width), float32.
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
    """Average the first `count` tokens of each row in one batched matrix product.

    The product sums numbers of two bytes in float32 and returns float32.

    Args:
        rows: token vectors. Shape: (rows, tokens, width).
        count: number of tokens of each row. Shape: (rows,).

    Returns:
        The means. Shape: (rows, width).
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
    """The places of the token vectors that each row of a batch pools.

    Attributes:
        parts: groups of rows of similar length. Each group has the places of the rows' tokens,
            shape (rows, longest), and the number of tokens of each row, shape (rows,). Beyond the
            end of a row its last place is repeated, so that no other row and no padding is read.
    """

    parts: tuple[tuple[Tensor, Tensor], ...]


def find_spans(first: Tensor, last: Tensor, lengths: Sequence[int]) -> Spans:
    """Find the spans of rows. Groups are split where lengths halve, so that few places repeat.

    Args:
        first: place of the first token that a row pools. Shape: (rows,).
        last: place of the last token that a row pools. Shape: (rows,).
        lengths: number of tokens of each row, on the host; at least as many as the row pools.
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
    """Return the first position to pool, one further if the first token of a text is skipped.

    The only token of a row is never skipped, as there is nothing else to pool.

    Args:
        start: first position of each row. Shape: (rows,).
        stop: one past the last position of each row. Shape: (rows,).
        opens: True if the row begins its text. Shape: (rows,), bool.
        config: settings of the pooling.
    """
    if not config.skip_first:
        return start
    return torch.minimum(start + opens.to(start.dtype), stop - 1)


def combine(windows: Tensor, tokens: Tensor, owner: Tensor, texts: int, how: str) -> Tensor:
    """Combine the pooled windows of each text, as if all its tokens had been pooled at once.

    Args:
        windows: pooled windows, in reading order within a text. Shape: (windows, width).
        tokens: number of tokens pooled in each window. Shape: (windows,).
        owner: number of the text of each window, ascending. Shape: (windows,).
        texts: number of texts.
        how: mean, first, last, max or `package.module:name`.

    Returns:
        The vectors. Shape: (texts, width).

    Raises:
        UserError: if the name does not exist, or a user's function fails or returns another shape.
    """
    if len(windows) == texts:
        return windows
    function = find_pooling(how).combine
    vectors = call_user_code(
        "pooling", function, windows, tokens, owner, texts, passing=out_of_memory
    )
    return _checked(vectors, function, (texts, windows.shape[1]))
