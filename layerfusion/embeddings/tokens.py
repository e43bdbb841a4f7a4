"""Texts to token windows, and windows to padded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

    @property
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
    encoded = tokenizer(
        [config.template.replace("{text}", text) for text in texts],
        truncation=True,
        max_length=max_length,
        stride=overlap,
        return_overflowing_tokens=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
    )
    pieces: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in texts]
    for owner, ids, mask in zip(
        encoded["overflow_to_sample_mapping"],
        encoded["input_ids"],
        encoded["special_tokens_mask"],
        strict=True,
    ):
        pieces[owner].append((np.asarray(ids, np.int32), np.asarray(mask, bool)))
    return [
        _windows(parts, overlap, text) if windows else _truncated(parts, text)
        for text, parts in zip(texts, pieces, strict=True)
    ]


def _truncated(parts: list[tuple[np.ndarray, np.ndarray]], text: str) -> TokenizedText:
    ids, _ = parts[0]
    if not len(ids):
        raise UserError(f"the tokenizer makes no token of the text {text[:60]!r}")
    cut = sum(int((~special).sum()) for _, special in parts[1:])
    return TokenizedText((Window(ids, 0, len(ids), opens=True),), seen=len(ids), cut=cut)


def _windows(parts: list[tuple[np.ndarray, np.ndarray]], overlap: int, text: str) -> TokenizedText:
    """Each token is pooled once: repeated ones are context, special ones count at the ends."""
    windows = []
    for number, (ids, special) in enumerate(parts):
        if not len(ids):
            raise UserError(f"the tokenizer makes no token of the text {text[:60]!r}")
        content = np.flatnonzero(~special)
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
            self.input_ids.to(device),
            self.attention_mask.to(device),
            self.start.to(device),
            self.stop.to(device),
            self.opens.to(device),
        )


def batches(
    lengths: Sequence[int], token_budget: int, *, equal: bool = False
) -> Iterator[list[int]]:
    """Group rows, longest first, so that rows × longest row stays within the budget.

    A row that is longer than the budget makes a batch of its own. With `equal`, only rows of the
    same length share a batch, and nothing is ever padded. Yields lists of row numbers.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        full = batch and (len(batch) + 1) * lengths[batch[0]] > token_budget
        if full or (equal and batch and lengths[row] != lengths[batch[0]]):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def collate(windows: Sequence[Window], pad_id: int) -> Batch:
    """Pad on the right; the mask comes from the lengths, so the pad id may be any token."""
    longest = max(len(window.ids) for window in windows)
    ids = np.full((len(windows), longest), pad_id, np.int64)
    mask = np.zeros((len(windows), longest), np.int64)
    for row, window in enumerate(windows):
        ids[row, : len(window.ids)] = window.ids
        mask[row, : len(window.ids)] = 1
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        torch.tensor([window.start for window in windows]),
        torch.tensor([window.stop for window in windows]),
        torch.tensor([window.opens for window in windows]),
    )
