"""Sources of vectors: their interface, and a configured backbone with its files and stores."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from layerfusion.assets import Asset, resolve
from layerfusion.assets.models import is_causal
from layerfusion.assets.sentence import sentence_settings
from layerfusion.config.assets import SourceConfig
from layerfusion.config.job import AUTO, TRUNCATE, BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.cache_key import BackboneSpec, backbone_spec, model_identity, text_hash
from layerfusion.embeddings.gpus import gpu_turn
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.store import EmbeddingStore, TokenCounts
from layerfusion.embeddings.usage import note_name
from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.embeddings.backbone import Backbone
    from layerfusion.embeddings.tokens import UnknownTally

log = logging.getLogger(__name__)
EMBEDDINGS = "embeddings"
"""Folder of a cache that holds the stores."""
CALIBRATIONS = "calibrations.json"
"""File of a cache that holds the measured batch sizes."""
COUNTED_TEXTS = 10_000
"""Most texts by which the median length is found, for the latency measurement."""
TIMED_TEXTS = 200
"""Most texts of about this length that it gets."""


class Spec(Protocol):
    """Settings that, together with a text, determine its vectors."""

    def canonical(self) -> str:
        """Return the settings as canonical JSON."""
        ...


class Store(Protocol):
    """Vectors of texts, addressed by the hashes of the texts."""

    @property
    def spec(self) -> Spec:
        """Return the spec of the vectors."""
        ...

    @property
    def name(self) -> str:
        """Return the hash of the spec."""
        ...

    def read(self, texts: Sequence[bytes], layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Read the vectors of texts, by layer. Shapes: (texts, width), float32."""
        ...

    def tokens(self, texts: Sequence[bytes]) -> TokenCounts:
        """Count the tokens of each text that the model saw, and those that were cut off."""
        ...

    def seconds_per_text(self, texts: Iterable[bytes], layer: str) -> float | None:
        """Return the measured time of a pass up to a layer; None if it was not measured."""
        ...

    def bytes_per_text(self, layers: Iterable[str]) -> float:
        """Return the number of bytes that layers take on disk for one text."""
        ...


class Source(Protocol):
    """Interface of everything that gives vectors: the layers of a backbone, or lexical vectors."""

    @property
    def name(self) -> str:
        """Return the name of the source in the config."""
        ...

    @property
    def origin(self) -> str:
        """Return a description, for readers, of where the vectors come from."""
        ...

    @property
    def stores(self) -> Mapping[str, Store]:
        """Return the store of each pooling."""
        ...

    @property
    def cache(self) -> Path:
        """Return the folder of the caches."""
        ...

    @property
    def shape(self) -> ModelShape:
        """Return the layers and their cost."""
        ...

    def pass_lengths(self, tokens: Sequence[int]) -> list[int]:
        """Return the lengths of the passes for texts of the given numbers of tokens."""
        ...

    def extract(
        self,
        parts: Sequence[Sequence[str]],
        options: ExtractConfig,
        layers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Compute the vectors of the texts that the stores lack."""
        ...


@dataclass(frozen=True)
class EmbeddingSource:
    """A configured backbone: its files, and one store for each pooling."""

    name: str
    config: BackboneConfig
    poolings: Mapping[str, PoolingConfig]
    asset: Asset
    stores: Mapping[str, EmbeddingStore]
    cache: Path

    @property
    def origin(self) -> str:
        """Return where the files come from."""
        return self.asset.origin

    @property
    def shape(self) -> ModelShape:
        """Return the model's shape, which is known once anything has been extracted."""
        for store in self.stores.values():
            if store.shape is not None:
                return store.shape
        raise UserError(f"backbone {self.name}: nothing has been extracted yet")

    def expected_shape(self) -> ModelShape:
        """Return the model's shape, from the model's config if nothing has been extracted yet."""
        from layerfusion.embeddings.backbone_loading import empty_shape

        known = (store.shape for store in self.stores.values() if store.shape is not None)
        return next(known, None) or empty_shape(self.name, self.asset.path, self.config)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text that the model will see, special tokens included."""
        from layerfusion.embeddings.backbone_loading import load_tokenizer
        from layerfusion.embeddings.tokens import tokenize

        tokenizer = load_tokenizer(self.name, self.asset.path, self.config)
        limit = self.expected_shape().max_length
        found = tokenize(tokenizer, texts, self.config, limit, name=self.name)
        return [text.seen for text in found]

    def pass_lengths(self, tokens: Sequence[int]) -> list[int]:
        """Return the lengths of the passes for texts of the given numbers of tokens.

        If long texts are read in windows, each window is a pass. Overlap is not counted.
        """
        if self.config.long_texts == TRUNCATE:
            return list(tokens)
        limit = self.expected_shape().max_length
        return [min(limit, n - start) for n in tokens for start in range(0, n, limit)]

    def extract(
        self,
        parts: Sequence[Sequence[str]],
        options: ExtractConfig,
        layers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Extract the texts that the stores lack. The model is loaded only if there are any.

        A job of a sweep waits for a GPU first, if that is the device: see `gpu_turn`.

        Args:
            parts: for example train, validation and test, each in any order, with any repeats.
                Texts of two parts never share a batch or a shard. Otherwise the vectors of train
                would depend on test: the last bits of a vector depend on the other texts of its
                batch, and its measured time on those of its shard.
            options: device and sizes.
            layers: layers to keep for each pooling; None keeps all.
        """
        for store in self.stores.values():
            store.refill = lambda: self.extract(parts, options, layers)
        texts = [text for part in parts for text in part]
        if not self._lacks(texts, options, layers):
            self._tally(texts).warn()
            return
        with gpu_turn(options.device) as after_others:
            if after_others:
                for store in self.stores.values():
                    store.refresh()
            if not after_others or self._lacks(texts, options, layers):
                self._extract(parts, options, layers)
            else:
                self._tally(texts).warn()

    def _lacks(
        self,
        texts: Sequence[str],
        options: ExtractConfig,
        layers: Mapping[str, Sequence[str]] | None,
    ) -> bool:
        """Tell whether the model has to be loaded: for texts, or because it was never timed."""
        from layerfusion.embeddings.groups import lacking
        from layerfusion.embeddings.latency import lacks_latency

        untimed = any(lacks_latency(store.folder) for store in self.stores.values())
        return untimed or bool(lacking(self.stores, texts, layers, options))

    def _extract(
        self,
        parts: Sequence[Sequence[str]],
        options: ExtractConfig,
        layers: Mapping[str, Sequence[str]] | None,
    ) -> None:
        """Load the model, and extract the texts that the stores lack."""
        from layerfusion.embeddings.backbone_loading import load_backbone
        from layerfusion.embeddings.extract import extract

        texts = [text for part in parts for text in part]
        tally = self._tally(texts)
        backbone = load_backbone(self.name, self.asset.path, self.config, options.device)
        for part in parts:
            extract(
                backbone,
                self.stores,
                self.poolings,
                part,
                layers=layers,
                config=self.config,
                options=options,
                calibrations=self.cache / CALIBRATIONS,
                tally=tally,
            )
        tally.warn()
        self._time(backbone, texts)

    def _tally(self, texts: Iterable[str]) -> UnknownTally:
        """Count the unknown tokens of the texts that a store holds."""
        from layerfusion.embeddings.tokens import UnknownTally

        tally = UnknownTally(self.name)
        store = max(self.stores.values(), key=len, default=None)
        if store is not None:
            counts = store.tokens(store.holds({text_hash(text) for text in texts}))
            tally.add(counts.own, counts.unknown)
        return tally

    def _time(self, backbone: Backbone, texts: Sequence[str]) -> None:
        """Measure the latency of the model for each store that lacks it for such texts."""
        from layerfusion.embeddings.latency import measure_latency, needs_latency, write_latency

        store = max(self.stores.values(), key=len)
        some = [(text_hash(text), text) for text in texts[:: 1 + len(texts) // COUNTED_TEXTS]]
        held = store.holds([key for key, _ in some])  # other processes may extract the rest
        lengths = store.tokens(held).seen
        folders = [x.folder for x in self.stores.values() if needs_latency(x.folder, lengths)]
        if not held or not folders:
            return
        near = np.argsort(lengths, kind="stable")
        middle = len(near) // 2
        near = near[max(0, middle - TIMED_TEXTS // 2) : middle + TIMED_TEXTS // 2]
        text_of = dict(some)
        timed = backbone.tokenize([text_of[held[n]] for n in near], self.config)
        latency = measure_latency(backbone, timed)
        for folder in folders:
            write_latency(latency, folder)


def asset_sources(config: BackboneConfig) -> list[SourceConfig]:
    """Return the places to get a backbone's files from, which is the user's folder if it is set."""
    return [SourceConfig(path=config.path)] if config.path else list(config.sources)


def open_source(
    name: str,
    config: BackboneConfig,
    poolings: Mapping[str, PoolingConfig],
    cache: Path,
    store_dtype: str = AUTO,
) -> EmbeddingSource:
    """Fetch a backbone's files if they are missing, and open its stores.

    Raises:
        UserError: if the files cannot be had anywhere, or a store has another schema.
    """
    key = f"backbone.{name}"
    asset = resolve(asset_sources(config), key=key, kind="backbone", cache=cache)
    identity = model_identity(asset, config)
    poolings = poolings_that_see(name, asset.path, poolings)
    asked = sentence_settings(
        asset.path,
        key,
        max_length=config.max_length,
        template=config.template,
        pools=[how.pool for how in poolings.values()],
    )
    if asked:
        log.info(
            "%s: sentence-transformers would also apply, and this job does not: %s",
            name,
            "; ".join(asked),
        )
    stores = {
        pooling: _open_store(
            cache / EMBEDDINGS,
            backbone_spec(config, how, model=identity, folder=asset.path, store_dtype=store_dtype),
        )
        for pooling, how in poolings.items()
    }
    for store in stores.values():
        note_name(store.folder, name)
    return EmbeddingSource(name, config, dict(poolings), asset, stores, cache)


def poolings_that_see(
    name: str, folder: Path, poolings: Mapping[str, PoolingConfig]
) -> Mapping[str, PoolingConfig]:
    """Leave out the first token of a causal decoder, which sees no other, beside other poolings."""
    first = [pooling for pooling, how in poolings.items() if how.pool == "first"]
    if not first or len(first) == len(poolings) or not is_causal(folder):
        return poolings
    log.info(
        "%s: pooling %s is left out, as the first token of a causal model sees no other; alone,"
        " 'pooling=[first]' takes it",
        name,
        ", ".join(first),
    )
    return {pooling: how for pooling, how in poolings.items() if pooling not in first}


def _open_store(root: Path, spec: BackboneSpec) -> EmbeddingStore:
    """Open the store of a spec. Jobs of a sweep share it as long as its shards stay the same."""
    shards = sorted((root / spec.hash()).glob("*.safetensors"))
    # A link to nothing is no shard, and its texts are computed again.
    states = [(path.name, path.stat()) for path in shards if path.exists()]
    listing = tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
    store = _opened(root, spec, listing)
    if store.shards == {name for name, _ in states} and listing:
        return store
    return EmbeddingStore(root, spec)  # it has grown since, or was removed


@lru_cache(maxsize=32)
def _opened(root: Path, spec: BackboneSpec, _listing: tuple[object, ...]) -> EmbeddingStore:
    return EmbeddingStore(root, spec)
