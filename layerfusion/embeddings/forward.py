"""The forward pass: batches of texts through a frozen model, each layer pooled as it appears."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import PoolingConfig
from layerfusion.embeddings.backbone import Backbone, out_of_memory
from layerfusion.embeddings.packing import PackedBatch, pack
from layerfusion.embeddings.pooling import (
    Spans,
    combine,
    find_spans,
    first_pooled,
    pool,
    pool_tokens,
)
from layerfusion.embeddings.tokens import Batch, TokenizedText, Window, batches, collate
from layerfusion.errors import UserError

log = logging.getLogger(__name__)

Vectors = dict[tuple[str, str], np.ndarray]
"""(pooling, layer) to the vectors of some texts. Shape: (texts, width), float32."""

IN_FLIGHT = 2
"""Batches that a GPU is given before the first of them is waited for."""


@dataclass
class TokenBudget:
    """Tokens of a batch, padding included; halved where the memory does not hold them."""

    tokens: int


@dataclass(frozen=True)
class Embedded:
    """Some texts with the pooled rows of their windows.

    Attributes:
        texts: the texts.
        rows: (pooling, layer) to the windows' vectors, in the order of the texts. Shape:
            (windows, width), float32.
    """

    texts: Sequence[TokenizedText]
    rows: Mapping[tuple[str, str], Tensor]

    def vectors(self, poolings: Mapping[str, PoolingConfig]) -> Vectors:
        """One vector a text, where a text has several windows as if they had been pooled at once.

        Args:
            poolings: pooling to how it pools.
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
    """Start, stop and whether it opens its text, of each window. Shapes: (windows,)."""
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
    """Pass some texts through a model, in batches that fit, and pool each wanted layer.

    Args:
        backbone: the model.
        texts: its input, the longest first.
        layers: pooling to the layers wanted; blocks above are not computed.
        poolings: pooling to how it pools.
        budget: tokens of a batch, padding included.
        progress: told the tokens of each batch.

    Returns:
        The vectors, and the budget: smaller than before where memory ran out.

    Raises:
        UserError: where there is no memory for a single text.
    """
    shared = TokenBudget(budget)
    (done,) = embed_groups(backbone, [texts], layers, poolings, shared, progress)
    return done.vectors(poolings), shared.tokens


def embed_groups(
    backbone: Backbone,
    groups: Iterable[Sequence[TokenizedText]],
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
    budget: TokenBudget,
    progress: Callable[[int], object] = lambda tokens: None,
) -> Iterator[Embedded]:
    """Pass groups of texts through a model; no batch holds texts of two groups.

    On a GPU the next batches, of the next group too, are under way while one is waited for.

    Args:
        backbone: the model.
        groups: its input, asked for as the pass goes on; in each the longest first.
        layers: pooling to the layers wanted; blocks above are not computed.
        poolings: pooling to how it pools.
        budget: tokens of a batch; made smaller where memory runs out.
        progress: told the tokens of each batch.

    Yields:
        The groups with their pooled rows, in order.

    Raises:
        UserError: where there is no memory for a single text.
    """
    most = IN_FLIGHT if backbone.device.type == "cuda" else 0
    flying: deque[tuple[_Group, list[int], _Flight]] = deque()

    def land() -> Iterator[Embedded]:
        group, rows, flight = flying.popleft()
        group.fill(rows, flight.land())
        progress(sum(group.lengths[row] for row in rows))
        if group.lacks == 0:
            yield Embedded(group.texts, group.pooled)

    for texts in groups:
        group = _Group(texts)
        pending = deque(_batches(backbone, group.lengths, budget.tokens))
        while pending:
            rows = pending.popleft()
            try:
                flight = launch(backbone, [group.windows[row] for row in rows], layers, poolings)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if not flying:
                    _give_way(backbone, group.lengths, rows, pending, budget, error)
                    continue
                flight = None
            if flight is None:
                # What is under way takes memory too: once more, alone.
                pending.appendleft(rows)
                while flying:
                    yield from land()
                continue
            flying.append((group, rows, flight))
            while len(flying) > most:
                yield from land()
    while flying:
        yield from land()


class _Group:
    """Texts whose windows pass through the model in batches of their own."""

    def __init__(self, texts: Sequence[TokenizedText]) -> None:
        self.texts = texts
        self.windows = [window for text in texts for window in text.windows]
        self.lengths = [len(window.ids) for window in self.windows]
        self.lacks = len(self.windows)
        self.pooled: dict[tuple[str, str], Tensor] = {}

    def fill(self, rows: Sequence[int], done: Mapping[tuple[str, str], Tensor]) -> None:
        """Take in the vectors of some rows."""
        self.lacks -= len(rows)
        if list(rows) == list(range(len(self.windows))):
            self.pooled = dict(done)
            return
        for key, vectors in done.items():
            if key not in self.pooled:
                self.pooled[key] = torch.empty(len(self.windows), vectors.shape[1])
            self.pooled[key][rows] = vectors


def _batches(backbone: Backbone, lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    equal = not backbone.masks_padding
    return batches(lengths, budget, equal=equal, packed=packs(backbone, max(lengths)))


def packs(backbone: Backbone, longest: int) -> bool:
    """Whether texts of up to so many tokens are laid end to end instead of padded."""
    return backbone.packing is not None and longest <= backbone.packing.longest


def _give_way(
    backbone: Backbone,
    lengths: Sequence[int],
    rows: Sequence[int],
    pending: deque[list[int]],
    budget: TokenBudget,
    error: RuntimeError,
) -> None:
    """Go on with batches of half the size.

    Raises:
        UserError: where there is no memory for a single text.
    """
    if len(rows) == 1:
        raise UserError(
            f"backbone {backbone.name}: no memory for one text of {lengths[rows[0]]}"
            f" tokens on {backbone.device}; lower backbone.{backbone.name}.max_length"
        ) from error
    budget.tokens = len(rows) // 2 * lengths[rows[0]]
    log.warning("%s: out of memory, going on with %d tokens", backbone.name, budget.tokens)
    if backbone.device.type == "cuda":
        torch.cuda.empty_cache()  # pieces too small for what comes next
    rest = sorted([*rows, *(row for later in pending for row in later)])
    again = _batches(backbone, [lengths[row] for row in rest], budget.tokens)
    smaller = [[rest[place] for place in places] for places in again]
    pending.clear()
    pending.extend(smaller)


@dataclass(frozen=True)
class _Flight:
    """The pooled rows of a batch on their way from the device."""

    keys: tuple[tuple[str, str], ...]
    values: Sequence[Tensor] | Tensor
    """Shape: (keys, rows, width), float32, on the CPU."""
    arrived: torch.cuda.Event | None

    def land(self) -> dict[tuple[str, str], Tensor]:
        """Wait for them: (pooling, layer) to vectors. Shape: (rows, width)."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return dict(zip(self.keys, self.values, strict=True))


@torch.inference_mode()
def launch(
    backbone: Backbone,
    windows: Sequence[Window],
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
) -> _Flight:
    """Pass rows through the model, pool each wanted layer as it appears, and do not wait.

    On a GPU all layers come to the host in one transfer.

    Args:
        backbone: the model.
        windows: its input, the longest first.
        layers: pooling to the layers wanted.
        poolings: pooling to how it pools.
    """
    lengths = [len(window.ids) for window in windows]
    if backbone.packing is not None and packs(backbone, max(lengths)):
        batch = pack(windows, backbone.packing, backbone.pad_id, backbone.device)
    else:
        batch = collate(windows, backbone.pad_id).to(backbone.device)
    pooled = _pool_on_device(backbone, batch, lengths, layers, poolings)
    if backbone.device.type != "cuda":
        values = [vectors.cpu() for vectors in pooled.values()]
        return _Flight(tuple(pooled), values, None)
    values = torch.stack(list(pooled.values()))
    there = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    there.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return _Flight(tuple(pooled), there, arrived)


def pool_layers(
    backbone: Backbone,
    batch: Batch,
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
) -> dict[tuple[str, str], Tensor]:
    """Pass a padded batch through the model and pool each wanted layer as it appears.

    Args:
        backbone: the model.
        batch: its input.
        layers: pooling to the layers wanted.
        poolings: pooling to how it pools.

    Returns:
        (pooling, layer) to vectors on the CPU. Shape: (batch, width), float32.
    """
    lengths = batch.attention_mask.sum(dim=1).tolist()
    with torch.inference_mode():
        there = batch.to(backbone.device)
        pooled = _pool_on_device(backbone, there, lengths, layers, poolings)
        return {key: vectors.cpu() for key, vectors in pooled.items()}


def _pool_on_device(
    backbone: Backbone,
    batch: Batch | PackedBatch,
    lengths: Sequence[int],
    layers: Mapping[str, Sequence[str]],
    poolings: Mapping[str, PoolingConfig],
) -> dict[tuple[str, str], Tensor]:
    """(pooling, layer) to vectors on the model's device. Shape: (rows, width), float32."""
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
