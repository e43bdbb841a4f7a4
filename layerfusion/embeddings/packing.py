"""Packed passes on a GPU: the texts of a batch end to end in one row, without any padding.

Attention is confined to each text by the variable-length kernel of FlashAttention that PyTorch
carries, through the attention interface of transformers, so no model family is named here. Whether
a model can be packed is found out when it is loaded, by three checks on random tokens:

1. each attention of the model, computed by that kernel from the same queries, keys and values, is
   within rounding of what the model itself computes (sliding windows, caps and biases show here);
2. what enters and leaves the first block is, for each of two packed texts, within rounding of what
   it is for the text alone (positions that do not start anew show here; rounding is what padding
   changes, where that is more);
3. the hidden states of a packed text are the same to the last bit whatever its neighbour says.

A model that fails one of them is passed in padded batches instead.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerfusion.embeddings.shape import NORM
from layerfusion.embeddings.taps import Visit, taps
from layerfusion.embeddings.tokens import Window, to_device

log = logging.getLogger(__name__)

ATTENTION = "layerfusion_packed"
"""Name of the attention in the interface of transformers."""
PROBED_TOKENS = 2048
"""Length of the text that the checks are made with; a longer one is never packed."""
TOLERANCE = 0.02
"""Relative difference that counts as rounding, of one attention and of one block."""
MULTIPLE = 64
"""A packed row is filled up to a multiple of as many tokens: few shapes, each met once."""
REFUSALS = (
    RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError, ImportError
)  # fmt: skip
"""What a model raises that does not take packed texts."""


@dataclass(frozen=True)
class Packing:
    """How a model takes packed texts."""

    longest: int
    """Most tokens of a text for which it was checked."""
    first_position: int
    """Position of a text's first token: RoBERTa's kind counts from above its padding index."""


@dataclass(frozen=True)
class PackedBatch:
    """Rows of tokens laid end to end, on the model's device."""

    input_ids: Tensor
    """Shape: (1, tokens), filled up with a few tokens that belong to no row."""
    position_ids: Tensor
    """Position of each token in its own row, counted from `first_position`. Shape: (1, tokens)."""
    bounds: Tensor
    """Where each row starts, and the end; the filling is a row too. Shape: (rows + 2,), int32."""
    longest: int
    """Tokens of the longest row."""
    lengths: tuple[int, ...]
    """Tokens of each row."""
    offset: Tensor
    """Where each row starts. Shape: (rows,)."""
    start: Tensor
    """First position of each row that is pooled. Shape: (rows,)."""
    stop: Tensor
    """One past the last position that is pooled. Shape: (rows,)."""
    opens: Tensor
    """Whether each row begins its text. Shape: (rows,), bool."""


def pack(
    windows: Sequence[Window], packing: Packing, pad_id: int, device: torch.device
) -> PackedBatch:
    """Lay rows end to end, and bring them to a device in one asynchronous transfer.

    Args:
        windows: the rows.
        packing: how the model takes them.
        pad_id: token that fills the row up.
        device: where the model is.
    """
    lengths = [len(window.ids) for window in windows]
    tokens, rows = sum(lengths), len(windows)
    filling = -tokens % MULTIPLE
    facts = np.array([(w.start, w.stop, w.opens) for w in windows], np.int32).T
    edges = np.cumsum([0, *lengths, filling])
    ids = [window.ids for window in windows]
    together = np.concatenate(
        [*ids, np.full(filling, pad_id), lengths, *facts, edges], dtype=np.int32, casting="unsafe"
    )
    there = to_device(torch.from_numpy(together), device)
    row, length, start, stop, opens, bounds = there.split(
        [tokens + filling, rows, rows, rows, rows, rows + 2]
    )
    offset = bounds[:rows].long()
    # Positions count from each row's start; those of the filling are all the first one.
    starts = offset.repeat_interleave(length, output_size=tokens)
    positions = F.pad(torch.arange(tokens, device=device) - starts, (0, filling))
    return PackedBatch(
        input_ids=row.long()[None],
        position_ids=positions[None] + packing.first_position,
        # The kernel reads it from an aligned address.
        bounds=bounds.clone(),
        longest=max(max(lengths), filling),
        lengths=tuple(lengths),
        offset=offset,
        start=start.long(),
        stop=stop.long(),
        opens=opens.bool(),
    )


# -- the attention ------------------------------------------------------------------------------


@dataclass
class _Pass:
    """What the attention is told of the pass that is under way."""

    bounds: Tensor
    longest: int
    differences: list[Tensor] | None = None
    """Where the model's own attention is to be compared: one relative difference a call."""


_under_way: ContextVar[_Pass | None] = ContextVar("packed_pass", default=None)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attention inside each text of the packed row; shapes as transformers has them."""
    under_way = _under_way.get()
    if under_way is None:
        raise RuntimeError("packed attention outside a packed pass")
    causal = settings.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    packed = _confined(query, key, value, under_way, bool(causal), settings.get("scaling"))
    if under_way.differences is None:
        return packed, None
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    own, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **settings)
    difference = (own.float() - packed.float()).norm() / own.float().norm()
    under_way.differences.append(difference)
    return own, None


def _confined(
    query: Tensor, key: Tensor, value: Tensor, under_way: _Pass, causal: bool, scale: float | None
) -> Tensor:
    """Attention inside each text. Shapes: (1, heads, tokens, d) to (1, tokens, heads, d)."""
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    if q.is_cuda:
        bounds, longest = under_way.bounds, under_way.longest
        return torch.ops.aten._flash_attention_forward(
            q, k, v, bounds, bounds, longest, longest, 0.0, causal, False, scale=scale
        )[0][None]
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    edges = under_way.bounds.tolist()
    parts = []
    for begin, end in pairwise(edges):
        if end > begin:
            mine, keys, values = (one[begin:end].transpose(0, 1)[None] for one in (q, k, v))
            parts.append(
                F.scaled_dot_product_attention(mine, keys, values, is_causal=causal, scale=scale)
            )
    return torch.cat(parts, dim=2).transpose(1, 2)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """No mask in a packed pass; the model's own where its attention is compared."""
    under_way = _under_way.get()
    if under_way is None or under_way.differences is None:
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **kwargs)


@contextmanager
def _packed(model: Any, under_way: _Pass) -> Iterator[None]:
    """Let a model attend inside the texts of a packed row, and put its own attention back."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, _mask)
    usual = model.config._attn_implementation
    token = _under_way.set(under_way)
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
        _under_way.reset(token)


def run_packed(model: Any, batch: PackedBatch) -> Tensor:
    """Pass packed rows through a model.

    Returns:
        What leaves the model. Shape: (1, tokens, width).
    """
    with _packed(model, _Pass(batch.bounds, batch.longest)):
        return model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            # Without a mask transformers would look for packed texts itself, and wait for the GPU.
            attention_mask=torch.ones_like(batch.input_ids),
        )[0]


# -- whether a model can be packed --------------------------------------------------------------


@torch.no_grad()
def find_packing(
    model: Any, blocks: nn.ModuleList | None, pad_id: int, max_length: int, device: torch.device
) -> Packing | None:
    """Find out whether and how a model takes packed texts; none where it does not.

    Args:
        model: the model.
        blocks: its blocks; none where they are shared.
        pad_id: a token that no text holds.
        max_length: most tokens of a text.
        device: where the model is.
    """
    config = model.config
    if blocks is None or getattr(config, "_attn_implementation", None) != "sdpa":
        return None
    can_change = getattr(model, "_can_set_attn_implementation", None)
    if can_change is None or not can_change():
        return None
    if "position_ids" not in inspect.signature(model.forward).parameters:
        return None
    length = min(max_length, PROBED_TOKENS)
    if length < 2:
        return None
    try:
        return _find_packing(model, blocks, pad_id, length, device)
    except REFUSALS as error:
        log.debug("cannot be packed: %s", error)
        return None


def _find_packing(
    model: Any, blocks: nn.ModuleList, pad_id: int, length: int, device: torch.device
) -> Packing | None:
    known = model.get_input_embeddings().num_embeddings
    generator = np.random.default_rng(0)

    def text(tokens: int) -> Window:
        # One less than there are, moved past the padding: it never occurs.
        ids = generator.integers(0, known - 1, tokens)
        ids = (ids + (ids >= pad_id)).astype(np.int32)
        return Window(ids, 0, tokens, opens=True)

    long, other_long = text(length), text(length)
    short, other_short = text(length // 3 + 1), text(length // 3 + 1)
    alone = [_states(model, blocks, _alone(model, one, device)) for one in (long, short)]
    beside = _states(model, blocks, _alone(model, short, device, padding=length - len(short.ids)))
    cut = len(short.ids)
    # How far a state moves by rounding alone, where the shapes of the products change.
    rounding = [
        _difference(padded[:, :cut], state) for padded, state in zip(beside, alone[1], strict=True)
    ]
    bounds = torch.tensor([0, length], dtype=torch.int32, device=device)
    compared = _Pass(bounds, length, [])
    with _packed(model, compared):
        _alone(model, long, device)()
    assert compared.differences is not None
    found = [float(difference) for difference in compared.differences]
    if len(found) != len(blocks) or not max(found) <= TOLERANCE:
        log.debug("cannot be packed: attention differs, %s", found)
        return None
    padding_idx = getattr(model.get_input_embeddings(), "padding_idx", None)
    offsets = [0] if padding_idx is None else [0, padding_idx + 1]
    for first_position in offsets:
        packing = Packing(length, first_position)

        def packed(rows: Sequence[Window], how: Packing = packing) -> list[Tensor]:
            batch = pack(rows, how, pad_id, device)
            return _states(model, blocks, lambda: run_packed(model, batch))

        together = packed([short, long])
        entering = [
            max(
                _difference(state[:, cut : cut + length], first),
                _difference(state[:, :cut], second),
            )
            for state, first, second in zip(together[:2], alone[0][:2], alone[1][:2], strict=True)
        ]
        if not all(
            found <= max(TOLERANCE, 2 * usual)
            for found, usual in zip(entering, rounding[:2], strict=True)
        ):
            log.debug("positions from %d: states differ by %s", first_position, entering)
            continue
        swapped, changed = packed([other_short, long]), packed([short, other_long])
        if all(
            torch.equal(one[:, cut : cut + length], two[:, cut : cut + length])
            and torch.equal(one[:, :cut], three[:, :cut])
            for one, two, three in zip(together, swapped, changed, strict=True)
        ):
            return packing
        log.debug("cannot be packed: a text depends on its neighbour")
    return None


def _alone(
    model: Any, window: Window, device: torch.device, padding: int = 0
) -> Callable[[], object]:
    ids = torch.from_numpy(window.ids.astype(np.int64))[None].to(device)
    mask = F.pad(torch.ones_like(ids), (0, padding))
    return lambda: model(input_ids=F.pad(ids, (0, padding)), attention_mask=mask)


def _states(model: Any, blocks: nn.ModuleList, run: Callable[[], object]) -> list[Tensor]:
    """What enters each block and leaves the last. Shapes: (1, tokens, width)."""
    states: list[Tensor] = []
    visit: Visit = lambda _layer, hidden: states.append(hidden)  # noqa: E731
    names = [str(number) for number in range(len(blocks) + 1)]
    with taps(blocks, [*names, NORM], visit):  # with the norm, so that the pass goes to its end
        run()
    return states


def _difference(one: Tensor, two: Tensor) -> float:
    return float((one.float() - two.float()).norm() / two.float().norm())
