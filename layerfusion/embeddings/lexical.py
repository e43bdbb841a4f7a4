"""Lexical sources: texts as dense TF-IDF vectors, which need no language model and see every word.

Unlike a layer's, these vectors depend on the texts that the counts were learned from: those of
train, and nothing else. A judgement by folds therefore learns them anew without the fold, once.
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

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

from layerfusion.assets.memo import read_arrays, write_arrays
from layerfusion.config.job import ExtractConfig, LexicalConfig
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.spec import TFIDF, text_hash
from layerfusion.embeddings.store import TokenCounts
from layerfusion.errors import UserError
from layerfusion.texts.tfidf import tfidf

log = logging.getLogger(__name__)

VERSION = 1
"""Raised with any change that changes a vector."""
FOLDER = "lexical"
"""Folder of a cache that the vectors are kept in."""
LAYER = "0"
"""The only layer that a lexical source has."""
COMPARED = 100
"""Texts by which vectors that were kept are compared with those that come out now."""
_UNLIMITED = 2**31


@dataclass(frozen=True)
class LexicalFit:
    """TF-IDF counts and the projection that makes them dense."""

    counts: TfidfVectorizer
    components: np.ndarray
    """Shape: (features, width)."""

    @classmethod
    def learn(cls, texts: Sequence[str], config: LexicalConfig) -> LexicalFit:
        """Learn the counts, and the projection from at most `basis_rows` of the texts.

        The projection is a truncated SVD followed by a fixed random rotation: standardising the
        singular directions one by one would blow up those that hold only noise, while rotated
        ones have nearly equal spread, so that standardising keeps the geometry of TF-IDF.

        Raises:
            UserError: where the texts have no words to count.
        """
        counts = tfidf(config.features, len(texts), config.max_features)
        try:
            sparse = counts.fit_transform(texts)
        except ValueError as error:  # scikit-learn's word for an empty vocabulary
            raise UserError(f"lexical: no {config.features} of train to count: {error}") from error
        width = min(config.width, *(size - 1 for size in sparse.shape))
        if width < 1:
            raise UserError(
                f"lexical: {sparse.shape[0]} texts of train with {sparse.shape[1]} different"
                f" {config.features} are too few"
            )
        rows = np.linspace(0, len(texts) - 1, min(len(texts), config.basis_rows)).astype(int)
        svd = TruncatedSVD(min(width, len(rows) - 1), n_iter=3, random_state=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            # Texts that are all alike have no variance for it to explain a share of.
            svd.fit(sparse[rows])
        directions = np.asarray(svd.components_)
        square = np.random.default_rng(0).normal(size=(len(directions), len(directions)))
        rotation = np.linalg.qr(square)[0]
        return cls(counts, (directions.T @ rotation).astype(np.float32))

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """Dense vectors of any texts. Shape: (texts, width), float32."""
        return torch.from_numpy((self.counts.transform(texts) @ self.components).astype(np.float32))

    def state(self) -> tuple[dict[str, Tensor], list[str]]:
        """What it is made of: tensors, and what is counted in the order of their features."""
        vocabulary = sorted(self.counts.vocabulary_, key=self.counts.vocabulary_.__getitem__)
        idf = torch.from_numpy(np.ascontiguousarray(self.counts.idf_))
        return {"idf": idf, "components": torch.from_numpy(self.components)}, vocabulary

    @classmethod
    def from_state(
        cls, features: str, tensors: Mapping[str, Tensor], vocabulary: Sequence[str]
    ) -> LexicalFit:
        """What `state` took apart."""
        counts = tfidf(features, rows=0)
        counts.set_params(vocabulary=list(vocabulary))
        counts.idf_ = tensors["idf"].numpy()
        return cls(counts, tensors["components"].numpy())


@dataclass(frozen=True)
class LexicalSpec:
    """A text's vector is a pure function of this and the text."""

    features: str
    width: int
    max_features: int
    basis_rows: int
    learned_from: str
    """sha256 of the texts of train, in their order."""
    version: int = VERSION

    def canonical(self) -> str:
        """The spec as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    def hash(self) -> str:
        """The first 16 hex digits of the sha256 of the canonical form."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:16]


class LexicalStore:
    """The vectors of the texts of a data set, computed at the first reading and kept.

    Args:
        config: what is counted.
        train: texts that it is learned from.
        texts: all texts of the data set.
        cache: the folder of the caches.
    """

    def __init__(
        self, config: LexicalConfig, train: Sequence[str], texts: Sequence[str], cache: Path
    ) -> None:
        self.config = config
        self.train = list(train)
        self.texts = list(dict.fromkeys(texts))
        learned_from = hashlib.sha256(b"".join(map(text_hash, self.train))).hexdigest()
        settings = asdict(config)
        settings.pop("description")
        self.spec = LexicalSpec(learned_from=learned_from, **settings)
        self.folder = cache / FOLDER

    @property
    def name(self) -> str:
        """The spec's hash."""
        return self.spec.hash()

    def read(self, texts: Sequence[bytes], layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Gather vectors by the hashes of their texts. Layer to (texts, width), float32."""
        vectors = self._kept[0].numpy()
        rows = [self._rows[text] for text in texts]
        return {layer: vectors[rows] for layer in layers}

    def tokens(self, texts: Sequence[bytes]) -> TokenCounts:
        """No model sees a token of it, and nothing is cut."""
        none = np.zeros(len(texts), dtype=np.int64)
        return TokenCounts(none, none)

    def seconds_per_text(self, texts: Iterable[bytes], layer: str) -> float | None:
        """Time that counting and projecting took a text, learning left out."""
        return self._kept[1]

    def bytes_per_text(self, layers: Iterable[str]) -> float:
        """Bytes of a vector."""
        return 4.0 * self.width

    @property
    def width(self) -> int:
        """Width of the vectors: as asked for, or less where train has fewer texts or words."""
        return self._kept[0].shape[1]

    @property
    def parameters(self) -> int:
        """Numbers that the projection has."""
        return self._kept[2]

    @cached_property
    def _rows(self) -> Mapping[bytes, int]:
        return {text_hash(text): row for row, text in enumerate(self.texts)}

    @cached_property
    def _kept(self) -> tuple[Tensor, float, int]:
        """Vectors, seconds a text and parameters of the projection."""
        digest = hashlib.sha256(self.spec.canonical().encode() + b"".join(self._rows))
        path = self.folder / f"{digest.hexdigest()[:32]}.safetensors"
        kept = read_arrays(path, "lexical source")
        if kept is not None:
            arrays, facts = kept
            return torch.from_numpy(arrays["vectors"]), facts["seconds"], facts["parameters"]
        log.info("lexical: %s of %d texts …", self.config.features, len(self.train))
        fit = LexicalFit.learn(self.train, self.config)
        begun = time.perf_counter()
        vectors = fit.vectors(self.texts)
        seconds = (time.perf_counter() - begun) / len(self.texts)
        facts = {"seconds": seconds, "parameters": fit.components.size}
        write_arrays(path, {"vectors": vectors.numpy()}, facts)
        return vectors, seconds, fit.components.size


@dataclass(frozen=True)
class LexicalSource:
    """A lexical source under the same interface as a model's layers."""

    name: str
    config: LexicalConfig
    stores: Mapping[str, LexicalStore]
    cache: Path

    @property
    def origin(self) -> str:
        """For a reader."""
        return f"TF-IDF of {self.config.features} of train"

    @property
    def shape(self) -> ModelShape:
        """One layer and no blocks."""
        store = self.stores[TFIDF]
        size = store.parameters
        return ModelShape((LAYER,), store.width, _UNLIMITED, size, size, (), ())

    def pass_lengths(self, tokens: Sequence[int]) -> list[int]:
        """Nothing passes through a model."""
        return []

    def extract(
        self,
        parts: Sequence[Sequence[str]],
        options: ExtractConfig,
        layers: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Nothing to do ahead: the vectors are computed when they are first read."""

    def refitted(self) -> LexicalFit:
        """What its vectors are made by, learned again from the texts of train.

        Raises:
            UserError: where it does not give the vectors that were kept, which another machine or
                version then made.
        """
        store = self.stores[TFIDF]
        fit = LexicalFit.learn(store.train, self.config)
        some = store.texts[:COMPARED]
        kept = store.read([text_hash(text) for text in some], [LAYER])[LAYER]
        if not np.allclose(fit.vectors(some).numpy(), kept, atol=1e-3):
            raise UserError(
                f"lexical {self.name}: the vectors in {store.folder} were made elsewhere and do not"
                " come out the same here; delete that folder and run the job again"
            )
        return fit

    def relearned(self, texts: Sequence[str], learned_from: Sequence[str]) -> Tensor:
        """Vectors of some texts of the data set, learned from some alone. Shape: (texts, width).

        They are kept: the probes that judge a source and the heads of `fusion=auto` have the same
        folds.
        """
        store = LexicalStore(self.config, learned_from, self.stores[TFIDF].texts, self.cache)
        return torch.from_numpy(store.read([text_hash(text) for text in texts], [LAYER])[LAYER])


def open_lexical(
    name: str, config: LexicalConfig, train: Sequence[str], texts: Sequence[str], cache: Path
) -> LexicalSource:
    """A lexical source of a data set; nothing is computed before it is read.

    Args:
        name: in the config.
        config: what is counted.
        train: texts that it is learned from.
        texts: all texts of the data set.
        cache: the folder of the caches.
    """
    return LexicalSource(name, config, {TFIDF: LexicalStore(config, train, texts, cache)}, cache)
