"""`TextEmbedder`: layers of a frozen language model as a transformer of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from layerfusion.calls import check_params, plain_methods
from layerfusion.commands.overrides import NO_DATASET, config_of
from layerfusion.commands.python import embed
from layerfusion.embeddings.shape import layer_name
from layerfusion.estimators.rows import text_list
from layerfusion.runs.job_sources import open_backbones


@plain_methods
class TextEmbedder(TransformerMixin, BaseEstimator):
    """Turns texts into the vectors of a layer of a frozen language model.

    Nothing is learned: `fit` does nothing, and `transform` works without it. Vectors are kept in
    the cache by the content of the text, so that a grid search over a classifier behind it computes
    each text once.

    Args:
        model: a name in `conf/backbone`, a folder, or `owner/name` on the Hugging Face hub.
        layer: 0 is what enters the first block, i what leaves block i, `norm` the output of the
            final norm, -1 the last. A list of layers is put side by side.
        pooling: a name in `conf/pooling`; None for what a folder of sentence-transformers asks for,
            or else the mean.
        device: where the model runs: auto, cpu, cuda, cuda:1 or mps.
        cache: folder of vectors and downloads.
        settings: further settings by the names of the command line.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> pipeline = make_pipeline(TextEmbedder(model, 2, cache=cache), LogisticRegression())
        >>> pipeline.fit(texts, labels).predict(["a good film"]).shape
        (1,)
        >>> pipeline[0].get_feature_names_out()[:2].tolist()
        ['tiny:2:mean:0', 'tiny:2:mean:1']
    """

    def __init__(
        self,
        model: str | Path = "minilm",
        layer: str | int | Sequence[str | int] = -1,
        pooling: str | None = None,
        *,
        device: str = "auto",
        cache: str | Path = "outputs/cache",
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.layer = layer
        self.pooling = pooling
        self.device = device
        self.cache = cache
        self.settings = settings

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the texts; nothing is learned from them."""
        text_list(X, "fit")
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Compute the vectors of texts. Shape: (texts, width), float32.

        Raises:
            UserError: for an empty text, a layer that the model does not have, or a model that
                cannot be had.
        """
        check_params(self)
        texts = text_list(X, "transform")
        settings = {"extract.device": self.device, **(self.settings or {})}
        found = embed(
            texts, self.model, self._layers(), pooling=self.pooling, cache=self.cache, **settings
        )
        assert isinstance(found, dict)  # as a list of layers was asked for
        return np.concatenate(list(found.values()), axis=1)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the columns `MODEL:LAYER:POOLING:NUMBER`. Shape: (width,)."""
        keys = {"pooling": self.pooling, "cache": self.cache, **(self.settings or {})}
        config = config_of(NO_DATASET, self.model, keys)
        ((name, source),), (pooling,) = open_backbones(config).items(), config.pooling
        shape = source.expected_shape()
        layers = dict.fromkeys(layer_name(layer, shape.layers) for layer in self._layers())
        names = [
            f"{name}:{layer}:{pooling}:{number}"
            for layer in layers
            for number in range(shape.width)
        ]
        return np.array(names, dtype=object)

    def _layers(self) -> list[str | int]:
        layer = self.layer
        return [layer] if isinstance(layer, int | str | np.integer) else list(layer)

    def __sklearn_is_fitted__(self) -> bool:
        """Return True, as there is nothing to learn."""
        return True

    def __sklearn_tags__(self) -> Any:
        """Say that texts are read, in one dimension, and that nothing is learned."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.requires_fit = False
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = []  # vectors are float32
        return tags

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """Return the class and the parameters that differ from the defaults, in one line."""
        return " ".join(super().__repr__(N_CHAR_MAX).split())
