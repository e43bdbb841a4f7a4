"""Fill the stores: each missing text passes once through the model, and every layer is pooled."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.batch_size import CALIBRATION_TEXTS, calibrated_budget, packed_budget
from layerfusion.embeddings.cache_key import ROUNDED, text_hash
from layerfusion.embeddings.forward import (
    TokenBudget,
    Vectors,
    embed_groups,
    packs,
    refuse_not_finite,
)
from layerfusion.embeddings.progress import TokenBar
from layerfusion.embeddings.store import EmbeddingStore, TokenCounts
from layerfusion.embeddings.tokens import TokenizedText, UnknownTally

log = logging.getLogger(__name__)

T = TypeVar("T")

CPU_LOSS, GPU_LOSS = 16_384, 524_288
"""Tokens of work, a few seconds, that a kill may lose if `extract.shard_tokens` is not set."""
CPU_TEXTS, GPU_TEXTS = 1024, 16_384
"""Texts after which a shard is closed if `extract.shard_texts` is not set."""
SHARD_BYTES = 128 * 2**20
"""Bytes of vectors in memory after which a shard of a GPU is closed."""
LAST_BYTES = SHARD_BYTES // 4
"""The same once the last wave is read."""
POOLED_BYTES = 4 * SHARD_BYTES
"""Bytes of the pooled vectors of a batch, in float32, beside which a GPU still has room."""
SHARD_SECONDS = 5.0
"""Seconds after which a shard of a GPU is closed."""
STRETCH_TEXTS, STRETCH_CHARACTERS = 65_536, 2**26
"""Limits on the texts that are sorted by length together; their tokens are all in memory."""
WAVE_CHARACTERS = 2**19
"""Number of characters in a wave: texts that are tokenized together, ahead of a GPU."""
WAVES_AHEAD = 2
"""Number of waves that are tokenized ahead of a GPU."""
TURN_SECONDS = 1e-4
"""Switch interval of Python's threads while one of them feeds a GPU."""


@dataclass(frozen=True)
class Extraction:
    """Amount of work that a call of `extract` did."""

    texts: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class _Item:
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


def extract(
    backbone: Backbone,
    stores: Mapping[str, EmbeddingStore],
    poolings: Mapping[str, PoolingConfig],
    texts: Sequence[str],
    *,
    layers: Mapping[str, Sequence[str]] | None = None,
    config: BackboneConfig,
    options: ExtractConfig,
    calibrations: Path,
    tally: UnknownTally | None = None,
) -> Extraction:
    """Extract the texts that the stores lack, shard by shard.

    A kill loses at most `options.shard_tokens` of work, and the next call forms the same batches.
    Only a part of the tokens is in memory at a time, for any number of texts. On a GPU the texts
    are tokenized and the shards are written while the model computes.

    Args:
        backbone: the model.
        stores: store of each pooling; one pass serves all poolings.
        poolings: settings of each pooling.
        texts: texts in any order, with any repeats.
        layers: layers to keep for each pooling; None keeps all. Higher blocks are not computed.
        config: settings of the tokenization.
        options: sizes, device, and the part of the texts that this process has to extract.
        calibrations: file that stores the fastest batch size of each model on each machine.
        tally: counts of the unknown tokens of texts that were read before; new ones are added.

    Raises:
        UserError: if a vector is not finite, the disk is full, a text has no tokens, or
            practically all tokens are unknown.
    """
    tally = tally or UnknownTally(backbone.name)
    layers = dict.fromkeys(stores, backbone.shape.layers) if layers is None else layers
    for store in stores.values():
        store.describe_model(backbone.shape)
    started = time.perf_counter()
    gpu = backbone.is_fed
    rounded = gpu and all(store.spec.store_dtype == ROUNDED for store in stores.values())
    count = tokens = 0
    with _quick_turns(gpu), _Ahead(backbone, config) as ahead, _Writer(behind=gpu) as writer:
        plan = _waves(stores, texts, layers, options, by_length=gpu)
        head = next(plan, None)
        if head is None:
            return Extraction(0, 0, 0.0)
        budget = TokenBudget(options.token_budget or 0)
        if gpu and not budget.tokens:  # measured before the tokenizer occupies the cores
            budget.tokens = packed_budget(backbone) or calibrated_budget(
                backbone,
                [item.tokens for item in ahead.items(_evenly(texts, CALIBRATION_TEXTS))],
                calibrations,
            )
        waves = ahead.tokenized(chain([head], plan))
        first = next(waves)
        if not budget.tokens:
            read = [item.tokens for item in first.items]
            budget.tokens = calibrated_budget(backbone, read, calibrations)
        characters = sum(map(len, texts))
        characters_read = 0
        shard = _OpenShard(backbone, layers, options, gpu)
        with TokenBar(backbone.name, 0) as bar:

            def items_of(wave: _Wave) -> list[_Item]:
                """Count the texts of a wave when their turn comes."""
                nonlocal count, tokens, characters_read
                read = [item.tokens for item in wave.items]
                tally.add((x.own for x in read), (x.unknown for x in read)).refuse()
                count += len(wave.items)
                tokens += sum(item.tokens.cost for item in wave.items)
                characters_read += sum(len(item.text) for item in wave.items)
                expected = round(tokens * characters / max(1, characters_read))
                bar.expect(tokens if wave.last else expected)
                shard.is_last |= wave.last
                return wave.items

            def token_groups() -> Iterator[list[TokenizedText]]:
                turns = map(items_of, chain([first], waves))
                if gpu:
                    items = chain.from_iterable(turns)
                    most = _most_texts(backbone, layers, options)
                    groups = _batches_of_texts(items, backbone, options, budget, most)
                else:
                    groups = chain.from_iterable(
                        cut_shards(items, options, cost=lambda item: item.tokens.cost)
                        for items in turns
                    )
                for group in groups:
                    shard.waits_for(group)
                    yield [item.tokens for item in group]

            passed = embed_groups(
                backbone, token_groups(), layers, poolings, budget, bar.update, rounded=rounded
            )
            for embedded in passed:
                shard.add(embedded.vectors(poolings))
                if shard.is_full:
                    writer.write(shard.close(stores))
            if shard.holds:
                writer.write(shard.close(stores))
    return Extraction(count, tokens, time.perf_counter() - started)


@contextmanager
def _quick_turns(gpu: bool) -> Iterator[None]:
    """Let the thread that feeds a GPU resume at once, instead of after 5 ms at each kernel.

    Nor does it wait until Python has looked for garbage among all that was there before.
    """
    if not gpu:
        yield
        return
    usual = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(usual)


# -- groups of texts ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wave:
    """Texts that are tokenized together, the longest first; `last` marks the final wave."""

    items: list[_Item]
    last: bool


def _waves(
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


def _evenly(texts: Sequence[str], count: int) -> list[tuple[bytes, str]]:
    """Take evenly spaced texts, with an empty hash each."""
    places = np.unique(np.linspace(0, len(texts) - 1, count).round().astype(int))
    return [(b"", texts[int(place)]) for place in places]


class _Ahead:
    """Tokenizer that works ahead of a GPU in a thread, and on demand for a CPU."""

    def __init__(self, backbone: Backbone, config: BackboneConfig) -> None:
        self._backbone = backbone
        self._config = config
        self._threads = ThreadPoolExecutor(1) if backbone.is_fed else None

    def items(self, entries: Sequence[tuple[bytes, str]]) -> list[_Item]:
        """Tokenize texts and sort them, the longest first.

        A batch that is too large for the memory then shows up in the first second. Ties are sorted
        by hash, so that a job that resumes after an interruption forms the same batches.
        """
        tokens = self._backbone.tokenize([text for _, text in entries], self._config)
        items = [_Item(*entry, text) for entry, text in zip(entries, tokens, strict=True)]
        items.sort(key=lambda item: (-item.tokens.cost, item.hash))
        return items

    def tokenized(self, waves: Iterable[tuple[list[tuple[bytes, str]], bool]]) -> Iterator[_Wave]:
        """Tokenize the waves. On a GPU the next waves are tokenized in the meantime."""
        if self._threads is None:
            for entries, last in waves:
                yield _Wave(self.items(entries), last)
            return
        coming: deque[tuple[Future[list[_Item]], bool]] = deque()
        for entries, last in waves:
            coming.append((self._threads.submit(self.items, entries), last))
            if len(coming) > WAVES_AHEAD:
                items, was_last = coming.popleft()
                yield _Wave(items.result(), was_last)
        while coming:
            items, was_last = coming.popleft()
            yield _Wave(items.result(), was_last)

    def __enter__(self) -> _Ahead:
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


def _most_texts(
    backbone: Backbone, layers: Mapping[str, Sequence[str]], options: ExtractConfig
) -> int:
    """Return the most texts of a batch for a GPU, whose vectors have to fit beside the pass."""
    vectors = sum(map(len, layers.values()))
    of_a_text = 4 * backbone.shape.width * max(1, vectors)  # float32, before they are rounded
    return max(1, min(shard_texts(options, gpu=True), POOLED_BYTES // of_a_text))


def _batches_of_texts(
    items: Iterable[_Item],
    backbone: Backbone,
    options: ExtractConfig,
    budget: TokenBudget,
    most: int,
) -> Iterator[list[_Item]]:
    """Cut the texts of all waves into batches for a GPU. A shard consists of whole batches.

    A batch begins where the one before it ends and depends on no earlier text, so that a job that
    resumes after an interruption forms the same batches.
    """
    batch: list[_Item] = []
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


# -- shards -------------------------------------------------------------------------------------


class _OpenShard:
    """Vectors that are collected until they are written together.

    Attributes:
        is_last: True once the last wave is read. The shards are smaller then, so that less is left
            to write after the last batch.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: Mapping[str, Sequence[str]],
        options: ExtractConfig,
        gpu: bool,
    ) -> None:
        self._name = backbone.name
        self._layers = layers
        self._options = options
        self._gpu = gpu
        self._coming: deque[list[_Item]] = deque()
        self._items: list[_Item] = []
        self._parts: list[Vectors] = []
        self._tokens = self._bytes = 0
        self._begun = time.perf_counter()
        self.is_last = False

    @property
    def holds(self) -> bool:
        """Return true if there are vectors to write."""
        return bool(self._items)

    @property
    def is_full(self) -> bool:
        """Return true if it is time to write: on a CPU always, on a GPU by size and time."""
        if not self._gpu:
            return True
        return (
            len(self._items) >= shard_texts(self._options, gpu=True)
            or self._tokens >= shard_tokens(self._options, gpu=True)
            or self._bytes >= (LAST_BYTES if self.is_last else SHARD_BYTES)
            or time.perf_counter() - self._begun >= SHARD_SECONDS
        )

    def waits_for(self, items: list[_Item]) -> None:
        """Queue texts whose vectors will be added later, in the same order."""
        if not self._items and not self._coming:
            self._begun = time.perf_counter()
        self._coming.append(items)

    def add(self, vectors: Vectors) -> None:
        """Add the vectors of the texts at the head of the queue."""
        items = self._coming.popleft()
        self._items += items
        self._parts.append(vectors)
        self._tokens += sum(item.tokens.cost for item in items)
        self._bytes += sum(values.nbytes for values in vectors.values())

    def close(self, stores: Mapping[str, EmbeddingStore]) -> Callable[[], None]:
        """Start a new shard, and return a function that writes the collected vectors."""
        seconds = time.perf_counter() - self._begun
        items, parts = self._items, self._parts
        self._items, self._parts, self._begun = [], [], time.perf_counter()
        self._tokens = self._bytes = 0
        name, layers = self._name, self._layers

        def write() -> None:
            vectors = parts[0]
            if len(parts) > 1:
                vectors = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            _write(name, items, vectors, stores, layers, seconds)

        return write


class _Writer:
    """Writer of shards, one after the other.

    Args:
        behind: write in another thread, while the model computes the next shard.
    """

    def __init__(self, *, behind: bool) -> None:
        self._thread = ThreadPoolExecutor(1) if behind else None
        self._running: Future[None] | None = None

    def write(self, shard: Callable[[], None]) -> None:
        """Write a shard after the previous one. Raises an error that the previous one had."""
        if self._thread is None:
            shard()
            return
        self._settle()
        self._running = self._thread.submit(shard)

    def _settle(self) -> None:
        if self._running is not None:
            running, self._running = self._running, None
            running.result()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if self._thread is None:
            return
        try:
            if kind is None:
                self._settle()
        finally:
            self._thread.shutdown()


def _write(
    name: str,
    items: Sequence[_Item],
    vectors: Vectors,
    stores: Mapping[str, EmbeddingStore],
    layers: Mapping[str, Sequence[str]],
    seconds: float,
) -> None:
    """Write one shard to each store that lacks any of the texts."""
    hashes = [item.hash for item in items]
    counts = TokenCounts.of(item.tokens for item in items)
    for pooling, wanted in layers.items():
        store = stores[pooling]
        new = np.flatnonzero(store.missing(hashes, wanted))
        if not len(new):
            continue
        rows = {layer: vectors[pooling, layer] for layer in wanted}
        if len(new) < len(items):
            rows = {layer: values[new] for layer, values in rows.items()}
        texts = [items[int(row)].text for row in new]
        for layer, values in rows.items():
            if values.dtype != np.float16:  # only what fits was rounded
                refuse_not_finite(name, layer, values, texts)
        store.write(
            [hashes[row] for row in new],
            rows,
            counts.rows(new),
            seconds=seconds * len(new) / len(items),
        )
