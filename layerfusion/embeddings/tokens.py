"""Texts to token windows, and windows to padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.config.job import BackboneConfig


@dataclass(frozen=True)
class Window:
    """What the model sees in one row: token ids, and the positions that are pooled."""

    ids: np.ndarray
    """Shape: (tokens,), int32."""
    start: int
    stop: int
    opens: bool
    """Whether it is the first window of its text."""


@dataclass(frozen=True)
class TokenizedText:
    """A text as one window, or as several overlapping ones where it is long."""

    windows: tuple[Window, ...]
    seen: int
    """Tokens that are pooled, special ones included."""
    cut: int
    """Tokens that the limited length leaves out."""

    @cached_property
    def cost(self) -> int:
        """Tokens that pass through the model, repeated context included."""
        return sum(len(window.ids) for window in self.windows)


def tokenize(
    tokenizer: Any, texts: Sequence[str], config: BackboneConfig, max_length: int
) -> list[TokenizedText]:
    """Tokenize texts inside their template, each on its own: no padding, no neighbours.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        texts: the texts.
        config: template, truncation side, and what to do with long texts.
        max_length: most tokens of a window, special ones included.

    Raises:
        UserError: for a text without any token, and for an overlap that fills the whole window.
    """
    if not texts:
        return []
    special = tokenizer.num_special_tokens_to_add()
    overlap = config.window_overlap if config.long_texts == "windows" else 0
    if max_length - special <= overlap:
        raise UserError(
            f"window_overlap={overlap}: a window of {max_length} tokens with {special} special "
            f"ones has room for an overlap of at most {max_length - special - 1}"
        )
    windows = config.long_texts == "windows"
    tokenizer.truncation_side = "right" if windows else config.truncation_side
    prompts = [config.template.replace("{text}", text) for text in texts]
    found = _encode(tokenizer, prompts, max_length, overlap)
    return [
        _windows(parts, overlap, text) if windows else _truncated(parts, text)
        for text, parts in zip(texts, found, strict=True)
    ]


def _encode(
    tokenizer: Any, prompts: Sequence[str], max_length: int, stride: int
) -> list[list[Any]]:
    """The pieces of each prompt, as the Rust library behind a fast tokenizer returns them.

    As the tokenizer's own call does, but without its lists of Python numbers, which take longer
    than the tokens themselves where many cores make those.
    """
    from transformers.tokenization_utils_base import TruncationStrategy
    from transformers.utils.generic import PaddingStrategy

    tokenizer.set_truncation_and_padding(
        padding_strategy=PaddingStrategy.DO_NOT_PAD,
        truncation_strategy=TruncationStrategy.LONGEST_FIRST,
        max_length=max_length,
        stride=stride,
        pad_to_multiple_of=None,
        padding_side=None,
    )
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return [[piece, *piece.overflowing] for piece in backend.encode_batch(prompts)]


def _truncated(parts: Sequence[Any], text: str) -> TokenizedText:
    ids = np.array(parts[0].ids, np.int32)
    if not len(ids):
        raise UserError(f"the tokenizer makes no token of the text {text[:60]!r}")
    cut = sum(part.special_tokens_mask.count(0) for part in parts[1:]) if len(parts) > 1 else 0
    return TokenizedText((Window(ids, 0, len(ids), opens=True),), seen=len(ids), cut=cut)


def _windows(parts: Sequence[Any], overlap: int, text: str) -> TokenizedText:
    """Each token is pooled once: repeated ones are context, special ones count at the ends."""
    windows = []
    for number, part in enumerate(parts):
        ids = np.array(part.ids, np.int32)
        if not len(ids):
            raise UserError(f"the tokenizer makes no token of the text {text[:60]!r}")
        content = np.flatnonzero(np.array(part.special_tokens_mask) == 0)
        start, stop = 0, len(ids)
        if number > 0:
            start = int(content[min(overlap, len(content) - 1)])
        if number < len(parts) - 1:
            stop = int(content[-1]) + 1
        windows.append(Window(ids, start, stop, opens=number == 0))
    return TokenizedText(tuple(windows), sum(w.stop - w.start for w in windows), cut=0)


@dataclass(frozen=True)
class Batch:
    """Rows of similar length, padded on the right. Shapes: (rows, tokens) and (rows,)."""

    input_ids: Tensor
    attention_mask: Tensor
    start: Tensor
    stop: Tensor
    opens: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(
            to_device(self.input_ids, device),
            to_device(self.attention_mask, device),
            to_device(self.start, device),
            to_device(self.stop, device),
            to_device(self.opens, device),
        )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor to a device; to a GPU through pinned memory, without waiting for it."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def batches(
    lengths: Sequence[int], token_budget: int, *, equal: bool = False, packed: bool = False
) -> Iterator[list[int]]:
    """Group rows, longest first, so that rows × longest row stays within the budget.

    A row that is longer than the budget makes a batch of its own. With `equal`, only rows of the
    same length share a batch, and nothing is ever padded; with `packed`, their tokens alone have
    to stay within the budget. Yields lists of row numbers.
    """
    batch: list[int] = []
    tokens = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        size = tokens + lengths[row] if packed else (len(batch) + 1) * lengths[(batch or [row])[0]]
        full = batch and size > token_budget
        if full or (equal and batch and lengths[row] != lengths[batch[0]]):
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += lengths[row]
    if batch:
        yield batch


def collate(windows: Sequence[Window], pad_id: int) -> Batch:
    """Pad on the right; the mask comes from the lengths, so the pad id may be any token."""
    lengths = np.array([len(window.ids) for window in windows])
    real = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(real.shape, pad_id, np.int64)
    ids[real] = np.concatenate([window.ids for window in windows])
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(real.astype(np.int64)),
        torch.tensor([window.start for window in windows]),
        torch.tensor([window.stop for window in windows]),
        torch.tensor([window.opens for window in windows]),
    )
