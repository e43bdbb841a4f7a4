"""Turn texts into windows of tokens, and windows into padded batches."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import WINDOWS
from layerfusion.errors import UserError, library_errors, one_line

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from layerfusion.config.job import BackboneConfig


log = logging.getLogger(__name__)

MOSTLY_UNKNOWN, ALL_UNKNOWN = 0.5, 0.95
"""Shares of unknown tokens from which texts are read with a warning, or are refused."""
PIECE_CHARACTERS = 2**20
"""Number of characters of texts that are encoded together."""
UNKNOWN_SHARES = (0.0, 0.05, 0.2, 0.5)
"""Upper limits of the ranges in which texts are counted by their share of unknown tokens."""
RARE_LETTER = "\U00010600"
"""A letter of Linear A, which hardly any vocabulary has."""


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
    own: int = 0
    """Number of tokens of the text itself, without special ones and the template."""
    unknown: int = 0
    """Number of those that stand for something the vocabulary lacks."""

    @cached_property
    def cost(self) -> int:
        """Count the tokens that pass through the model, repeated context included."""
        return sum(len(window.ids) for window in self.windows)


def tokenize(
    tokenizer: Any,
    texts: Sequence[str],
    config: BackboneConfig,
    max_length: int,
    *,
    name: str = "",
    rows: int | None = None,
) -> list[TokenizedText]:
    """Tokenize texts inside their template, each alone and without padding.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        texts: the texts.
        config: template, truncation side, and treatment of long texts.
        max_length: largest number of tokens in a window, special tokens included.
        name: name of the backbone, for messages.
        rows: number of rows of the model's embedding table; None if it is not known.

    Raises:
        UserError: if the tokenizer fails, a text has no token or one that the model does not have,
            or the overlap fills the whole window.
    """
    if not texts:
        return []
    windows = config.long_texts == WINDOWS
    overlap = config.window_overlap if windows else 0
    special = tokenizer.num_special_tokens_to_add()
    if max_length <= special:
        raise UserError(
            f"backbone {name}: texts of {max_length} tokens, {special} of them special, have no"
            " room for a word; mend model_max_length in tokenizer_config.json or"
            f" backbone.{name}.max_length"
        )
    if max_length - special <= overlap:
        raise UserError(
            f"window_overlap={overlap}: a window of {max_length} tokens, {special} of them special,"
            f" allows an overlap of at most {max_length - special - 1}"
        )
    tokenizer.truncation_side = "right" if windows else config.truncation_side
    around = config.template.replace("{text}", "")
    (empty,) = _encode(tokenizer, [around], max_length, 0, name)
    count = _Counting.of(tokenizer, np.array(empty[0].ids, np.int32), name)
    made: list[_Windows] = []
    letters: tuple[list[int], list[int]] = ([], [])

    def encode(piece: Sequence[str]) -> None:
        """Keep the ids and counts of a piece; its encodings are gone when the next one's come."""
        prompts = [config.template.replace("{text}", text) for text in piece]
        encodings = _encode(tokenizer, prompts, max_length, overlap, name, offsets=count.drops)
        made.extend(_windows(x, overlap) if windows else _truncated(x) for x in encodings)
        if count.drops:
            for all_of_them, some in zip(letters, count.letters(prompts, encodings), strict=True):
                all_of_them.extend(some)

    for piece in _pieces(texts):
        encode(piece)
    ids = _checked_ids(tokenizer, made, texts, name, rows)
    counts = letters if count.drops else count.tokens(ids, made)
    return [
        TokenizedText(*text, own, unknown) for text, own, unknown in zip(made, *counts, strict=True)
    ]


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut texts into pieces whose encodings are in memory at a time.

    An encoding takes hundreds of bytes a token, those beyond the length limit included.
    """
    begin = characters = 0
    for place, text in enumerate(texts, 1):
        characters += len(text)
        if characters >= PIECE_CHARACTERS:
            yield texts[begin:place]
            begin, characters = place, 0
    if begin < len(texts):
        yield texts[begin:]


def _checked_ids(
    tokenizer: Any, made: Sequence[_Windows], texts: Sequence[str], name: str, rows: int | None
) -> np.ndarray:
    """Refuse a window without tokens or with a token that the model has no vector for.

    Returns:
        The ids of all windows of all texts, one after the other. Shape: (tokens,), int32.
    """
    for (windows, _, _), text in zip(made, texts, strict=True):
        if not all(len(window.ids) for window in windows):
            raise UserError(
                f"backbone {name}: the tokenizer makes no token of the text {text[:60]!r}"
            )
    ids = np.concatenate([window.ids for windows, _, _ in made for window in windows])
    if rows is None or int(ids.max()) < rows:
        return ids
    ends = np.cumsum([_length(windows) for windows, _, _ in made])
    text = texts[int(np.searchsorted(ends, np.argmax(ids >= rows), "right"))]
    highest = int(ids[ids >= rows][0])
    raise UserError(
        f"backbone {name}: the model has vectors for {rows:,} tokens and none for token"
        f" {highest} ({tokenizer.convert_ids_to_tokens(highest)!r}) of the text {text[:60]!r};"
        f" its tokenizer has {len(tokenizer):,}: take the model's own, or add vectors with"
        " resize_token_embeddings"
    )


def _length(windows: Sequence[Window]) -> int:
    return sum(len(window.ids) for window in windows)


def _encode(
    tokenizer: Any,
    prompts: Sequence[str],
    max_length: int,
    stride: int,
    name: str,
    *,
    offsets: bool = False,
) -> list[list[Any]]:
    """Encode prompts with the Rust library behind a fast tokenizer. Returns the pieces of each.

    The tokenizer's own call does the same and then builds lists of Python numbers. On a machine of
    many cores those lists take longer than the encoding itself.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        prompts: the texts inside their template.
        max_length: largest number of tokens of a piece.
        stride: number of tokens that a piece repeats from the one before.
        name: name of the backbone, for messages.
        offsets: keep track of the letters of which each token is made, which takes longer.
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

    def explain(error: Exception) -> str:
        first = prompts[0] if len(prompts) == 1 else next(filter(fails, prompts), "")
        return f"backbone {name}: its tokenizer fails at the text {first[:60]!r}: {one_line(error)}"

    def fails(prompt: str) -> bool:
        try:
            backend.encode_batch([prompt])
        except Exception:  # of whatever kind: the error of the whole batch is the one that counts
            return True
        return False

    encode = backend.encode_batch if offsets else backend.encode_batch_fast
    with library_errors(explain):
        return [[piece, *piece.overflowing] for piece in encode(prompts)]


@dataclass(frozen=True)
class _Counting:
    """Counts the tokens of a text that stand for something the vocabulary lacks."""

    unknown: tuple[int, ...]
    """Ids of the unknown token."""
    drops: bool
    """True if the tokenizer makes no token at all of what it does not know."""
    around: np.ndarray
    """Ids that every text has: special ones, and those of the template. Shape: (tokens,)."""
    space: int | None
    """Id of a space alone, which comes before an unknown word of SentencePiece."""

    @classmethod
    def of(cls, tokenizer: Any, around: np.ndarray, name: str) -> _Counting:
        """Find out what a tokenizer makes of something that it does not know."""
        backend = tokenizer.backend_tokenizer
        # Not `unk_token_id`: transformers would look for it without an end where it is no token.
        tokens = {getattr(backend.model, "unk_token", None), tokenizer.unk_token} - {None}
        ids = {backend.token_to_id(str(token)) for token in tokens}
        try:
            ((rare, *_),) = _encode(tokenizer, [RARE_LETTER], 2**20, 0, name)
        except UserError:  # it takes only what it knows, and so knew all of the texts
            drops = False
        else:
            drops = 0 not in rare.special_tokens_mask
        unknown = tuple(sorted(number for number in ids if isinstance(number, int)))
        return cls(unknown, drops, around, backend.token_to_id("▁"))

    def tokens(self, ids: np.ndarray, made: Sequence[_Windows]) -> tuple[list[int], list[int]]:
        """Count the tokens of texts themselves, and the unknown ones among them.

        Args:
            ids: ids of all windows of all texts, one after the other. Shape: (tokens,).
            made: the windows of each text.
        """
        begins = np.cumsum([0, *(_length(windows) for windows, _, _ in made)])[:-1]

        def count(which: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
            each = np.add.reduceat(which(ids), begins, dtype=np.int64)
            return each - np.count_nonzero(which(self.around))

        own = count(lambda ids: ~np.isin(ids, [] if self.space is None else self.space))
        unknown = count(lambda ids: np.isin(ids, self.unknown))
        blank = own <= 0  # nothing but special tokens and spaces
        own = np.where(blank, 1, own)
        unknown = np.where(blank, 1, np.clip(unknown, 0, own))
        return own.tolist(), unknown.tolist()

    def letters(
        self, prompts: Sequence[str], encodings: Sequence[Sequence[Any]]
    ) -> tuple[list[int], list[int]]:
        """Count the letters of prompts, and those of which there is no token."""
        every, unknown = [], []
        for prompt, parts in zip(prompts, encodings, strict=True):
            spans = [span for part in parts for span in part.offsets]
            covered = {place for start, stop in spans for place in range(start, stop)}
            letters = [place for place, letter in enumerate(prompt) if not letter.isspace()]
            every.append(len(letters))
            unknown.append(sum(place not in covered for place in letters))
        return every, unknown


@dataclass
class UnknownTally:
    """Counts of tokens, of those that their tokenizer does not know, and of long texts."""

    name: str
    """Name of the backbone."""
    own: int = 0
    unknown: int = 0
    cut: int = 0
    """Texts that were cut off."""
    shares: np.ndarray = field(default_factory=lambda: unknown_shares((), ()))
    """Texts by their share of unknown tokens: see `unknown_shares`."""

    def add(self, own: Iterable[int], unknown: Iterable[int]) -> UnknownTally:
        """Add the counts of texts, one number for each."""
        tokens, unknown_tokens = list(own), list(unknown)
        self.own += int(sum(tokens))
        self.unknown += int(sum(unknown_tokens))
        self.shares = self.shares + unknown_shares(tokens, unknown_tokens)
        return self

    def refuse(self) -> None:
        """Refuse the texts if practically all of their tokens are unknown.

        Raises:
            UserError: if they are.
        """
        if self.own and self.unknown >= ALL_UNKNOWN * self.own:
            raise UserError(f"{self._line}; vectors of such texts would say nothing")

    def warn(self) -> None:
        """Warn if most tokens are unknown."""
        if self.own and self.unknown >= MOSTLY_UNKNOWN * self.own:
            log.warning("%s", self._line)

    @property
    def _line(self) -> str:
        return (
            f"backbone {self.name}: {self.unknown / self.own:.0%} of the texts' tokens are unknown"
            " to its tokenizer; choose a model that knows the language of the texts, or give this"
            " one the tokenizer that belongs to it"
        )


def unknown_shares(own: ArrayLike, unknown: ArrayLike) -> np.ndarray:
    """Count texts by their share of unknown tokens.

    Args:
        own: tokens of each text itself. Shape: (texts,).
        unknown: those that its tokenizer does not know. Shape: (texts,).

    Returns:
        Texts up to each limit of `UNKNOWN_SHARES`, and above the last. Shape: (ranges,), int64.
    """
    shares = np.asarray(unknown) / np.maximum(1, np.asarray(own))
    places = np.searchsorted(UNKNOWN_SHARES, shares, "left")
    return np.bincount(places, minlength=len(UNKNOWN_SHARES) + 1)


def tally_unknown(name: str, texts: Sequence[TokenizedText]) -> UnknownTally:
    """Count the unknown tokens of texts of a backbone."""
    own, unknown = (text.own for text in texts), (text.unknown for text in texts)
    return UnknownTally(name).add(own, unknown)


_Windows = tuple[tuple[Window, ...], int, int]
"""The first three fields of a `TokenizedText`: its windows, and the tokens seen and cut."""


def _truncated(parts: Sequence[Any]) -> _Windows:
    ids = np.array(parts[0].ids, np.int32)
    cut = sum(part.special_tokens_mask.count(0) for part in parts[1:]) if len(parts) > 1 else 0
    return (Window(ids, 0, len(ids), opens=True),), len(ids), cut


def _windows(parts: Sequence[Any], overlap: int) -> _Windows:
    """Set the pooled positions of the windows of a text, so that each token is pooled once.

    Tokens that a window repeats from the one before serve as context only. Special tokens are
    pooled at the two ends of the text.
    """
    windows = []
    for number, part in enumerate(parts):
        ids = np.array(part.ids, np.int32)
        content = np.flatnonzero(np.array(part.special_tokens_mask) == 0)
        start, stop = 0, len(ids)
        if number > 0:
            start = int(content[min(overlap, len(content) - 1)])
        if number < len(parts) - 1:
            stop = int(content[-1]) + 1
        windows.append(Window(ids, start, stop, opens=number == 0))
    return tuple(windows), sum(w.stop - w.start for w in windows), 0


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
    lengths: Sequence[int],
    token_budget: int,
    *,
    equal: bool = False,
    packed: bool = False,
    most_padding: float = math.inf,
) -> Iterator[list[int]]:
    """Group rows, longest first, so that rows × longest row stays within the budget.

    A row that is longer than the budget gets a batch to itself.

    Args:
        lengths: number of tokens of each row.
        token_budget: largest number of tokens in a batch, padding included.
        equal: let only rows of the same length share a batch, so that nothing is padded.
        packed: count tokens without padding.
        most_padding: tokens of padding in a batch above which another batch is cheaper.

    Yields:
        The row numbers of each batch.
    """
    batch: list[int] = []
    tokens = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        real = tokens + lengths[row]
        size = real if packed else (len(batch) + 1) * lengths[(batch or [row])[0]]
        full = size > token_budget or size - real > most_padding
        if batch and (full or (equal and lengths[row] != lengths[batch[0]])):
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
