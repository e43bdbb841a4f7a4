"""Run packed passes on a GPU: the texts of a batch lie end to end in one row, without padding.

The variable-length kernel of FlashAttention in PyTorch confines the attention to each text. We
reach it through the attention interface of transformers, so this code names no model family. When
a model is loaded, three checks on random tokens decide if it can be packed:

1. Each attention, computed by that kernel, equals the model's own attention on the same queries,
   keys and values up to rounding. Models with sliding windows, caps or biases fail here.
2. The input and output of the first block for each of two packed texts equal those for the text
   alone up to rounding. Models whose positions do not restart with each text fail here. If padding
   changes the states by more than rounding does, that larger change is allowed.
3. The hidden states of a packed text do not depend on its neighbour, to the last bit.

A model that fails a check gets padded batches instead.
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
from layerfusion.embeddings.taps import taps
from layerfusion.embeddings.tokens import Window, to_device

log = logging.getLogger(__name__)

ATTENTION = "layerfusion_packed"
"""Name of our attention in the interface of transformers."""
PROBED_TOKENS = 2048
"""Length of the text used in the checks. Longer texts are never packed."""
TOLERANCE = 0.02
"""Largest relative difference of an attention or a block that counts as rounding."""
MULTIPLE = 64
"""The length of a packed row is filled up to a multiple of this, so that few shapes occur."""
REFUSALS = (
    RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError, ImportError
)  # fmt: skip
"""Errors that a model may raise if it does not take packed texts."""


@dataclass(frozen=True)
class Packing:
    """Settings under which a model takes packed texts."""

    longest: int
    """Largest number of tokens in a text for which packing was checked."""
    first_position: int
    """Position of the first token of a text. Models like RoBERTa start after the padding index."""


@dataclass(frozen=True)
class PackedBatch:
    """Rows of tokens laid end to end, on the model's device."""

    input_ids: Tensor
    """Token ids, and a few fillers at the end that belong to no row. Shape: (1, tokens)."""
    position_ids: Tensor
    """Position of each token in its row, counted from `first_position`. Shape: (1, tokens)."""
    bounds: Tensor
    """Start of each row and of the filling, and the end. Shape: (rows + 2,), int32."""
    longest: int
    """Number of tokens of the longest row."""
    lengths: tuple[int, ...]
    """Number of tokens of each row."""
    offset: Tensor
    """Start of each row. Shape: (rows,)."""
    start: Tensor
    """First pooled position of each row. Shape: (rows,)."""
    stop: Tensor
    """One past the last pooled position of each row. Shape: (rows,)."""
    opens: Tensor
    """True for each row that begins its text. Shape: (rows,), bool."""


def pack(
    windows: Sequence[Window], packing: Packing, pad_id: int, device: torch.device
) -> PackedBatch:
    """Lay rows end to end, and copy them to a device in one asynchronous transfer.

    Args:
        windows: the rows.
        packing: settings under which the model takes packed texts.
        pad_id: token that fills up the packed row.
        device: device of the model.
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
    on_device = to_device(torch.from_numpy(together), device)
    row, length, start, stop, opens, bounds = on_device.split(
        [tokens + filling, rows, rows, rows, rows, rows + 2]
    )
    offset = bounds[:rows].long()
    # Positions count from the start of each row. Every filler has the first position.
    starts = offset.repeat_interleave(length, output_size=tokens)
    positions = F.pad(torch.arange(tokens, device=device) - starts, (0, filling))
    return PackedBatch(
        input_ids=row.long()[None],
        position_ids=positions[None] + packing.first_position,
        # The kernel needs an aligned address, which the slice does not have.
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
    """State of the current pass, for the attention to read."""

    bounds: Tensor
    longest: int
    differences: list[Tensor] | None = None
    """Relative difference to the model's own attention for each call; None outside the checks."""


_under_way: ContextVar[_Pass | None] = ContextVar("packed_pass", default=None)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Compute attention inside each text of the packed row. Shapes are those of transformers."""
    under_way = _under_way.get()
    if under_way is None:
        raise RuntimeError("the packed attention was called outside a packed pass")
    causal = settings.get("is_causal")
    if causal is None:
        causal = getattr(module, "is_causal", True)
    packed = _confined(query, key, value, under_way, bool(causal), settings.get("scaling"))
    if under_way.differences is None:
        return packed, None
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    expected, _ = sdpa(module, query, key, value, attention_mask, **settings)
    difference = (expected.float() - packed.float()).norm() / expected.float().norm()
    under_way.differences.append(difference)
    return expected, None


def _confined(
    query: Tensor, key: Tensor, value: Tensor, under_way: _Pass, causal: bool, scale: float | None
) -> Tensor:
    """Compute attention inside each text.

    Shapes: the inputs are (1, heads, tokens, d), the result is (1, tokens, heads, d).
    """
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
            queries, keys, values = (x[begin:end].transpose(0, 1)[None] for x in (q, k, v))
            parts.append(
                F.scaled_dot_product_attention(queries, keys, values, is_causal=causal, scale=scale)
            )
    return torch.cat(parts, dim=2).transpose(1, 2)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Return no mask in a packed pass, or the usual mask while the attention is being checked."""
    under_way = _under_way.get()
    if under_way is None or under_way.differences is None:
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*args, **kwargs)


@contextmanager
def _packed(model: Any, under_way: _Pass) -> Iterator[None]:
    """Give a model the packed attention for the duration of a pass, and restore its own after."""
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
        The output of the model. Shape: (1, tokens, width).
    """
    with _packed(model, _Pass(batch.bounds, batch.longest)):
        return model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            # Without a mask, transformers would search for packed texts and wait for the GPU.
            attention_mask=torch.ones_like(batch.input_ids),
        )[0]


# -- checks of a model --------------------------------------------------------------------------


@torch.no_grad()
def find_packing(
    model: Any, blocks: nn.ModuleList | None, pad_id: int, max_length: int, device: torch.device
) -> Packing | None:
    """Check if a model takes packed texts; return the settings, or None if it does not.

    Args:
        model: the model.
        blocks: the blocks of the model; None if they are shared.
        pad_id: a token that occurs in no text.
        max_length: largest number of tokens in a text.
        device: device of the model.
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
        # We draw from all ids but one, and move those from `pad_id` on up: it never occurs.
        ids = generator.integers(0, known - 1, tokens)
        ids = (ids + (ids >= pad_id)).astype(np.int32)
        return Window(ids, 0, tokens, opens=True)

    long, other_long = text(length), text(length)
    short, other_short = text(length // 3 + 1), text(length // 3 + 1)
    alone = [_states(model, blocks, _alone(model, row, device)) for row in (long, short)]
    beside = _states(model, blocks, _alone(model, short, device, padding=length - len(short.ids)))
    cut = len(short.ids)
    # This is the change of a state by rounding alone, when the shapes of the products change.
    rounding = [
        _difference(padded[:, :cut], state) for padded, state in zip(beside, alone[1], strict=True)
    ]
    bounds = torch.tensor([0, length], dtype=torch.int32, device=device)
    compared = _Pass(bounds, length, [])
    with _packed(model, compared):
        _alone(model, long, device)()
    assert compared.differences is not None
    differences = [float(difference) for difference in compared.differences]
    if len(differences) != len(blocks) or not max(differences) <= TOLERANCE:
        log.debug("cannot be packed: the attention differs by %s", differences)
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
            difference <= max(TOLERANCE, 2 * usual)
            for difference, usual in zip(entering, rounding[:2], strict=True)
        ):
            log.debug("positions from %d: states differ by %s", first_position, entering)
            continue
        swapped, changed = packed([other_short, long]), packed([short, other_long])
        if all(
            torch.equal(state[:, cut : cut + length], other_first[:, cut : cut + length])
            and torch.equal(state[:, :cut], other_second[:, :cut])
            for state, other_first, other_second in zip(together, swapped, changed, strict=True)
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
    """Run a pass; return the input of each block and the last output, (1, tokens, width) each."""
    states: list[Tensor] = []

    def visit(_layer: str, hidden: Tensor) -> None:
        states.append(hidden)

    names = [str(number) for number in range(len(blocks) + 1)]
    with taps(blocks, [*names, NORM], visit):  # NORM makes the pass run to its end
        run()
    return states


def _difference(actual: Tensor, expected: Tensor) -> float:
    return float((actual.float() - expected.float()).norm() / expected.float().norm())
