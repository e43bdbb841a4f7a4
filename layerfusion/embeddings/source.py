"""A configured backbone with its files and its stores: where vectors come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from layerfusion.assets import Asset, resolve
from layerfusion.config.assets import SourceConfig
from layerfusion.config.job import BackboneConfig, ExtractConfig, PoolingConfig
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.spec import BackboneSpec, backbone_spec
from layerfusion.embeddings.store import EmbeddingStore, TokenCounts
from layerfusion.errors import UserError

if TYPE_CHECKING:
    from layerfusion.embeddings.backbone import Backbone

EMBEDDINGS = "embeddings"
CALIBRATIONS = "calibrations.json"
TIMED_TEXTS = 200
"""Texts among which those of middling length are found."""


class Spec(Protocol):
    """All that changes a vector."""

    def canonical(self) -> str:
        """As canonical JSON."""
        ...


class Store(Protocol):
    """Vectors of texts by the texts' hashes."""

    @property
    def spec(self) -> Spec:
        """All that changes a vector."""
        ...

    @property
    def name(self) -> str:
        """The spec's hash."""
        ...

    def read(self, texts: Sequence[bytes], layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Layer to the vectors of some texts. Shapes: (texts, width), float32."""
        ...

    def tokens(self, texts: Sequence[bytes]) -> TokenCounts:
        """Tokens seen and cut."""
        ...

    def seconds_per_text(self, texts: Iterable[bytes], layer: str) -> float | None:
        """Measured time up to a layer; none where it was not measured."""
        ...

    def bytes_per_text(self, layers: Iterable[str]) -> float:
        """Bytes that some layers of a text take."""
        ...


class Source(Protocol):
    """Where vectors come from: the layers of a backbone, or something that is read like them."""

    @property
    def name(self) -> str:
        """In the config."""
        ...

    @property
    def origin(self) -> str:
        """For a reader."""
        ...

    @property
    def stores(self) -> Mapping[str, Store]:
        """Pooling to its store."""
        ...

    @property
    def cache(self) -> Path:
        """The folder of the caches."""
        ...

    @property
    def shape(self) -> ModelShape:
        """Its layers and what they cost."""
        ...

    def pass_lengths(self, tokens: Sequence[int]) -> list[int]:
        """Lengths that pass through the model for texts of so many tokens."""
        ...

    def extract(
        self,
        parts: Sequence[Sequence[str]],
        options: ExtractConfig,
        layers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Fill the stores with what they lack of some texts."""
        ...


@dataclass(frozen=True)
class EmbeddingSource:
    """A backbone's files, and one store a pooling."""

    name: str
    config: BackboneConfig
    poolings: Mapping[str, PoolingConfig]
    asset: Asset
    stores: Mapping[str, EmbeddingStore]
    cache: Path

    @property
    def origin(self) -> str:
        """Where its files come from."""
        return self.asset.origin

    @property
    def shape(self) -> ModelShape:
        """The model's shape; known once anything has been extracted."""
        for store in self.stores.values():
            if store.shape is not None:
                return store.shape
        raise UserError(f"backbone {self.name}: nothing has been extracted yet")

    def expected_shape(self) -> ModelShape:
        """The model's shape, read off its config where nothing has been extracted yet."""
        from layerfusion.embeddings.backbone import empty_shape

        known = (store.shape for store in self.stores.values() if store.shape is not None)
        return next(known, None) or empty_shape(self.name, self.asset.path, self.config)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text that the model will see, special ones included."""
        from layerfusion.embeddings.backbone import load_tokenizer
        from layerfusion.embeddings.tokens import tokenize

        tokenizer = load_tokenizer(self.name, self.asset.path, self.config)
        limit = self.expected_shape().max_length
        return [text.seen for text in tokenize(tokenizer, texts, self.config, limit)]

    def pass_lengths(self, tokens: Sequence[int]) -> list[int]:
        """Lengths that pass through the model for texts of so many tokens.

        Where long texts are read in windows there is one for each; their overlap is left out.
        """
        if self.config.long_texts == "truncate":
            return list(tokens)
        limit = self.expected_shape().max_length
        return [min(limit, n - start) for n in tokens for start in range(0, n, limit)]

    def extract(
        self,
        parts: Sequence[Sequence[str]],
        options: ExtractConfig,
        layers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Extract what the stores lack of some texts; the model is loaded only if they do.

        Args:
            parts: for example train, validation and test, each in any order, with any repeats.
                No two share a batch or a shard: the last bits of a vector depend on what it is
                padded beside, and its measured time on what it is measured with, so that those of
                train would depend on test.
            options: device and sizes.
            layers: pooling to the layers to keep; all where None.
        """
        from layerfusion.embeddings.extract import extract, lacking

        texts = [text for part in parts for text in part]
        if not lacking(self.stores, texts, layers, options):
            return
        from layerfusion.embeddings.backbone import load_backbone

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
            )
        self._time(backbone, texts)

    def _time(self, backbone: Backbone, texts: Sequence[str]) -> None:
        """Measure how long the model takes for a text and for a batch, once a store."""
        from layerfusion.embeddings.latency import measure_latency, read_latency, write_latency
        from layerfusion.embeddings.tokens import tokenize

        folders = [one.folder for one in self.stores.values() if read_latency(one.folder) is None]
        if not folders:
            return
        some = texts[:TIMED_TEXTS]
        tokens = tokenize(backbone.tokenizer, some, self.config, backbone.shape.max_length)
        latency = measure_latency(backbone, [one for text in tokens for one in text.windows])
        for folder in folders:
            write_latency(latency, folder)


def asset_sources(config: BackboneConfig) -> list[SourceConfig]:
    """Where a backbone's files come from: the user's folder, or else the configured sources."""
    return [SourceConfig(path=config.path)] if config.path else list(config.sources)


def open_source(
    name: str,
    config: BackboneConfig,
    poolings: Mapping[str, PoolingConfig],
    cache: Path,
    store_dtype: str = "auto",
) -> EmbeddingSource:
    """Fetch a backbone's files where they are missing, and open its stores.

    Raises:
        UserError: where no source can serve the files, or a store has another schema.
    """
    asset = resolve(asset_sources(config), key=f"backbone.{name}", kind="backbone", cache=cache)
    stores = {
        pooling: _open_store(
            cache / EMBEDDINGS,
            backbone_spec(
                config, how, model=asset.identity, folder=asset.path, store_dtype=store_dtype
            ),
        )
        for pooling, how in poolings.items()
    }
    return EmbeddingSource(name, config, dict(poolings), asset, stores, cache)


def _open_store(root: Path, spec: BackboneSpec) -> EmbeddingStore:
    """The store of a spec; the jobs of a sweep share it as long as its shards stay the same."""
    shards = sorted((root / spec.hash()).glob("*.safetensors"))
    states = [(path.name, path.stat()) for path in shards]
    listing = tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
    store = _opened(root, spec, listing)
    if store.shards == {name for name, _ in states} and listing:
        return store
    return EmbeddingStore(root, spec)  # it has grown since, or may have been taken away


@lru_cache(maxsize=32)
def _opened(root: Path, spec: BackboneSpec, _listing: tuple[object, ...]) -> EmbeddingStore:
    return EmbeddingStore(root, spec)
