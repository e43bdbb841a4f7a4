"""Fill the stores: each missing text passes once through the model, and every layer is pooled."""

from __future__ import annotations

import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.batch_size import CALIBRATION_TEXTS, calibrated_budget, packed_budget
from layerfusion.embeddings.cache_key import ROUNDED
from layerfusion.embeddings.forward import TokenBudget, Vectors, embed_groups, refuse_not_finite
from layerfusion.embeddings.groups import (
    Ahead,
    Item,
    Wave,
    batches_of_texts,
    cut_shards,
    cut_waves,
    evenly,
    most_texts,
    shard_texts,
    shard_tokens,
)
from layerfusion.embeddings.progress import TokenBar
from layerfusion.embeddings.store import EmbeddingStore, TokenCounts
from layerfusion.embeddings.tokens import TokenizedText, UnknownTally

SHARD_BYTES = 128 * 2**20
"""Bytes of vectors in memory after which a shard of a GPU is closed."""
LAST_BYTES = SHARD_BYTES // 4
"""The same once the last wave is read."""
SHARD_SECONDS = 5.0
"""Seconds after which a shard of a GPU is closed."""
TURN_SECONDS = 1e-4
"""Switch interval of Python's threads while one of them feeds a GPU."""


@dataclass(frozen=True)
class Extraction:
    """Amount of work that a call of `extract` did."""

    texts: int
    tokens: int
    seconds: float


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
    with _quick_turns(gpu), Ahead(backbone, config) as ahead, _Writer(behind=gpu) as writer:
        plan = cut_waves(stores, texts, layers, options, by_length=gpu)
        head = next(plan, None)
        if head is None:
            return Extraction(0, 0, 0.0)
        budget = TokenBudget(options.token_budget or 0)
        if gpu and not budget.tokens:  # measured before the tokenizer occupies the cores
            budget.tokens = packed_budget(backbone) or calibrated_budget(
                backbone,
                [item.tokens for item in ahead.items(evenly(texts, CALIBRATION_TEXTS))],
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

            def items_of(wave: Wave) -> list[Item]:
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
                    most = most_texts(backbone, layers, options)
                    groups = batches_of_texts(items, backbone, options, budget, most)
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

    Nor does it wait until Python has looked for garbage among all that was there before. A program
    that has seen to this itself, as a server does, keeps what it has frozen: what is frozen thaws
    only as a whole.
    """
    if not gpu:
        yield
        return
    usual = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS)
    ours = gc.get_freeze_count() == 0
    if ours:
        gc.freeze()
    try:
        yield
    finally:
        if ours:
            gc.unfreeze()
        sys.setswitchinterval(usual)


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
        self._coming: deque[list[Item]] = deque()
        self._items: list[Item] = []
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

    def waits_for(self, items: list[Item]) -> None:
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
    items: Sequence[Item],
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
