"""Pass batches of texts through a frozen model, and pool each layer as soon as it is computed."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import PoolingConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.memory import out_of_memory
from layerfusion.embeddings.packing import PackedBatch, pack
from layerfusion.embeddings.pooling import (
    Spans,
    combine,
    find_spans,
    first_pooled,
    pool,
    pool_tokens,
)
from layerfusion.embeddings.store import FLOAT16_MAX
from layerfusion.embeddings.tokens import Batch, TokenizedText, Window, batches, collate
from layerfusion.errors import UserError

log = logging.getLogger(__name__)

Vectors = dict[tuple[str, str], np.ndarray]
"""Vectors of texts by (pooling, layer). Shape: (texts, width), float32, or float16 if rounded."""

IN_FLIGHT = 2
"""Number of batches that a GPU is given before we wait for the first of them."""
MOST_PADDING = 64
"""Tokens of padding in a batch of a CPU, to which another batch costs as much as 30 to 40 tokens.
A GPU waits longer for small batches than for padding."""


class Rows(Protocol):
    """Rows of tokens that pass through a model in batches."""

    @property
    def lengths(self) -> Sequence[int]:
        """Return the number of tokens of each row."""
        ...


R = TypeVar("R", bound=Rows)
T = TypeVar("T")


@dataclass
class TokenBudget:
    """Number of tokens in a batch, padding included. It is halved when memory runs out."""

    tokens: int


@dataclass(frozen=True)
class Embedded:
    """Texts with the pooled vectors of their windows.

    Attributes:
        texts: the texts.
        rows: vectors of the windows by (pooling, layer), in the order of the texts. Shape:
            (windows, width), float32, or float16 if rounded.
    """

    texts: Sequence[TokenizedText]
    rows: Mapping[tuple[str, str], Tensor]

    def vectors(self, poolings: Mapping[str, PoolingConfig]) -> Vectors:
        """Combine the windows of each text, as if all its tokens had been pooled at once.

        Args:
            poolings: settings of each pooling.
        """
        windows = [window for text in self.texts for window in text.windows]
        if len(windows) == len(self.texts):
            return {key: values.numpy() for key, values in self.rows.items()}
        owner = torch.tensor([n for n, text in enumerate(self.texts) for _ in text.windows])
        start, stop, opens = _facts(windows)
        vectors = {}
        for (name, layer), values in self.rows.items():
            how = poolings[name]
            tokens = stop - first_pooled(start, stop, opens, how)
            vectors[name, layer] = combine(values, tokens, owner, len(self.texts), how.pool).numpy()
        return vectors


def _facts(windows: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor]:
    """Return `start`, `stop` and `opens` of the windows as tensors. Shapes: (windows,)."""
    return (
        torch.tensor([window.start for window in windows]),
        torch.tensor([window.stop for window in windows]),
        torch.tensor([window.opens for window in windows]),
    )


def embed(
    backbone: Backbone,
    texts: Sequence[TokenizedText],
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
    budget: int,
    progress: Callable[[int], object] = lambda tokens: None,
) -> tuple[Vectors, int]:
    """Pass texts through a model, in batches that fit into memory, and pool each wanted layer.

    Args:
        backbone: the model.
        texts: the texts, the longest first.
        layers: wanted layers for each pooling; higher blocks are not computed.
        poolings: settings of each pooling.
        budget: number of tokens in a batch, padding included.
        progress: called with the number of tokens of each batch.

    Returns:
        The vectors, and the budget, which is smaller than before if memory ran out.

    Raises:
        UserError: if there is no memory for a single text.
    """
    shared = TokenBudget(budget)
    (embedded,) = embed_groups(backbone, [texts], layers, poolings, shared, progress)
    return embedded.vectors(poolings), shared.tokens


def embed_groups(
    backbone: Backbone,
    groups: Iterable[Sequence[TokenizedText]],
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
    budget: TokenBudget,
    progress: Callable[[int], object] = lambda tokens: None,
    *,
    rounded: bool = False,
) -> Iterator[Embedded]:
    """Pass groups of texts through a model. No batch holds texts of two groups.

    Args:
        backbone: the model.
        groups: the texts, read as the pass goes on; in each group the longest first.
        layers: wanted layers for each pooling; higher blocks are not computed.
        poolings: settings of each pooling.
        budget: number of tokens in a batch; reduced when memory runs out.
        progress: called with the number of tokens of each batch.
        rounded: round the vectors of a layer in a batch to float16 on the device, as a store would,
            where all of them fit. Where a text has several windows, their vectors are not rounded.

    Yields:
        The groups in order, with the pooled vectors of their windows.

    Raises:
        UserError: if there is no memory for a single text.
    """

    def start(group: _Group, rows: Sequence[int]) -> Callable[[], dict[tuple[str, str], Tensor]]:
        windows = [group.windows[row] for row in rows]
        round_now = rounded and len(group.windows) == len(group.texts)
        return launch(backbone, windows, layers, poolings, rounded=round_now).land

    for group, rows, pooled in pass_batches(backbone, map(_Group, groups), budget, start):
        group.fill(rows, pooled)
        progress(sum(group.lengths[row] for row in rows))
        if group.remaining == 0:
            yield Embedded(group.texts, group.pooled)


def pass_batches(
    backbone: Backbone,
    groups: Iterable[R],
    budget: TokenBudget,
    start: Callable[[R, list[int]], Callable[[], T]],
    *,
    allow_packing: bool = True,
) -> Iterator[tuple[R, list[int], T]]:
    """Pass groups of rows through a model in batches, with smaller ones if memory runs out.

    On a GPU the next batches, also those of the next group, are computed while we wait for one.

    Args:
        backbone: the model.
        groups: the rows, read as the pass goes on. No batch holds rows of two groups.
        budget: number of tokens in a batch; reduced when memory runs out.
        start: function that begins to compute the given rows of a group, and returns a function
            that waits for the result.
        allow_packing: False if `start` needs padded batches even where the model takes packed ones.

    Yields:
        The group, its row numbers and their result for each batch, in order.

    Raises:
        UserError: if there is no memory for a single row.
    """
    most = IN_FLIGHT if backbone.is_fed else 0
    flying: deque[tuple[R, list[int], Callable[[], T]]] = deque()

    def land() -> tuple[R, list[int], T]:
        group, rows, wait = flying.popleft()
        return group, rows, wait()

    for group in groups:
        packed = allow_packing and packs(backbone, max(group.lengths))
        pending = deque(_batches(backbone, group.lengths, budget.tokens, packed))
        while pending:
            rows = pending.popleft()
            try:
                wait = start(group, rows)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if not flying:
                    _shrink(backbone, group.lengths, rows, pending, budget, packed, error)
                    continue
                wait = None
            if wait is None:
                # The batches under way take memory too, so we finish them and try once more.
                pending.appendleft(rows)
                while flying:
                    yield land()
                continue
            flying.append((group, rows, wait))
            while len(flying) > most:
                yield land()
    while flying:
        yield land()


class _Group:
    """Texts whose windows pass through the model in batches of their own."""

    def __init__(self, texts: Sequence[TokenizedText]) -> None:
        self.texts = texts
        self.windows = [window for text in texts for window in text.windows]
        self.lengths = [len(window.ids) for window in self.windows]
        self.remaining = len(self.windows)
        self.pooled: dict[tuple[str, str], Tensor] = {}

    def fill(self, rows: Sequence[int], pooled: Mapping[tuple[str, str], Tensor]) -> None:
        """Store the vectors of the given rows."""
        self.remaining -= len(rows)
        if list(rows) == list(range(len(self.windows))):
            self.pooled = dict(pooled)
            return
        for key, vectors in pooled.items():
            if key not in self.pooled:
                self.pooled[key] = torch.empty(len(self.windows), vectors.shape[1])
            self.pooled[key][rows] = vectors.float()


def _batches(
    backbone: Backbone, lengths: Sequence[int], budget: int, packed: bool
) -> Iterator[list[int]]:
    most = math.inf if backbone.is_fed else MOST_PADDING
    equal = not backbone.masks_padding
    return batches(lengths, budget, equal=equal, packed=packed, most_padding=most)


def packs(backbone: Backbone, longest: int) -> bool:
    """Return true if texts of up to `longest` tokens are packed instead of padded."""
    return backbone.packing is not None and longest <= backbone.packing.longest


def _shrink(
    backbone: Backbone,
    lengths: Sequence[int],
    rows: Sequence[int],
    pending: deque[list[int]],
    budget: TokenBudget,
    packed: bool,
    error: Exception,
) -> None:
    """Halve the budget, and cut the rows that are still to pass into smaller batches.

    The new budget is below the size of the batch that failed, so that it is not formed again.

    Raises:
        UserError: if there is no memory for a single row.
    """
    if len(rows) == 1:
        raise UserError(
            f"backbone {backbone.name}: no memory for one text of {lengths[rows[0]]}"
            f" tokens on {backbone.device}; lower backbone.{backbone.name}.max_length"
        ) from error
    if packed:  # without padding, a batch may hold far fewer tokens than rows × longest row
        budget.tokens = sum(lengths[row] for row in rows) // 2
    else:
        budget.tokens = len(rows) // 2 * lengths[rows[0]]
    log.warning("%s: out of memory, going on with %d tokens", backbone.name, budget.tokens)
    if backbone.device.type == "cuda":
        torch.cuda.empty_cache()  # the freed pieces may be too small for the next batch
    rest = sorted([*rows, *(row for later in pending for row in later)])
    again = _batches(backbone, [lengths[row] for row in rest], budget.tokens, packed)
    smaller = [[rest[place] for place in places] for places in again]
    pending.clear()
    pending.extend(smaller)


def not_finite(
    backbone: str, layer: str, *, text: str | None = None, score: str | None = None
) -> UserError:
    """Build the error for a value that is NaN or infinite.

    Args:
        backbone: name of the model.
        layer: name of the layer.
        text: the text that has the value, if it is known.
        score: name of the score that has the value; None for an embedding.
    """
    kind = "" if score is None else f"{score}: "
    where = "" if text is None else f" for the text {text[:80]!r}"
    return UserError(
        f"{kind}backbone {backbone}, layer {layer}: a value that is not finite{where}; try"
        f" backbone.{backbone}.dtype=float32"
    )


def refuse_not_finite(backbone: str, layer: str, vectors: np.ndarray, texts: Sequence[str]) -> None:
    """Refuse vectors with a value that is NaN or infinite, and name the text.

    Args:
        backbone: name of the model.
        layer: name of the layer.
        vectors: the vectors. Shape: (texts, width).
        texts: the texts.

    Raises:
        UserError: if there is such a value.
    """
    # The minimum and maximum are NaN if any value is; this is faster than looking at each value.
    if np.isfinite(vectors.min()) and np.isfinite(vectors.max()):
        return
    row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
    raise not_finite(backbone, layer, text=texts[row])


@dataclass(frozen=True)
class _Sent:
    """Vectors of one width on their way from the device."""

    keys: Sequence[tuple[str, str]]
    exact: Sequence[Tensor] | Tensor
    """The vectors, on the device. Shape: (keys, rows, width), float32."""
    sent: Sequence[Tensor] | Tensor
    """The same on the CPU, rounded to float16 if that was asked for; not there yet."""
    fits: Tensor | None
    """If they are rounded: which keys fit, on the CPU, not there yet. Shape: (keys,), bool."""

    @classmethod
    def off(cls, pooled: Mapping[tuple[str, str], Tensor], rounded: bool) -> _Sent:
        """Send vectors of one width, each of shape (rows, width)."""
        vectors = list(pooled.values())
        if vectors[0].device.type == "cpu" and not rounded:
            return cls(tuple(pooled), vectors, vectors, None)
        exact = torch.stack(vectors)
        if not rounded:
            return cls(tuple(pooled), exact, _on_the_way(exact), None)
        low, high = torch.aminmax(exact.flatten(1), dim=1)
        fits = torch.maximum(high, -low) <= FLOAT16_MAX  # false for NaN, too
        return cls(tuple(pooled), exact, _on_the_way(exact.half()), _on_the_way(fits))

    def landed(self) -> dict[tuple[str, str], Tensor]:
        """Return the vectors, those of a key that does not fit as they were."""
        fits = torch.ones(len(self.keys)) if self.fits is None else self.fits
        return {
            key: self.sent[number] if fit else self.exact[number].cpu()
            for number, (key, fit) in enumerate(zip(self.keys, fits.tolist(), strict=True))
        }


def _on_the_way(tensor: Tensor) -> Tensor:
    """Begin to copy a tensor to the host, in one piece and without waiting."""
    if not tensor.is_cuda:
        return tensor.cpu()
    on_host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return on_host.copy_(tensor, non_blocking=True)


@dataclass(frozen=True)
class _Flight:
    """The pooled vectors of a batch on their way from the device."""

    parts: Sequence[_Sent]
    arrived: torch.Event | None

    def land(self) -> dict[tuple[str, str], Tensor]:
        """Wait for the vectors, and return them by (pooling, layer). Shape: (rows, width)."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return {key: values for part in self.parts for key, values in part.landed().items()}


@torch.inference_mode()
def launch(
    backbone: Backbone,
    windows: Sequence[Window],
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
    *,
    rounded: bool = False,
) -> _Flight:
    """Start to pass rows through the model and to pool each wanted layer, without waiting.

    On a GPU all layers of a width reach the host in one transfer.

    Args:
        backbone: the model.
        windows: the rows, the longest first.
        layers: wanted layers for each pooling.
        poolings: settings of each pooling.
        rounded: round to float16 on the device what fits.
    """
    lengths = [len(window.ids) for window in windows]
    if backbone.packing is not None and packs(backbone, max(lengths)):
        batch = pack(windows, backbone.packing, backbone.pad_id, backbone.device)
    else:
        batch = collate(windows, backbone.pad_id).to(backbone.device)
    pooled = _pool_on_device(backbone, batch, lengths, layers, poolings)
    by_width: dict[int, dict[tuple[str, str], Tensor]] = {}
    for key, vectors in pooled.items():
        by_width.setdefault(vectors.shape[1], {})[key] = vectors
    parts = [_Sent.off(some, rounded) for some in by_width.values()]
    arrived = None
    if backbone.device.type == "cuda":  # of several GPUs, the model's need not be the current one
        arrived = torch.cuda.current_stream(backbone.device).record_event()
    return _Flight(parts, arrived)


def pool_layers(
    backbone: Backbone,
    batch: Batch,
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
) -> dict[tuple[str, str], Tensor]:
    """Pass a padded batch through the model, and pool each wanted layer.

    Args:
        backbone: the model.
        batch: the padded rows.
        layers: wanted layers for each pooling.
        poolings: settings of each pooling.

    Returns:
        The vectors by (pooling, layer), on the CPU. Shape: (batch, width), float32.
    """
    lengths = batch.attention_mask.sum(dim=1).tolist()
    with torch.inference_mode():
        on_device = batch.to(backbone.device)
        pooled = _pool_on_device(backbone, on_device, lengths, layers, poolings)
        return {key: vectors.cpu() for key, vectors in pooled.items()}


def _pool_on_device(
    backbone: Backbone,
    batch: Batch | PackedBatch,
    lengths: Sequence[int],
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
) -> dict[tuple[str, str], Tensor]:
    """Pool a batch on the device. Returns (rows, width) vectors by (pooling, layer), float32."""
    pooled: dict[tuple[str, str], Tensor] = {}
    starts = {
        name: first_pooled(batch.start, batch.stop, batch.opens, poolings[name]) for name in layers
    }
    if isinstance(batch, PackedBatch):
        offset = batch.offset
    elif backbone.device.type == "cuda":
        rows, tokens = batch.input_ids.shape
        offset = tokens * torch.arange(rows, device=backbone.device)
    else:
        offset = None
    spans: dict[bool, Spans] = {}
    if offset is not None:
        for name, start in starts.items():
            skips = poolings[name].skip_first
            if skips not in spans:
                spans[skips] = find_spans(offset + start, offset + batch.stop - 1, lengths)

    def visit(layer: str, hidden: Tensor) -> None:
        hidden = hidden.to(backbone.device)  # that of a model that is spread may lie elsewhere
        for name, wanted in layers.items():
            if layer not in wanted:
                continue
            how = poolings[name]
            if offset is None:
                pooled[name, layer] = pool(hidden, starts[name], batch.stop, how.pool)
            else:
                tokens = hidden.flatten(0, 1)
                pooled[name, layer] = pool_tokens(tokens, spans[how.skip_first], how.pool)

    together = list(dict.fromkeys(layer for wanted in layers.values() for layer in wanted))
    if isinstance(batch, PackedBatch):
        backbone.forward_packed(batch, together, visit)
    else:
        backbone.forward(batch.input_ids, batch.attention_mask, together, visit)
    return pooled
