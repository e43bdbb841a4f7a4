"""Fill the stores: every missing text passes once through the model, every layer is pooled."""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from layerfusion.assets.files import write_atomically
from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.backbone import Backbone, out_of_memory
from layerfusion.embeddings.forward import Vectors, embed, pool_layers
from layerfusion.embeddings.progress import TokenBar
from layerfusion.embeddings.spec import text_hash
from layerfusion.embeddings.store import EmbeddingStore, TokenCounts
from layerfusion.embeddings.tokens import TokenizedText, collate, tokenize
from layerfusion.errors import UserError

log = logging.getLogger(__name__)

CPU_BUDGETS = (512, 1024, 2048)
GPU_BUDGETS = (8192, 16384, 32768, 65536)
CALIBRATION_BLOCKS = 3


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
    texts: Sequence[str],
    layers: Mapping[str, Sequence[str]] | None,
    options: ExtractConfig,
) -> dict[bytes, str]:
    """Texts by hash, each once, that a store lacks and that fall to this process.

    With `layers` None all of the model's layers are asked for, under every pooling; before the
    first extraction nobody knows them, and every text is lacking.
    """
    found = {text_hash(text): text for text in texts}
    mine = [
        key
        for key in found
        if int.from_bytes(key[:8], "little") % options.num_shards == options.shard
    ]
    missing = np.zeros(len(mine), bool)
    for pooling, store in stores.items():
        everything = store.shape.layers if store.shape else None
        wanted = everything if layers is None else layers.get(pooling, ())
        missing |= True if wanted is None else store.missing(mine, wanted)
    return {key: found[key] for key, lacks in zip(mine, missing, strict=True) if lacks}


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
    """Extract what the stores lack of some texts, shard by shard; a kill loses one shard at most.

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
    todo = lacking(stores, texts, layers, options)
    if not todo:
        return Extraction(0, 0, 0.0)
    tokens = tokenize(backbone.tokenizer, list(todo.values()), config, backbone.shape.max_length)
    items = [_Item(*entry, t) for entry, t in zip(todo.items(), tokens, strict=True)]
    # Longest first, so that a batch too large for the memory shows in the first second; ties by
    # hash, so that a run that was interrupted goes on with the same batches.
    items.sort(key=lambda item: (-item.tokens.cost, item.hash))
    budget = options.token_budget or calibrated_budget(backbone, items, calibrations)
    total = sum(item.tokens.cost for item in items)
    started = time.perf_counter()
    with TokenBar(backbone.name, total) as bar:
        for shard in _shards(items, options):
            begun = time.perf_counter()
            cut = [item.tokens for item in shard]
            vectors, budget = embed(backbone, cut, layers, poolings, budget, bar.update)
            seconds = time.perf_counter() - begun
            _write(backbone.name, shard, vectors, stores, layers, seconds)
    return Extraction(len(items), total, time.perf_counter() - started)


def _shards(items: Sequence[_Item], options: ExtractConfig) -> Iterator[list[_Item]]:
    shard: list[_Item] = []
    cost = 0
    for item in items:
        shard.append(item)
        cost += item.tokens.cost
        if cost >= options.shard_tokens or len(shard) >= options.shard_texts:
            yield shard
            shard, cost = [], 0
    if shard:
        yield shard


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
        rows = {layer: vectors[pooling, layer][new] for layer in wanted}
        for layer, values in rows.items():
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
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
    candidates = CPU_BUDGETS if backbone.device.type == "cpu" else GPU_BUDGETS
    middle = [window for item in items for window in item.tokens.windows]
    middle.sort(key=lambda window: len(window.ids))
    length = len(middle[len(middle) // 2].ids)
    near = sorted(middle, key=lambda window: abs(len(window.ids) - length))
    layers = backbone.shape.layers[: CALIBRATION_BLOCKS + 1]
    rates = {}
    for budget in candidates:
        rows = near[: max(1, budget // length)]
        batch = collate(rows, backbone.pad_id)
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            try:
                pool_layers(backbone, batch, {"mean": layers}, {"mean": PoolingConfig()})
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                return max(rates, key=rates.__getitem__, default=candidates[0])
            times.append(time.perf_counter() - begun)
        rates[budget] = sum(len(row.ids) for row in rows) / min(times)
        if len(rows) == len(near):
            break
    return max(rates, key=rates.__getitem__)
