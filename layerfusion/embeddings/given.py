"""Sources whose vectors are computed elsewhere: by a server, a pipeline, or the writer of a file.

Such a source has one layer, `0`, and one pooling, `given`. Its vectors lie in a store like those of
a model, by the hashes of their texts. What they cost is not known, but for the time of a server or
a pipeline.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from layerfusion.config.job import AUTO, FLOAT16, FLOAT32, BackboneConfig, ExtractConfig
from layerfusion.embeddings.cache_key import (
    GIVEN,
    BackboneSpec,
    given_spec,
    stored_as,
    text_hash,
)
from layerfusion.embeddings.endpoint import Endpoint
from layerfusion.embeddings.gpus import gpu_turn
from layerfusion.embeddings.groups import lacking
from layerfusion.embeddings.latency import Latency, middle_length, needs_latency, write_latency
from layerfusion.embeddings.pipeline import Pipeline, open_pipeline
from layerfusion.embeddings.progress import TokenBar
from layerfusion.embeddings.shape import BATCH, ModelShape
from layerfusion.embeddings.store import FILLING, EmbeddingStore, TokenCounts
from layerfusion.embeddings.usage import note_name
from layerfusion.embeddings.vector_files import VectorFile
from layerfusion.errors import Unavailable, UserError

LAYER = "0"
"""The only layer of such a source."""
_UNLIMITED = 2**31
"""Number of tokens that stands for no known limit on the length of a text."""
AT_ONCE = 4096
"""Texts of a file whose vectors are in a shard."""
ALIKE = 8
"""Different texts from which on the same vector for all is no chance, as it may be for two texts of
the same words."""
TIMED_ALONE = 2
"""Texts that a server is asked for one by one where its latency for such texts is not known. The
first answer also takes the time of the connection."""


Giver = Endpoint | VectorFile | Pipeline
"""Who has the vectors."""


@dataclass(frozen=True)
class GivenSource:
    """A source of vectors from elsewhere, with the same interface as the layers of a model."""

    name: str
    config: BackboneConfig
    giver: Giver
    stores: Mapping[str, EmbeddingStore]
    cache: Path

    @property
    def origin(self) -> str:
        """Return where the vectors come from."""
        return self.giver.origin

    @property
    def store(self) -> EmbeddingStore:
        """Return the store of the vectors."""
        return self.stores[GIVEN]

    @property
    def shape(self) -> ModelShape:
        """Return a shape of one layer, whose width is known once there are vectors."""
        if self.store.shape is None:
            raise UserError(f"backbone {self.name}: nothing has been asked for yet")
        return self.store.shape

    def expected_shape(self) -> ModelShape:
        """Return the shape; its width is the one that is asked for, or 0, while it is unknown."""
        return self.store.shape or given_shape(self.config.dimensions or 0)

    def pass_lengths(self, tokens: Sequence[int]) -> list[int]:
        """Return an empty list, as nothing passes through a model of ours."""
        return []

    def extract(
        self,
        parts: Sequence[Sequence[str]],
        options: ExtractConfig,
        layers: Mapping[str, Sequence[str]] | None = None,
        left: Callable[[], float] = lambda: math.inf,
    ) -> None:
        """Get the vectors of the texts that the store lacks, and keep each answer at once.

        Processes that need vectors of one store take turns, so that none is asked for twice.

        Args:
            parts: the texts, as for a model.
            options: number of processes, and the number of this one.
            layers: layers to keep for each pooling; nothing is asked for if the one layer is not
                among them. None keeps it.
            left: gives the seconds that are left for a server or a pipeline.

        Raises:
            UserError: for a text without a vector of numbers, or with one of another width.
            OutOfTime: if no time is left before there are vectors of all texts; what there is, is
                kept.
        """
        self.store.refill = lambda: self.extract(parts, options, layers)
        if layers is not None and LAYER not in layers.get(GIVEN, ()):
            return
        texts = [text for part in parts for text in part]
        wanted = {GIVEN: [LAYER]}
        if not lacking(self.stores, texts, wanted, options):
            return
        device = options.device if isinstance(self.giver, Pipeline) else None
        # The GPU comes first: who fills the store then waits for nobody who waits for the store.
        with gpu_turn(device), FileLock(self.store.folder / FILLING):
            self.store.refresh()
            missing = lacking(self.stores, texts, wanted, options)
            with TokenBar(self.name, len(missing), "text") as bar:
                todo = list(missing.values())
                for done, vectors, seconds in self._given(todo, options.device, left):
                    self._keep(done, vectors, seconds)
                    bar.update(len(done))

    def _given(
        self, texts: Sequence[str], device: str, left: Callable[[], float]
    ) -> Iterator[tuple[Sequence[str], np.ndarray, float]]:
        """Yield some texts after the other with their vectors, and the seconds that these took."""
        if isinstance(self.giver, VectorFile):
            vectors = self.giver.find(texts)
            for start in range(0, len(texts), AT_ONCE):
                part = slice(start, start + AT_ONCE)
                yield texts[part], vectors[part], 0.0
            return
        lengths = [*map(len, texts)]
        timed = TIMED_ALONE if needs_latency(self.store.folder, lengths) else 0
        if timed:
            texts = _middling_first(texts, timed)
        start, seconds = 0, defaultdict[int, list[float]](list)
        if isinstance(self.giver, Pipeline):
            answers = self.giver.ask(texts, alone=timed, left=left, device=device)
        else:
            answers = self.giver.ask(texts, alone=timed, left=left)
        for answer in answers:
            count = len(answer.vectors)
            yield texts[start : start + count], answer.vectors, answer.seconds
            start += count
            seconds[count].append(answer.seconds)
        if timed:
            one, batch = ({LAYER: min(seconds[n])} if seconds[n] else {} for n in (1, BATCH))
            write_latency(Latency(middle_length(lengths), one, batch), self.store.folder)

    def _keep(self, texts: Sequence[str], vectors: np.ndarray, seconds: float) -> None:
        if len(texts) >= ALIKE and (vectors == vectors[0]).all():
            raise UserError(
                f"backbone {self.name}: {self.origin} has the same vector for {len(texts)}"
                " different texts, so that it cannot tell them apart"
            )
        known = self.store.shape
        asked = self.config.dimensions
        if known is None and asked not in (None, vectors.shape[1]):
            raise Unavailable(
                f"backbone {self.name}: {self.origin} gave vectors of {vectors.shape[1]} numbers,"
                f" and backbone.{self.name}.dimensions={asked} asks for {asked}",
                where=f"backbone {self.name}: {self.origin}",
            )
        if known is not None and known.width != vectors.shape[1]:
            raise Unavailable(
                f"backbone {self.name}: {self.origin} gave a vector of {vectors.shape[1]} numbers,"
                f" and earlier ones of {known.width}; if another model answers now, give it another"
                f" name in backbone.{self.name}.model, or remove {self.store.folder}",
                where=f"backbone {self.name}: {self.origin}",
            )
        self.store.describe_model(given_shape(vectors.shape[1]))
        none = np.zeros(len(texts), np.int64)
        hashes = [text_hash(text) for text in texts]
        counts = TokenCounts(none, none, none, none)
        self.store.write(hashes, {LAYER: vectors}, counts, seconds=seconds)


def _middling_first(texts: Sequence[str], count: int) -> list[str]:
    """Put a few texts of middling length in front of the others."""
    middle = sorted(texts, key=len)[max(0, (len(texts) - count) // 2) :][:count]
    return [*middle, *(text for text in texts if text not in middle)]


def given_shape(width: int) -> ModelShape:
    """Return the shape of vectors that are computed elsewhere."""
    return ModelShape((LAYER,), width, _UNLIMITED, 0, 0, (), (), is_given=True)


def giver_of(name: str, config: BackboneConfig, cache: Path, text: str) -> Giver:
    """Return what a backbone's settings name, without asking it yet.

    Raises:
        UserError: for a pipeline without the library that runs it.
    """
    if config.pipeline is not None:
        return open_pipeline(name, config, cache)
    return VectorFile(name, config, text, cache) if config.vectors else Endpoint(name, config)


def given_spec_of(giver: Giver, store_dtype: str) -> BackboneSpec:
    """Build the spec of the vectors of a server, a file or a pipeline.

    Args:
        giver: the server, the file or the pipeline.
        store_dtype: number format on disk, as in `extract.store_dtype`.

    Raises:
        UserError: if a file of vectors is not there.
    """
    # A classifier computes or reads those of a pipeline or a file again, and has to find the same.
    # Those of a server, which may have a price, it reads from the store, rounded as they are.
    auto = FLOAT16 if isinstance(giver, Endpoint) else FLOAT32
    stored = stored_as(store_dtype, auto)
    return given_spec(giver.identity, giver.config.template, stored)


def open_given(
    name: str, config: BackboneConfig, cache: Path, *, text: str, store_dtype: str = AUTO
) -> GivenSource:
    """Open the store of a source whose vectors are computed elsewhere. No server is asked yet.

    Args:
        name: name of the backbone.
        config: its settings, with `endpoint`, `vectors` or `pipeline`.
        cache: folder of the caches.
        text: column of the texts in a file of vectors.
        store_dtype: number format on disk.

    Raises:
        UserError: if a file of vectors or a pipeline is not there.
    """
    from layerfusion.embeddings.source import EMBEDDINGS

    giver = giver_of(name, config, cache, text)
    store = EmbeddingStore(cache / EMBEDDINGS, given_spec_of(giver, store_dtype))
    note_name(store.folder, name)
    return GivenSource(name, config, giver, {GIVEN: store}, cache)
