"""Turn texts into windows of tokens, and windows into padded batches."""

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
    """One row of input for the model: token ids, and the positions that are pooled."""

    ids: np.ndarray
    """Token ids. Shape: (tokens,), int32."""
    start: int
    """First position that is pooled."""
    stop: int
    """One past the last position that is pooled."""
    opens: bool
    """True for the first window of a text."""


@dataclass(frozen=True)
class TokenizedText:
    """A text as one window or, if it is long, as several overlapping windows."""

    windows: tuple[Window, ...]
    seen: int
    """Number of tokens that are pooled, special tokens included."""
    cut: int
    """Number of tokens that the length limit leaves out."""

    @cached_property
    def cost(self) -> int:
        """Count the tokens that pass through the model, repeated context included."""
        return sum(len(window.ids) for window in self.windows)


def tokenize(
    tokenizer: Any, texts: Sequence[str], config: BackboneConfig, max_length: int
) -> list[TokenizedText]:
    """Tokenize texts inside their template, each alone and without padding.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        texts: the texts.
        config: template, truncation side, and treatment of long texts.
        max_length: largest number of tokens in a window, special tokens included.

    Raises:
        UserError: if a text has no token, or the overlap fills the whole window.
    """
    if not texts:
        return []
    special = tokenizer.num_special_tokens_to_add()
    overlap = config.window_overlap if config.long_texts == "windows" else 0
    if max_length - special <= overlap:
        raise UserError(
            f"window_overlap={overlap}: a window of {max_length} tokens, {special} of them special,"
            f" allows an overlap of at most {max_length - special - 1}"
        )
    windows = config.long_texts == "windows"
    tokenizer.truncation_side = "right" if windows else config.truncation_side
    prompts = [config.template.replace("{text}", text) for text in texts]
    encodings = _encode(tokenizer, prompts, max_length, overlap)
    return [
        _windows(parts, overlap, text) if windows else _truncated(parts, text)
        for text, parts in zip(texts, encodings, strict=True)
    ]


def _encode(
    tokenizer: Any, prompts: Sequence[str], max_length: int, stride: int
) -> list[list[Any]]:
    """Encode prompts with the Rust library behind a fast tokenizer. Returns the pieces of each.

    The tokenizer's own call does the same and then builds lists of Python numbers. On a machine of
    many cores those lists take longer than the encoding itself.
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
    """Set the pooled positions of the windows of a text, so that each token is pooled once.

    Tokens that a window repeats from the one before serve as context only. Special tokens are
    pooled at the two ends of the text.
    """
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
        """Copy the batch to a device."""
        return Batch(
            to_device(self.input_ids, device),
            to_device(self.attention_mask, device),
            to_device(self.start, device),
            to_device(self.stop, device),
            to_device(self.opens, device),
        )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device. A copy to a GPU uses pinned memory and does not wait."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def batches(
    lengths: Sequence[int], token_budget: int, *, equal: bool = False, packed: bool = False
) -> Iterator[list[int]]:
    """Group rows, longest first, so that rows × longest row stays within the budget.

    A row that is longer than the budget gets a batch to itself.

    Args:
        lengths: number of tokens of each row.
        token_budget: largest number of tokens in a batch, padding included.
        equal: let only rows of the same length share a batch, so that nothing is padded.
        packed: count tokens without padding.

    Yields:
        The row numbers of each batch.
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
    """Pad windows on the right. The mask comes from the lengths, so `pad_id` may be any token."""
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
