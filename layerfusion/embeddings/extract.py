"""Fill the stores: every missing text passes once through the model, every layer is pooled."""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
import torch

from layerfusion.assets.files import write_atomically
from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.backbone import Backbone, out_of_memory
from layerfusion.embeddings.forward import (
    TokenBudget,
    Vectors,
    embed_groups,
    launch,
    packs,
)
from layerfusion.embeddings.progress import TokenBar
from layerfusion.embeddings.spec import text_hash
from layerfusion.embeddings.store import EmbeddingStore, TokenCounts
from layerfusion.embeddings.tokens import TokenizedText, tokenize
from layerfusion.errors import UserError

log = logging.getLogger(__name__)

CPU_BUDGETS = (512, 1024, 2048)
GPU_BUDGETS = (8192, 16384, 32768, 65536, 131072)
LEAST_PACKED, MOST_PACKED = 4096, 131_072
"""Tokens of a batch of packed texts."""
PACKED_WORK = 6e14
"""Floating-point operations of a batch of packed texts at most."""
TOKEN_WIDTHS = 24
"""Numbers that a token takes in a block, in widths of the model, with room to spare."""
CALIBRATION_BLOCKS = 3
CALIBRATION_TEXTS = 512
ENOUGH = 0.97
"""A smaller batch that reaches as much of the best rate on a GPU is taken: it needs less memory."""

CPU_LOSS, GPU_LOSS = 16_384, 524_288
"""Tokens that a kill may lose where `extract.shard_tokens` does not say: seconds of work each."""
SHARD_BYTES = 128 * 2**20
"""Bytes of vectors in memory after which a shard of a GPU is closed."""
SHARD_SECONDS = 5.0
"""Seconds after which a shard of a GPU is closed."""
STRETCH_TEXTS, STRETCH_CHARACTERS = 65_536, 2**26
"""Texts in a row that are sorted by length together: their tokens are in memory at a time."""
WAVE_CHARACTERS = 2**19
"""Characters that are tokenized at a time, ahead of a GPU."""
WAVES_AHEAD = 2
TURN_SECONDS = 1e-4
"""Time after which a thread of Python hands over while a GPU is fed."""


@dataclass(frozen=True)
class Extraction:
    """What a call of `extract` did."""

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
    """Texts by hash, each once, that a store lacks and that fall to this process.

    With `layers` None all of the model's layers are asked for, under every pooling; before the
    first extraction nobody knows them, and every text is lacking.
    """
    found = _mine(texts, options)
    return {key: found[key] for key in _missing(stores, list(found), layers)}


def _mine(texts: Iterable[str], options: ExtractConfig) -> dict[bytes, str]:
    """Texts by hash, each once, that fall to this process."""
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
) -> Extraction:
    """Extract what the stores lack of some texts, shard by shard.

    A kill loses `options.shard_tokens` of work at most, and what goes on after it forms the same
    batches. Tokens are held for a part of the texts at a time, whatever their number. On a GPU the
    texts are tokenized and the shards are written while the model computes.

    Args:
        backbone: the model.
        stores: pooling name to its store; all poolings are taken in the same pass.
        poolings: pooling name to how it pools.
        texts: in any order, with any repeats.
        layers: pooling to the layers to keep; all where None. Blocks above are not computed.
        config: how texts become tokens.
        options: sizes, device, and which part of the texts is this process's.
        calibrations: file that remembers the batch size found for a model on a machine.

    Raises:
        UserError: for a vector that is not finite, a full disk, a text without tokens.
    """
    layers = dict.fromkeys(stores, backbone.shape.layers) if layers is None else layers
    for store in stores.values():
        store.describe_model(backbone.shape)
    started = time.perf_counter()
    gpu = backbone.device.type == "cuda"
    count = tokens = 0
    with _quick_turns(gpu), _Ahead(backbone, config) as ahead, _Writer(behind=gpu) as writer:
        plan = _waves(stores, texts, layers, options, by_length=gpu)
        head = next(plan, None)
        if head is None:
            return Extraction(0, 0, 0.0)
        budget = TokenBudget(options.token_budget or 0)
        if gpu and not budget.tokens:  # before the tokenizer takes the cores
            budget.tokens = packed_budget(backbone) or calibrated_budget(
                backbone, ahead.items(_evenly(texts, CALIBRATION_TEXTS)), calibrations
            )
        waves = ahead.tokenized(chain([head], plan))
        first = next(waves)
        if not budget.tokens:
            budget.tokens = calibrated_budget(backbone, first.items, calibrations)
        characters = sum(map(len, texts))
        done = 0
        shard = _OpenShard(backbone, layers, options, gpu)
        with TokenBar(backbone.name, 0) as bar:

            def groups() -> Iterator[list[TokenizedText]]:
                nonlocal count, tokens, done
                for wave in chain([first], waves):
                    count += len(wave.items)
                    tokens += sum(item.tokens.cost for item in wave.items)
                    done += sum(len(item.text) for item in wave.items)
                    bar.expect(tokens if wave.last else round(tokens * characters / max(1, done)))
                    cut = _batches_of_texts if gpu else _shards
                    for group in cut(wave.items, backbone, options, budget):
                        shard.waits_for(group)
                        yield [item.tokens for item in group]

            for embedded in embed_groups(backbone, groups(), layers, poolings, budget, bar.update):
                shard.add(embedded.vectors(poolings))
                if shard.is_full:
                    writer.write(shard.close(stores))
            if shard.holds:
                writer.write(shard.close(stores))
    return Extraction(count, tokens, time.perf_counter() - started)


@contextmanager
def _quick_turns(gpu: bool) -> Iterator[None]:
    """Let the thread that feeds a GPU have Python back at once, not after 5 ms at each kernel."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS if gpu else usual)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


# -- what is read together ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Wave:
    """Texts that are tokenized together, the longest first."""

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
    """What the stores lack of some texts, part by part; and whether a part is the last.

    The parts are cut from all of the texts, before it is seen what is lacking, so that a run that
    was interrupted cuts the same ones. With `by_length` the texts are cut finer, the ones with most
    characters first, so that a GPU does not wait until many are tokenized.
    """
    before: dict[bytes, str] = {}
    stretches = list(_stretches(texts))
    for number, stretch in enumerate(stretches):
        mine = _mine((texts[place] for place in stretch), options)
        for key in before.keys() & mine.keys():
            del mine[key]  # it may not be written yet
        lacks = set(_missing(stores, list(mine), layers))
        before = mine
        entries = list(mine.items())
        parts = [entries]
        if by_length:
            entries.sort(key=lambda entry: (-len(entry[1]), entry[0]))
            sizes = np.cumsum([len(text) for _, text in entries]) // WAVE_CHARACTERS
            parts = [[entries[n] for n in np.flatnonzero(sizes == one)] for one in np.unique(sizes)]
        parts = [[entry for entry in part if entry[0] in lacks] for part in parts]
        parts = [part for part in parts if part]
        for place, part in enumerate(parts):
            yield part, number == len(stretches) - 1 and place == len(parts) - 1


def _stretches(texts: Sequence[str]) -> Iterator[range]:
    """Places of texts in a row, as many as are held as tokens at a time."""
    begin = characters = 0
    for place, text in enumerate(texts):
        characters += len(text)
        if place + 1 - begin >= STRETCH_TEXTS or characters >= STRETCH_CHARACTERS:
            yield range(begin, place + 1)
            begin, characters = place + 1, 0
    if begin < len(texts):
        yield range(begin, len(texts))


def _evenly(texts: Sequence[str], count: int) -> list[tuple[bytes, str]]:
    """Some texts from everywhere among them."""
    places = np.unique(np.linspace(0, len(texts) - 1, count).round().astype(int))
    return [(b"", texts[int(place)]) for place in places]


class _Ahead:
    """Tokenizes; on a GPU ahead of the model, in another thread."""

    def __init__(self, backbone: Backbone, config: BackboneConfig) -> None:
        self._backbone = backbone
        self._config = config
        self._threads = ThreadPoolExecutor(1) if backbone.device.type == "cuda" else None

    def items(self, entries: Sequence[tuple[bytes, str]]) -> list[_Item]:
        """Texts with their tokens, longest first.

        So that a batch too large for the memory shows in the first second; ties by hash, so that a
        run that was interrupted goes on with the same batches.
        """
        limit = self._backbone.shape.max_length
        tokenizer, texts = self._backbone.tokenizer, [text for _, text in entries]
        tokens = tokenize(tokenizer, texts, self._config, limit)
        items = [_Item(*entry, found) for entry, found in zip(entries, tokens, strict=True)]
        items.sort(key=lambda item: (-item.tokens.cost, item.hash))
        return items

    def tokenized(self, waves: Iterable[tuple[list[tuple[bytes, str]], bool]]) -> Iterator[_Wave]:
        """The waves with their tokens; on a GPU the next ones are under way meanwhile."""
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


def _shards(
    items: Sequence[_Item], _backbone: Backbone, options: ExtractConfig, _budget: TokenBudget
) -> Iterator[list[_Item]]:
    shard: list[_Item] = []
    cost = 0
    for item in items:
        shard.append(item)
        cost += item.tokens.cost
        if cost >= shard_tokens(options) or len(shard) >= options.shard_texts:
            yield shard
            shard, cost = [], 0
    if shard:
        yield shard


def _batches_of_texts(
    items: Sequence[_Item], backbone: Backbone, options: ExtractConfig, budget: TokenBudget
) -> Iterator[list[_Item]]:
    """Texts that pass through the model together; a shard is made of one or several batches."""
    batch: list[_Item] = []
    windows = tokens = longest = 0
    for item in items:
        lengths = [len(window.ids) for window in item.tokens.windows]
        new_longest = max(longest, *lengths)
        size = (windows + len(lengths)) * new_longest
        if packs(backbone, new_longest):
            size = tokens + item.tokens.cost
        full = size > budget.tokens or len(batch) >= options.shard_texts
        if batch and (full or tokens >= (options.shard_tokens or size)):
            yield batch
            batch, windows, tokens, new_longest = [], 0, 0, max(lengths)
        batch.append(item)
        windows, tokens, longest = windows + len(lengths), tokens + item.tokens.cost, new_longest
    if batch:
        yield batch


def shard_tokens(options: ExtractConfig, *, gpu: bool = False) -> int:
    """Tokens after which a shard is closed.

    On a GPU one shard is written while the next is computed, so each may hold half of what a kill
    may lose.

    Args:
        options: the most that a kill may lose, where it is given.
        gpu: whether the model is on a GPU.
    """
    most = options.shard_tokens or (GPU_LOSS if gpu else CPU_LOSS)
    return max(1, most // 2) if gpu else most


# -- shards -------------------------------------------------------------------------------------


class _OpenShard:
    """Vectors that are gathered until they are written together."""

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

    @property
    def holds(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._items)

    @property
    def is_full(self) -> bool:
        """Whether it is time to write: on a CPU after each group, else by tokens, bytes, time."""
        if not self._gpu:
            return True
        return (
            len(self._items) >= self._options.shard_texts
            or self._tokens >= shard_tokens(self._options, gpu=True)
            or self._bytes >= SHARD_BYTES
            or time.perf_counter() - self._begun >= SHARD_SECONDS
        )

    def waits_for(self, items: list[_Item]) -> None:
        """Remember which texts the next vectors belong to."""
        if not self._items and not self._coming:
            self._begun = time.perf_counter()
        self._coming.append(items)

    def add(self, vectors: Vectors) -> None:
        """Take in the vectors of the texts that have waited longest."""
        items = self._coming.popleft()
        self._items += items
        self._parts.append(vectors)
        self._tokens += sum(item.tokens.cost for item in items)
        self._bytes += sum(values.nbytes for values in vectors.values())

    def close(self, stores: Mapping[str, EmbeddingStore]) -> Callable[[], None]:
        """Begin anew; the call that is returned writes what was gathered."""
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
    """Writes shards one after the other; `behind` the model, or at once.

    Args:
        behind: write in another thread, while the next shard is computed.
    """

    def __init__(self, *, behind: bool) -> None:
        self._thread = ThreadPoolExecutor(1) if behind else None
        self._running: Future[None] | None = None

    def write(self, shard: Callable[[], None]) -> None:
        """Write a shard, once the one before it is written; raises what that one raised."""
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
    """One shard to each store that lacks some of the texts."""
    hashes = [item.hash for item in items]
    seen = np.array([item.tokens.seen for item in items])
    cut = np.array([item.tokens.cut for item in items])
    for pooling, wanted in layers.items():
        store = stores[pooling]
        new = np.flatnonzero(store.missing(hashes, wanted))
        if not len(new):
            continue
        rows = {layer: vectors[pooling, layer] for layer in wanted}
        if len(new) < len(items):
            rows = {layer: values[new] for layer, values in rows.items()}
        for layer, values in rows.items():
            if np.isfinite(values.min()) and np.isfinite(values.max()):
                continue
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            text = items[int(new[bad[0]])].text
            raise UserError(
                f"backbone {name}, layer {layer}: a value that is not finite for the text"
                f" {text[:80]!r}; try backbone.{name}.dtype=float32"
            )
        store.write(
            [hashes[row] for row in new],
            rows,
            TokenCounts(seen[new], cut[new]),
            seconds=seconds * len(new) / len(items),
        )


# -- batch size ---------------------------------------------------------------------------------


def packed_budget(backbone: Backbone) -> int | None:
    """Tokens of a batch of packed texts; none for a model whose texts are padded.

    Without padding the rate hardly depends on the size of a batch once it fills the device (on an
    H200 480 and 490 TFLOP/s with 16,384 and 65,536 tokens of a model of 7 billion parameters), so
    nothing is measured: small models get batches so large that launching their kernels is hidden,
    large ones such that a batch takes a second or so, and none takes more than a part of memory.
    """
    if backbone.packing is None:
        return None
    free, _ = torch.cuda.mem_get_info(backbone.device)
    weights = sum(backbone.shape.block_weights)
    by_work = PACKED_WORK / (2 * max(1, weights))
    numbers = free / 4 / 2  # of two bytes each, in a quarter of what is free
    by_memory = numbers / (TOKEN_WIDTHS * backbone.shape.width)
    tokens = MOST_PACKED
    while tokens > LEAST_PACKED and tokens > min(by_work, by_memory):
        tokens //= 2
    return tokens


def calibrated_budget(backbone: Backbone, items: Sequence[_Item], path: Path) -> int:
    """Tokens of a batch that make this model fastest on this machine, measured once and kept.

    A few real texts of middling length pass through the lowest blocks under each candidate. The
    answer is kept, so that an extraction that was interrupted goes on with the same batches.
    """
    try:
        kept = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        kept = {}  # never measured, or cut off: a measurement is cheap
    key = f"{platform.node()} {backbone.device} {backbone.model.dtype} {backbone.shape.layers[-1]}"
    key += f" {backbone.shape.width}x{backbone.shape.num_blocks} {torch.get_num_threads()} threads"
    if key not in kept:
        kept[key] = _fastest_budget(backbone, items)
        write_atomically(path, json.dumps(kept, indent=2).encode())
        log.info("%s: batches of %d tokens are fastest here", backbone.name, kept[key])
    return kept[key]


def _fastest_budget(backbone: Backbone, items: Sequence[_Item]) -> int:
    gpu = backbone.device.type != "cpu"
    candidates = GPU_BUDGETS if gpu else CPU_BUDGETS
    middle = [window for item in items for window in item.tokens.windows]
    middle.sort(key=lambda window: len(window.ids))
    length = len(middle[len(middle) // 2].ids)
    near = sorted(middle, key=lambda window: abs(len(window.ids) - length))
    layers = {"mean": backbone.shape.layers[: CALIBRATION_BLOCKS + 1]}
    rates: dict[int, float] = {}
    for budget in candidates:
        rows = near[: max(1, budget // length)]
        if gpu:  # a few texts stand for all
            rows = list(islice(cycle(near), max(1, budget // length)))
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            try:
                launch(backbone, rows, layers, {"mean": PoolingConfig()}).land()
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                return _smallest_of_best(rates, gpu) if rates else candidates[0]
            times.append(time.perf_counter() - begun)
        rates[budget] = sum(len(row.ids) for row in rows) / min(times)
        if not gpu and len(rows) == len(near):
            break
    return _smallest_of_best(rates, gpu)


def _smallest_of_best(rates: Mapping[int, float], gpu: bool) -> int:
    enough = max(rates.values()) * (ENOUGH if gpu else 1.0)
    return min(budget for budget, rate in rates.items() if rate >= enough)
