"""The texts that have to pass through a model, in the groups in which they pass.

All texts are cut into stretches, whose tokens are in memory at a time; these into waves, which are
tokenized together; and what the stores lack of a wave into shards for a CPU, or that of all waves
into batches for a GPU. A job that resumes after an interruption forms the same groups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from layerfusion.config.job import BackboneConfig, ExtractConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.forward import TokenBudget, packs
from layerfusion.embeddings.store import EmbeddingStore
from layerfusion.embeddings.tokens import TokenizedText

T = TypeVar("T")

CPU_LOSS, GPU_LOSS = 16_384, 524_288
"""Tokens of work, a few seconds, that a kill may lose if `extract.shard_tokens` is not set."""
CPU_TEXTS, GPU_TEXTS = 1024, 16_384
"""Texts after which a shard is closed if `extract.shard_texts` is not set."""
POOLED_BYTES = 512 * 2**20
"""Bytes of the pooled vectors of a batch, in float32, beside which a GPU still has room."""
STRETCH_TEXTS, STRETCH_CHARACTERS = 65_536, 2**26
"""Limits on the texts that are sorted by length together; their tokens are all in memory."""
WAVE_CHARACTERS = 2**19
"""Number of characters in a wave: texts that are tokenized together, ahead of a GPU."""
WAVES_AHEAD = 2
"""Number of waves that are tokenized ahead of a GPU."""


@dataclass(frozen=True)
class Item:
    """A text on its way to a shard."""

    hash: bytes
    text: str
    tokens: TokenizedText


def lacking(
    stores: Mapping[str, EmbeddingStore],
    texts: Iterable[str],
    layers: Mapping[str, Sequence[str]] | None,
    options: ExtractConfig,
) -> dict[bytes, str]:
    """Find the texts that a store lacks and that this process has to extract.

    Args:
        stores: store of each pooling.
        texts: texts in any order, with any repeats.
        layers: wanted layers for each pooling. None means all layers of the model under every
            pooling; before the first extraction they are unknown, and every text is lacking.
        options: number of processes, and the number of this one.

    Returns:
        The texts by hash, each once.
    """
    assigned = _assigned(texts, options)
    return {key: assigned[key] for key in _missing(stores, list(assigned), layers)}


def _assigned(texts: Iterable[str], options: ExtractConfig) -> dict[bytes, str]:
    """Return, by hash and each once, the texts that this process has to extract."""
    return {
        key: text
        for text in texts
        if int.from_bytes((key := text_hash(text))[:8], "little") % options.num_shards
        == options.shard
    }


def _missing(
    stores: Mapping[str, EmbeddingStore],
    keys: Sequence[bytes],
    layers: Mapping[str, Sequence[str]] | None,
) -> list[bytes]:
    missing = np.zeros(len(keys), bool)
    for pooling, store in stores.items():
        everything = store.shape.layers if store.shape else None
        wanted = everything if layers is None else layers.get(pooling, ())
        missing |= True if wanted is None else store.missing(keys, wanted)
    return [key for key, lacks in zip(keys, missing, strict=True) if lacks]


@dataclass(frozen=True)
class Wave:
    """Texts that are tokenized together, the longest first; `last` marks the final wave."""

    items: list[Item]
    last: bool


def cut_waves(
    stores: Mapping[str, EmbeddingStore],
    texts: Sequence[str],
    layers: Mapping[str, Sequence[str]],
    options: ExtractConfig,
    *,
    by_length: bool,
) -> Iterator[tuple[list[tuple[bytes, str]], bool]]:
    """Cut the texts that the stores lack into parts.

    We cut all of the texts, and only then drop those that the stores hold. A job that resumes after
    an interruption therefore cuts the same parts. With `by_length` the parts are smaller and start
    with the texts of most characters, so that a GPU does not wait until many are tokenized.

    Yields:
        The hashes and texts of a part, and true for the last part.
    """
    before: dict[bytes, str] = {}
    stretches = list(_stretches(texts))
    for number, stretch in enumerate(stretches):
        assigned = _assigned((texts[place] for place in stretch), options)
        for key in before.keys() & assigned.keys():
            del assigned[key]  # a repeat, whose vectors may not be written yet
        missing = set(_missing(stores, list(assigned), layers))
        before = assigned
        entries = list(assigned.items())
        parts = [entries]
        if by_length:
            entries.sort(key=lambda entry: (-len(entry[1]), entry[0]))
            waves = np.cumsum([len(text) for _, text in entries]) // WAVE_CHARACTERS
            parts = [[entries[n] for n in np.flatnonzero(waves == w)] for w in np.unique(waves)]
        parts = [[entry for entry in part if entry[0] in missing] for part in parts]
        parts = [part for part in parts if part]
        for place, part in enumerate(parts):
            yield part, number == len(stretches) - 1 and place == len(parts) - 1


def _stretches(texts: Sequence[str]) -> Iterator[range]:
    """Cut the places of the texts into ranges whose tokens are in memory at a time."""
    begin = characters = 0
    for place, text in enumerate(texts):
        characters += len(text)
        if place + 1 - begin >= STRETCH_TEXTS or characters >= STRETCH_CHARACTERS:
            yield range(begin, place + 1)
            begin, characters = place + 1, 0
    if begin < len(texts):
        yield range(begin, len(texts))


def evenly(texts: Sequence[str], count: int) -> list[tuple[bytes, str]]:
    """Take evenly spaced texts, with an empty hash each."""
    places = np.unique(np.linspace(0, len(texts) - 1, count).round().astype(int))
    return [(b"", texts[int(place)]) for place in places]


class Ahead:
    """Tokenizer that works ahead of a GPU in a thread, and on demand for a CPU."""

    def __init__(self, backbone: Backbone, config: BackboneConfig) -> None:
        self._backbone = backbone
        self._config = config
        self._threads = ThreadPoolExecutor(1) if backbone.is_fed else None

    def items(self, entries: Sequence[tuple[bytes, str]]) -> list[Item]:
        """Tokenize texts and sort them, the longest first.

        A batch that is too large for the memory then shows up in the first second. Ties are sorted
        by hash, so that a job that resumes after an interruption forms the same batches.
        """
        tokens = self._backbone.tokenize([text for _, text in entries], self._config)
        items = [Item(*entry, text) for entry, text in zip(entries, tokens, strict=True)]
        items.sort(key=lambda item: (-item.tokens.cost, item.hash))
        return items

    def tokenized(self, waves: Iterable[tuple[list[tuple[bytes, str]], bool]]) -> Iterator[Wave]:
        """Tokenize the waves. On a GPU the next waves are tokenized in the meantime."""
        if self._threads is None:
            for entries, last in waves:
                yield Wave(self.items(entries), last)
            return
        coming: deque[tuple[Future[list[Item]], bool]] = deque()
        for entries, last in waves:
            coming.append((self._threads.submit(self.items, entries), last))
            if len(coming) > WAVES_AHEAD:
                items, was_last = coming.popleft()
                yield Wave(items.result(), was_last)
        while coming:
            items, was_last = coming.popleft()
            yield Wave(items.result(), was_last)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)


def cut_shards(
    items: Iterable[T], options: ExtractConfig, cost: Callable[[T], int], texts_per_item: int = 1
) -> Iterator[list[T]]:
    """Cut items into shards. A shard is closed as soon as it reaches a limit of `options`.

    Args:
        items: the items in the order in which they pass through the model.
        options: limits on the tokens and texts of a shard.
        cost: function that counts the tokens of an item.
        texts_per_item: number of texts of an item.
    """
    shard: list[T] = []
    tokens = 0
    for item in items:
        shard.append(item)
        tokens += cost(item)
        texts = texts_per_item * len(shard)
        if tokens >= shard_tokens(options) or texts >= shard_texts(options):
            yield shard
            shard, tokens = [], 0
    if shard:
        yield shard


def most_texts(
    backbone: Backbone, layers: Mapping[str, Sequence[str]], options: ExtractConfig
) -> int:
    """Return the most texts of a batch for a GPU, whose vectors have to fit beside the pass."""
    vectors = sum(map(len, layers.values()))
    of_a_text = 4 * backbone.shape.width * max(1, vectors)  # float32, before they are rounded
    return max(1, min(shard_texts(options, gpu=True), POOLED_BYTES // of_a_text))


def batches_of_texts(
    items: Iterable[Item],
    backbone: Backbone,
    options: ExtractConfig,
    budget: TokenBudget,
    most: int,
) -> Iterator[list[Item]]:
    """Cut the texts of all waves into batches for a GPU. A shard consists of whole batches.

    A batch begins where the one before it ends and depends on no earlier text, so that a job that
    resumes after an interruption forms the same batches.
    """
    batch: list[Item] = []
    windows = tokens = longest = 0
    for item in items:
        lengths = [len(window.ids) for window in item.tokens.windows]
        new_longest = max(longest, *lengths)
        size = (windows + len(lengths)) * new_longest
        if packs(backbone, new_longest):
            size = tokens + item.tokens.cost
        full = size > budget.tokens or len(batch) >= most
        if batch and (full or tokens >= (options.shard_tokens or size)):
            yield batch
            batch, windows, tokens, new_longest = [], 0, 0, max(lengths)
        batch.append(item)
        windows, tokens, longest = windows + len(lengths), tokens + item.tokens.cost, new_longest
    if batch:
        yield batch


def shard_tokens(options: ExtractConfig, *, gpu: bool = False) -> int:
    """Return the number of tokens after which a shard is closed.

    On a GPU one shard is written while the next is computed. Each may therefore hold half of the
    work that a kill may lose.

    Args:
        options: limit on the work that a kill may lose, if it is set.
        gpu: True if the model is on a GPU.
    """
    most = options.shard_tokens or (GPU_LOSS if gpu else CPU_LOSS)
    return max(1, most // 2) if gpu else most


def shard_texts(options: ExtractConfig, *, gpu: bool = False) -> int:
    """Return the number of texts after which a shard is closed.

    Args:
        options: the number, if it is set.
        gpu: True if the model is on a GPU.
    """
    return options.shard_texts or (GPU_TEXTS if gpu else CPU_TEXTS)
