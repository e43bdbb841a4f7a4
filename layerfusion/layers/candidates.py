"""Candidates: the layers that a selection may choose, with their vectors on rows of train."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import overload

import torch
from torch import Tensor

from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.embeddings.standardise import largest_spread
from layerfusion.layers.layer_id import LayerId
from layerfusion.texts.groups import units_of
from layerfusion.texts.sampling import first_rows

LEAST_VARIATION = 0.05
"""A layer of which no feature deviates by this share of its size tells little of a text but
rounding: that of the first token in early layers. In a stack of emotions with such layers, a text
alone and beside others had probabilities that differ by 1.4e-5, and by 8e-7 without them."""
SPREAD_ROWS = 500
"""Rows on which the spread is measured."""


@dataclass(frozen=True)
class Candidates:
    """The layers, vectors, labels and texts that scores are computed from.

    No row of test is among them. Rows of validation are, as held-out rows, only under
    `layers.held_out=validation`.

    Attributes:
        layers: the layers that may be chosen.
        features: the vectors of each layer, read when they are first asked for. Shapes: (rows,
            width).
        labels: class indices, shape (rows,), or labels, shape (rows, labels): see `layers.labels`.
        fold_of: the fold in which a row is held out, -1 if it never is. Shape: (rows,).
        texts: the text of each row.
        num_classes: number of classes of the data set.
        sources: name of each source to its stores, and its model for scores that need it.
        groups: group of each row, None for a row without one; None if the data has no groups.
    """

    layers: tuple[LayerId, ...]
    features: Sequence[Tensor]
    labels: Tensor
    fold_of: Tensor
    texts: tuple[str, ...]
    num_classes: int
    sources: Mapping[str, Source]
    groups: tuple[str | None, ...] | None = None

    @cached_property
    def units(self) -> tuple[Hashable, ...]:
        """What tells apart the rows that are independent of one another: see `groups.units_of`."""
        return units_of(self.texts, self.groups)

    @property
    def models(self) -> dict[str, EmbeddingSource]:
        """The language models among the sources; texts can pass through them again."""
        return {
            name: source
            for name, source in self.sources.items()
            if isinstance(source, EmbeddingSource)
        }

    @cached_property
    def text_of(self) -> Tensor | None:
        """Number of the text, or group, of each row; None where no two rows share one.

        Shape: (rows,), int64.
        """
        if len(set(self.units)) == len(self.units):
            return None
        return torch.from_numpy(first_rows(self.units))

    def position(self, layer: LayerId) -> int:
        """Index of a layer among the candidates."""
        return self.layers.index(layer)

    def varying(self) -> list[int]:
        """Positions of the layers whose vectors differ enough between texts; all if none do."""
        rows = len(self.labels)
        sample = torch.linspace(0, rows - 1, min(rows, SPREAD_ROWS)).round().long()
        places = range(len(self.layers))
        return [n for n in places if self._varies(n, sample)] or [*places]

    def _varies(self, place: int, sample: Tensor) -> bool:
        if isinstance(self.sources[self.layers[place].backbone], LexicalSource):
            return True  # its vectors would have to be decomposed first
        return largest_spread(self.features[place][sample]) >= LEAST_VARIATION

    def take(self, places: Sequence[int]) -> Candidates:
        """Return some of the candidates, by their positions, without reading their vectors."""
        return replace(
            self,
            layers=tuple(self.layers[n] for n in places),
            features=LazyVectors(len(places), lambda place: self.features[places[place]]),
        )


class LazyVectors(Sequence[Tensor]):
    """Vectors of layers that are read when they are asked for.

    Args:
        size: number of layers.
        read: returns the vectors of a layer by its position. Shape: (rows, width), float32.
    """

    def __init__(self, size: int, read: Callable[[int], Tensor]) -> None:
        self._size = size
        self._read = read

    def __len__(self) -> int:
        """Return the number of layers."""
        return self._size

    @overload
    def __getitem__(self, place: int) -> Tensor: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, place: int | slice) -> Tensor | Sequence[Tensor]:
        """Return the vectors of a layer, or of several."""
        if isinstance(place, slice):
            return [self._read(n) for n in range(*place.indices(self._size))]
        return self._read(range(self._size)[place])


def read_lazily(
    sources: Mapping[str, Source], layers: Sequence[LayerId], hashes: Sequence[bytes]
) -> LazyVectors:
    """Read a store once one of its layers is asked for, and keep the vectors.

    The first layer of a store brings the others of that store with it. A lexical source that is
    judged by its regression alone is never asked for, and need not be decomposed.

    Args:
        sources: backbone to its stores.
        layers: the layers.
        hashes: hashes of the texts to read.
    """
    known: dict[LayerId, Tensor] = {}

    def read(place: int) -> Tensor:
        layer = layers[place]
        if layer not in known:
            store = layer.backbone, layer.pooling
            together = [one for one in layers if (one.backbone, one.pooling) == store]
            known.update(zip(together, read_layers(sources, together, hashes), strict=True))
        return known[layer]

    return LazyVectors(len(layers), read)


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
