"""Lexical sources: dense TF-IDF vectors of texts, which need no language model and see every word.

Trained heads fuse these vectors with the layers. Probes and stacks take the log-probabilities of a
classifier on the sparse counts in their place (`lexical_regression`, `lexical_bayes`). Unlike those
of a layer, the vectors depend on the texts that the counts were learned from, which are the texts
of train alone. Heads that are judged by folds therefore learn them again without each fold, once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from layerfusion.assets.memo import read_arrays, read_facts, write_arrays, write_facts
from layerfusion.config.job import BAYES, ExtractConfig, LexicalConfig
from layerfusion.embeddings.cache_key import TFIDF, text_hash
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.store import TokenCounts
from layerfusion.errors import UserError
from layerfusion.texts.tfidf import FEATURES, countable, counts_from, counts_state, tfidf

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

log = logging.getLogger(__name__)

VERSION = 2
"""Part of the cache key. Raise it with every change that gives other vectors."""
FOLDER = "lexical"
"""Folder of a cache that holds the vectors."""
LAYER = "0"
"""The only layer that a lexical source has."""
COMPARED = 100
"""Number of texts whose cached vectors are compared with newly computed ones."""
_UNLIMITED = 2**31
"""Number of tokens that stands for no limit on the length of a text."""
TIMED = 200
"""Number of texts on which the time of a text is measured."""


@dataclass(frozen=True)
class LexicalFit:
    """TF-IDF counts and the projection that makes them dense."""

    counts: TfidfVectorizer
    components: np.ndarray
    """The projection. Shape: (features, width)."""

    @classmethod
    def learn(cls, texts: Sequence[str], config: LexicalConfig) -> LexicalFit:
        """Learn the counts from all texts, and the projection from at most `basis_rows` of them.

        With fewer features than the width, the last columns are zero.

        The projection is a truncated SVD followed by a fixed random rotation. Standardising each
        singular direction would amplify those that hold only noise. Rotated directions have nearly
        equal spread, so that standardising keeps the geometry of TF-IDF.

        Raises:
            UserError: if the texts have no words to count, or there are too few of them.
        """
        from sklearn.decomposition import TruncatedSVD

        counts = tfidf(config.features, len(texts), config.max_features)
        with countable(config.features):
            sparse = counts.fit_transform(texts)
        width, possible = width_of(config, len(texts)), sparse.shape[1] - 1
        if min(width, possible) < 1:
            raise UserError(
                f"lexical: {sparse.shape[0]} texts of train with {sparse.shape[1]} different"
                f" {config.features} are too few"
            )
        rows = np.linspace(0, len(texts) - 1, min(len(texts), config.basis_rows)).astype(int)
        svd = TruncatedSVD(min(possible, width), n_iter=3, random_state=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # If all texts are alike, the explained share of the variance is 0 / 0.
            svd.fit(sparse[rows])
        directions = np.asarray(svd.components_)
        square = np.random.default_rng(0).normal(size=(len(directions), len(directions)))
        rotation = np.linalg.qr(square)[0]
        components = np.zeros((sparse.shape[1], width), dtype=np.float32)
        components[:, : len(directions)] = directions.T @ rotation
        return cls(counts, components)

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Compute dense vectors of any texts. Returned shape: (texts, width), float32."""
        return torch.from_numpy((self.counts.transform(texts) @ self.components).astype(np.float32))

    def state(self) -> tuple[dict[str, Tensor], list[str]]:
        """Return the tensors, and the vocabulary in the order of the features."""
        idf, vocabulary = counts_state(self.counts)
        arrays = {"idf": idf, "components": self.components}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, vocabulary

    @classmethod
    def from_state(
        cls, features: str, tensors: Mapping[str, Tensor], vocabulary: Sequence[str]
    ) -> LexicalFit:
        """Rebuild the fit from the parts that `state` returned."""
        counts = counts_from(features, tensors["idf"].numpy(), vocabulary)
        return cls(counts, tensors["components"].numpy())


def width_of(config: LexicalConfig, texts: int) -> int:
    """Return the width of vectors whose projection is learned from a number of texts."""
    return min(config.width, texts - 1, config.basis_rows - 1)


@dataclass(frozen=True)
class LexicalSpec:
    """Settings that, together with a text, determine its vector."""

    features: str
    width: int
    max_features: int
    basis_rows: int
    learned_from: str
    """sha256 of the texts that the counts are learned from, in their order."""
    version: int = VERSION

    def canonical(self) -> str:
        """Return the spec as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    def hash(self) -> str:
        """Return the first 16 hex digits of the sha256 of the canonical form."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]


class LexicalStore:
    """The lexical vectors of a data set, computed when they are first read and then cached.

    Args:
        config: settings of the counts and the projection.
        train: texts that the counts are learned from.
        texts: all texts of the data set.
        cache: folder of the caches.
    """

    def __init__(
        self, config: LexicalConfig, train: Sequence[str], texts: Sequence[str], cache: Path
    ) -> None:
        self.config = config
        self.train = list(train)
        self.texts = list(dict.fromkeys(texts))
        learned_from = hashlib.sha256(b"".join(map(text_hash, self.train))).hexdigest()
        settings = asdict(config)
        for key in ("description", "learner"):  # the vectors do not depend on them
            settings.pop(key)
        self.spec = LexicalSpec(learned_from=learned_from, **settings)
        self.folder = cache / FOLDER

    @property
    def name(self) -> str:
        """Return the hash of the spec."""
        return self.spec.hash()

    def read(self, texts: Sequence[bytes], layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Read the vectors of texts by their hashes. Shapes: (texts, width), float32."""
        vectors = self._cached[0].numpy()
        rows = [self._rows[text] for text in texts]
        return {layer: vectors[rows] for layer in layers}

    def tokens(self, texts: Sequence[bytes]) -> TokenCounts:
        """Return zeros, as no model sees a token and nothing is cut off."""
        none = np.zeros(len(texts), dtype=np.int64)
        return TokenCounts(none, none, none, none)

    def seconds_per_text(self, texts: Iterable[bytes], layer: str) -> float | None:
        """Return the time of counting and projecting a text, without the time of learning."""
        return self._seconds

    def bytes_per_text(self, layers: Iterable[str]) -> float:
        """Return the number of bytes of a vector."""
        return 4.0 * self.width

    @property
    def width(self) -> int:
        """Return the width of the vectors: the configured one, or less if train is too small."""
        return width_of(self.config, len(self.train))

    @property
    def parameters(self) -> int:
        """Return the number of parameters of the projection, which is learned if need be."""
        return self._cached[1]

    @cached_property
    def _rows(self) -> Mapping[bytes, int]:
        return {text_hash(text): row for row, text in enumerate(self.texts)}

    @cached_property
    def _seconds(self) -> float:
        """Read or measure the seconds for a text.

        The features of a sample are counted by their hashes and projected by a matrix of ones,
        which takes as long and needs nothing to be learned.
        """
        from sklearn.feature_extraction.text import HashingVectorizer

        sample = self.texts[:: max(1, len(self.texts) // TIMED)][:TIMED]
        digest = hashlib.sha256(self.spec.canonical().encode() + b"".join(map(text_hash, sample)))
        path = self.folder / f"{digest.hexdigest()[:32]}.json"
        kept = read_facts(path, "time of a lexical source")
        if kept is not None and isinstance(kept.get("seconds"), float):
            return kept["seconds"]
        counts: Any = HashingVectorizer(
            **FEATURES[self.config.features], n_features=self.config.max_features
        )
        ones = np.ones((self.config.max_features, self.width), dtype=np.float32)
        begun = time.perf_counter()
        _ = counts.transform(sample) @ ones
        seconds = (time.perf_counter() - begun) / len(sample)
        write_facts(path, {"seconds": seconds})
        return seconds

    @cached_property
    def _cached(self) -> tuple[Tensor, int]:
        """Read or compute the vectors and the number of parameters."""
        digest = hashlib.sha256(self.spec.canonical().encode() + b"".join(self._rows))
        path = self.folder / f"{digest.hexdigest()[:32]}.safetensors"
        kept = read_arrays(path, "lexical source")
        if kept is not None:
            arrays, facts = kept
            return torch.from_numpy(arrays["vectors"]), facts["parameters"]
        log.info("lexical: %s of %d texts …", self.config.features, len(self.train))
        fit = LexicalFit.learn(self.train, self.config)
        vectors = fit.vectors(self.texts)
        write_arrays(path, {"vectors": vectors.numpy()}, {"parameters": fit.components.size})
        return vectors, fit.components.size


@dataclass(frozen=True)
class LexicalSource:
    """A lexical source with the same interface as the layers of a model."""

    name: str
    config: LexicalConfig
    stores: Mapping[str, LexicalStore]
    cache: Path

    @property
    def origin(self) -> str:
        """Return a description, for readers, of where the vectors come from."""
        how = "naive Bayes on " if self.config.learner == BAYES else ""
        return f"{how}TF-IDF of {self.config.features} of train"

    @property
    def shape(self) -> ModelShape:
        """Return a shape of one layer and no blocks, without learning the projection."""
        return ModelShape((LAYER,), self.stores[TFIDF].width, _UNLIMITED, 0, 0, (), ())

    def pass_lengths(self, tokens: Sequence[int]) -> list[int]:
        """Return an empty list, as nothing passes through a model."""
        return []

    def extract(
        self,
        parts: Sequence[Sequence[str]],
        options: ExtractConfig,
        layers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Do nothing, as the vectors are computed when they are first read."""

    def refitted(self) -> LexicalFit:
        """Learn the counts and the projection again from the texts of train.

        Raises:
            UserError: if the result does not give the cached vectors, as can happen if another
                machine or version computed them.
        """
        store = self.stores[TFIDF]
        fit = LexicalFit.learn(store.train, self.config)
        sample = store.texts[:COMPARED]
        cached = store.read([text_hash(text) for text in sample], [LAYER])[LAYER]
        if not np.allclose(fit.vectors(sample).numpy(), cached, atol=1e-3):
            raise UserError(
                f"lexical {self.name}: the vectors in {store.folder} come from another machine and"
                " differ from those of this one; delete that folder and run the job again"
            )
        return fit

    def relearned(self, texts: Sequence[str], learned_from: Sequence[str]) -> Tensor:
        """Compute vectors of texts of the data set from counts learned on given texts.

        They are cached, since all heads of `fusion=auto` use the same folds.

        Args:
            texts: texts of the data set.
            learned_from: texts that the counts are learned from.

        Returns:
            The vectors. Shape: (texts, width), float32.
        """
        store = LexicalStore(self.config, learned_from, self.stores[TFIDF].texts, self.cache)
        return torch.from_numpy(store.read([text_hash(text) for text in texts], [LAYER])[LAYER])


def open_lexical(
    name: str, config: LexicalConfig, train: Sequence[str], texts: Sequence[str], cache: Path
) -> LexicalSource:
    """Open a lexical source of a data set. Nothing is computed before it is read.

    Args:
        name: name of the source in the config.
        config: settings of the counts and the projection.
        train: texts that the counts are learned from.
        texts: all texts of the data set.
        cache: folder of the caches.
    """
    return LexicalSource(name, config, {TFIDF: LexicalStore(config, train, texts, cache)}, cache)
