"""Candidates: the layers that a selection may choose, with their vectors on rows of train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import overload

import torch
from torch import Tensor

from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.layers.layer_id import LayerId


@dataclass(frozen=True)
class Candidates:
    """The layers, vectors, labels and texts that scores are computed from.

    No row of test is among them. Rows of validation are, as held-out rows, only under
    `layers.held_out=validation`.

    Attributes:
        layers: the layers that may be chosen.
        features: the vectors of each layer, read when they are first asked for. Shapes: (rows,
            width).
        labels: class indices. Shape: (rows,).
        fold_of: the fold in which a row is held out, -1 if it never is. Shape: (rows,).
        texts: the text of each row.
        num_classes: number of classes of the data set.
        sources: name of each source to its stores, and its model for scores that need it.
    """

    layers: tuple[LayerId, ...]
    features: Sequence[Tensor]
    labels: Tensor
    fold_of: Tensor
    texts: tuple[str, ...]
    num_classes: int
    sources: Mapping[str, Source]

    @property
    def models(self) -> dict[str, EmbeddingSource]:
        """The language models among the sources; texts can pass through them again."""
        return {
            name: source
            for name, source in self.sources.items()
            if isinstance(source, EmbeddingSource)
        }

    def position(self, layer: LayerId) -> int:
        """Index of a layer among the candidates."""
        return self.layers.index(layer)

    def take(self, places: Sequence[int]) -> Candidates:
        """Return some of the candidates, by their positions, without reading their vectors."""
        return replace(
            self,
            layers=tuple(self.layers[n] for n in places),
            features=_Taken(self.features, places),
        )


class LayerVectors(Sequence[Tensor]):
    """The vectors of some layers, read from the stores when one of them is first asked for.

    The first layer of a store that is asked for brings the others of that store with it. A lexical
    source that is judged by its regression alone is never asked for, and need not be decomposed.

    Args:
        sources: backbone to its stores.
        layers: the layers.
        hashes: hashes of the texts to read.
    """

    def __init__(
        self, sources: Mapping[str, Source], layers: Sequence[LayerId], hashes: Sequence[bytes]
    ) -> None:
        self.sources = sources
        self.layers = layers
        self.hashes = hashes
        self._read: dict[LayerId, Tensor] = {}

    def __len__(self) -> int:
        """Return the number of layers."""
        return len(self.layers)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, place: int | slice) -> Tensor | Sequence[Tensor]:
        """Return the vectors of a layer. Shape: (texts, width), float32."""
        if isinstance(place, slice):
            return [self[n] for n in range(*place.indices(len(self)))]
        layer = self.layers[place]
        if layer not in self._read:
            together = [
                other
                for other in dict.fromkeys(self.layers)
                if (other.backbone, other.pooling) == (layer.backbone, layer.pooling)
            ]
            read = read_layers(self.sources, together, self.hashes)
            self._read |= zip(together, read, strict=True)
        return self._read[layer]


class _Taken(Sequence[Tensor]):
    """Some items of a sequence, by their positions."""

    def __init__(self, features: Sequence[Tensor], places: Sequence[int]) -> None:
        self.features = features
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, place: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(place, slice):
            return [self.features[n] for n in self.places[place]]
        return self.features[self.places[place]]


def all_layers(sources: Mapping[str, Source]) -> tuple[LayerId, ...]:
    """Every layer of every model under every pooling, bottom up."""
    return tuple(
        LayerId(name, layer, pooling)
        for name, source in sources.items()
        for pooling in source.stores
        for layer in source.shape.layers
    )


def read_layers(
    sources: Mapping[str, Source], layers: Sequence[LayerId], hashes: Sequence[bytes]
) -> list[Tensor]:
    """Read some layers, and nothing else, from the stores.

    Args:
        sources: backbone to its stores.
        layers: the layers to read.
        hashes: hashes of the texts to read.

    Returns:
        One tensor for each layer, in the order asked for. Shapes: (texts, width), float32.
    """
    wanted: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        wanted.setdefault((layer.backbone, layer.pooling), []).append(layer.layer)
    vectors = {
        (backbone, pooling): sources[backbone].stores[pooling].read(hashes, names)
        for (backbone, pooling), names in wanted.items()
    }
    return [torch.from_numpy(vectors[x.backbone, x.pooling][x.layer]) for x in layers]
