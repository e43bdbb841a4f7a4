"""Vectors as published scripts make them: padding counts in the mean, so neighbours count too.

A text is padded to the longer one of its batch of two. Its vector is a pure function of (backbone
spec, text, neighbour), so it lies in a store like any other, addressed by the two texts together.
Of the neighbour only the length counts, so that batches of one length pass through the model
together.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import ExtractConfig, PoolingConfig
from layerfusion.embeddings.backbone import Backbone
from layerfusion.embeddings.backbone_loading import load_backbone
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.forward import refuse_not_finite
from layerfusion.embeddings.gpus import gpu_turn
from layerfusion.embeddings.groups import cut_shards
from layerfusion.embeddings.progress import TokenBar
from layerfusion.embeddings.source import EmbeddingSource
from layerfusion.embeddings.store import EmbeddingStore, TokenCounts
from layerfusion.embeddings.tokens import TokenizedText
from layerfusion.published.settings import PUBLISHED_BATCH

PADDED_MEAN = "padded_mean"
"""Name of the pooling, which no `pooling=` can ask for."""
PADDED_POOLING = {PADDED_MEAN: PoolingConfig(pool=PADDED_MEAN)}

TOKEN_BUDGETS = {"cpu": 1024}
TOKEN_BUDGET = 16384
"""Tokens of one pass, on a CPU and elsewhere, unless `extract.token_budget` is set."""


@dataclass(frozen=True)
class _Batch:
    """A published batch, and where the vectors of its texts lie."""

    texts: tuple[str, ...]
    addresses: tuple[bytes, ...]


@dataclass(frozen=True)
class _Work:
    """A published batch on its way to a shard."""

    batch: _Batch
    tokens: tuple[TokenizedText, ...]

    @property
    def length(self) -> int:
        """Positions that each of its texts takes."""
        return max(text.seen for text in self.tokens)

    @property
    def cost(self) -> int:
        """Positions that pass through the model."""
        return len(self.tokens) * self.length


def padded_addresses(texts: Sequence[str]) -> list[bytes]:
    """Make the address of each text's vectors: a 128-bit hash of the text and its neighbour.

    Args:
        texts: a split in the data's order, which says who is batched with whom.
    """
    return [address for batch in _batches(texts) for address in batch.addresses]


def padded_lengths(tokens: Sequence[int]) -> list[int]:
    """Positions that each text of a split takes, padding included.

    Args:
        tokens: of each text, in the data's order.
    """
    return [
        max(pair)
        for start in range(0, len(tokens), PUBLISHED_BATCH)
        for pair in [tokens[start : start + PUBLISHED_BATCH]]
        for _ in pair
    ]


def extract_padded(
    source: EmbeddingSource, splits: Sequence[Sequence[str]], options: ExtractConfig
) -> None:
    """Extract the last hidden state of what the store of `padded_mean` lacks.

    A job of a sweep waits for a GPU first, if that is the device: see `gpu_turn`.

    Args:
        source: a backbone opened with `PADDED_POOLING`.
        splits: the texts of each split in the data's order; no batch crosses a split.
        options: device and sizes; who is padded with whom does not depend on them.

    Raises:
        UserError: if a vector is not finite, the disk is full or a text has no tokens.
    """
    lacking = _lacking(source, splits, options)
    if not lacking:
        return
    with gpu_turn(options.device) as after_others:
        if after_others:
            source.stores[PADDED_MEAN].refresh()
            lacking = _lacking(source, splits, options)
        if lacking:
            _extract_batches(source, lacking, options)


def _lacking(
    source: EmbeddingSource, splits: Sequence[Sequence[str]], options: ExtractConfig
) -> list[_Batch]:
    """Find the batches that the store lacks and that this process has to extract."""
    store = source.stores[PADDED_MEAN]
    batches = dict.fromkeys(batch for split in splits for batch in _batches(split))
    lacking = [
        batch
        for batch in batches
        if int.from_bytes(batch.addresses[0][:8], "little") % options.num_shards == options.shard
    ]
    if store.shape is not None:
        top = store.shape.layers[-1:]
        lacking = [batch for batch in lacking if store.missing(batch.addresses, top).any()]
    return lacking


def _extract_batches(
    source: EmbeddingSource, lacking: Sequence[_Batch], options: ExtractConfig
) -> None:
    store = source.stores[PADDED_MEAN]
    backbone = load_backbone(source.name, source.asset.path, source.config, options.device)
    store.describe_model(backbone.shape)
    texts = [text for batch in lacking for text in batch.texts]
    tokens = iter(backbone.tokenize(texts, source.config))
    work = [_Work(batch, tuple(next(tokens) for _ in batch.texts)) for batch in lacking]
    work.sort(key=lambda item: -item.length)  # longest first: a lack of memory shows at once
    budget = options.token_budget or TOKEN_BUDGETS.get(backbone.device.type, TOKEN_BUDGET)
    with TokenBar(backbone.name, sum(item.cost for item in work)) as bar:
        for shard in cut_shards(work, options, lambda item: item.cost, PUBLISHED_BATCH):
            _extract_shard(backbone, store, shard, budget, bar)


@torch.inference_mode()
def padded_mean(backbone: Backbone, texts: Sequence[TokenizedText], length: int) -> Tensor:
    """The last hidden state of texts padded to a length, averaged over all of it, padding included.

    Padded on the tokenizer's own side with its pad token, or with `eos` where it has none.

    Returns:
        Shape: (texts, width), float32, on the CPU.
    """
    ids = [text.windows[0].ids for text in texts]
    left = backbone.tokenizer.padding_side == "left"
    padded = torch.full((len(ids), length), _pad_id(backbone), dtype=torch.int64)
    mask = torch.zeros_like(padded)
    for row, tokens in enumerate(ids):
        place = slice(length - len(tokens), None) if left else slice(len(tokens))
        padded[row, place] = torch.from_numpy(tokens.astype(np.int64))
        mask[row, place] = 1
    seen: list[Tensor] = []
    where, top = backbone.device, backbone.shape.layers[-1]
    backbone.forward(
        padded.to(where), mask.to(where), [top], lambda _, hidden: seen.append(hidden.float())
    )
    return seen[0].mean(dim=1).cpu()


def _pad_id(backbone: Backbone) -> int:
    tokenizer = backbone.tokenizer
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    known: int = backbone.model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    return backbone.pad_id if pad is None or pad >= known else pad


def _batches(texts: Sequence[str]) -> Iterator[_Batch]:
    for start in range(0, len(texts), PUBLISHED_BATCH):
        batch = tuple(texts[start : start + PUBLISHED_BATCH])
        hashes = [text_hash(text) for text in batch]
        addresses = []
        for row, own in enumerate(hashes):
            others = b"".join(hashes[:row] + hashes[row + 1 :])
            addresses.append(hashlib.blake2b(own + others, digest_size=16).digest())
        yield _Batch(batch, tuple(addresses))


def _passes(shard: Sequence[_Work], budget: int) -> Iterator[list[_Work]]:
    """Batches of one length, together while they stay within the budget."""
    together: list[_Work] = []
    for item in shard:
        cost = sum(other.cost for other in together) + item.cost
        if together and (item.length != together[0].length or cost > budget):
            yield together
            together = []
        together.append(item)
    yield together


def _extract_shard(
    backbone: Backbone, store: EmbeddingStore, shard: Sequence[_Work], budget: int, bar: TokenBar
) -> None:
    begun = time.perf_counter()
    vectors = []
    for together in _passes(shard, budget):
        texts = [text for item in together for text in item.tokens]
        vectors.append(padded_mean(backbone, texts, together[0].length).numpy())
        bar.update(sum(item.cost for item in together))
    rows = np.concatenate(vectors)
    top = backbone.shape.layers[-1]
    read = [text for item in shard for text in item.batch.texts]
    refuse_not_finite(backbone.name, top, rows, read)
    tokens = [text for item in shard for text in item.tokens]
    store.write(
        [address for item in shard for address in item.batch.addresses],
        {top: rows},
        TokenCounts.of(tokens),
        seconds=time.perf_counter() - begun,
    )
