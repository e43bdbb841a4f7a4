"""Vectors of a pipeline of sentence-transformers, as that library gives them: one layer.

A pipeline may be more than a stack of layers: a table of word vectors, a text encoder with a
projection, a router between models. What it does with a text, prompts included, is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from itertools import chain, repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from layerfusion.assets import Asset, available, resolve
from layerfusion.assets.paths import content_identity, is_hub_id
from layerfusion.config.assets import SourceConfig
from layerfusion.config.job import BackboneConfig
from layerfusion.embeddings.backbone import choose_device
from layerfusion.embeddings.backbone_loading import quiet_transformers
from layerfusion.embeddings.endpoint import Answer
from layerfusion.embeddings.gpus import keep_gpu
from layerfusion.embeddings.shape import BATCH
from layerfusion.errors import OutOfTime, UserError, library_errors, short

PIECE = 1024
"""Texts that are given to the pipeline at once, and kept together."""


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of sentence-transformers, as a backbone's settings name it."""

    name: str
    """Name of the backbone."""
    config: BackboneConfig
    cache: Path
    _loaded: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """Device to the pipeline there, which `find` loads once."""

    @property
    def key(self) -> str:
        """Return the key of the config that names the pipeline, for messages."""
        return f"backbone.{self.name}.pipeline"

    @cached_property
    def asset(self) -> Asset:
        """Get its files, downloading them once if needed.

        Raises:
            UserError: if they cannot be had, are damaged, or would run code.
        """
        return resolve(self._sources, key=self.key, kind="pipeline", cache=self.cache)

    def present(self) -> Asset | None:
        """Find its files on this machine; None if `asset` would download them."""
        return available(self._sources, key=self.key, kind="pipeline", cache=self.cache)

    @cached_property
    def content(self) -> str:
        """Compute the sha256 of its files."""
        return content_identity(self.asset.path, self.cache, everywhere=True)

    @property
    def identity(self) -> str:
        """Name everything about the pipeline that the vectors depend on."""
        width = "" if self.config.dimensions is None else f" dimensions={self.config.dimensions}"
        return f"pipeline {self.asset.identity}{width}"

    @property
    def origin(self) -> str:
        """Return where its files come from, for readers."""
        there = self.present()
        return str(self.config.pipeline) if there is None else there.origin

    def ask(
        self, texts: Sequence[str], *, alone: int, left: Callable[[], float], device: str
    ) -> Iterator[Answer]:
        """Compute the vectors of texts, some after the other.

        Args:
            texts: the texts, without their template and without repeats.
            alone: number of the first texts that are passed one by one, and then a batch, so that
                their times are known.
            left: gives the seconds that are left for it; no texts are passed after that.
            device: device that the pipeline runs on.

        Yields:
            The vectors of the next texts.

        Raises:
            UserError: if it cannot be loaded, or gives no vector for a text.
            OutOfTime: if the time is over before all texts have vectors.
        """
        pipeline = self._load(device)
        sizes = chain(repeat(1, alone), repeat(BATCH, min(alone, 1)), repeat(PIECE))
        start = 0
        while start < len(texts):
            if left() <= 0:
                raise OutOfTime
            piece = texts[start : start + next(sizes)]
            begun = perf_counter()
            vectors = self._encoded(pipeline, piece)
            yield Answer(vectors, perf_counter() - begun)
            start += len(piece)

    def find(self, texts: Sequence[str], device: str) -> np.ndarray:
        """Compute the vectors of texts; the pipeline stays in memory. Shape: (texts, width).

        Raises:
            UserError: as `ask`.
        """
        if device not in self._loaded:
            self._loaded[device] = self._load(device)
        return self._encoded(self._loaded[device], texts)

    @property
    def _sources(self) -> list[SourceConfig]:
        place = str(self.config.pipeline)
        repository, _, revision = place.partition("@")
        found = [SourceConfig(path=place)]
        if is_hub_id(repository):
            found.append(SourceConfig(hub=repository, revision=revision or "main"))
        return found

    def _load(self, device: str) -> Any:
        folder = self.asset.path
        keep_gpu(device)
        chosen = str(choose_device(device))
        with library_errors(f"{self.key}: {folder} cannot be loaded"), quiet_transformers():
            from sentence_transformers import SentenceTransformer

            return SentenceTransformer(
                str(folder),
                device=chosen,
                local_files_only=True,
                truncate_dim=self.config.dimensions,
            )

    def _encoded(self, pipeline: Any, texts: Sequence[str]) -> np.ndarray:
        asked = [self.config.template.replace("{text}", text) for text in texts]
        failed = f"{self.key}: {self.asset.path} gives no vectors"
        with library_errors(failed), quiet_transformers():
            found = pipeline.encode(asked, batch_size=self.config.batch, show_progress_bar=False)
        vectors = np.asarray(found, np.float32)
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.shape[1]:
            raise UserError(f"{self.key}: {self.asset.path} gives no vector for each text")
        wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(wrong):
            raise UserError(
                f"{self.key}: {self.asset.path} gives no numbers for {short(texts[wrong[0]])}"
            )
        return vectors


def open_pipeline(name: str, config: BackboneConfig, cache: Path) -> Pipeline:
    """Return the pipeline that a backbone's settings name, without loading it.

    Raises:
        UserError: if sentence-transformers is not installed.
    """
    pipeline = Pipeline(name, config, cache)
    if find_spec("sentence_transformers") is None:
        raise UserError(
            f"{pipeline.key}: needs sentence-transformers; pip install 'layerfusion[pipelines]'"
        )
    return pipeline
