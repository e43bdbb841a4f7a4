"""The layers that a selection may choose among, with their vectors on rows of train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.layers.layer_id import LayerId


@dataclass(frozen=True)
class Candidates:
    """What scores are computed from; nothing of validation or test is in it unless it is held out.

    Attributes:
        layers: what may be chosen.
        features: one tensor a layer. Shapes: (rows, width).
        labels: class indices. Shape: (rows,).
        fold_of: the fold that holds a row out, -1 where none does. Shape: (rows,).
        texts: of the rows.
        num_classes: number of classes of the data set.
        sources: backbone to its models and stores, for scores that need the model itself.
    """

    layers: tuple[LayerId, ...]
    features: tuple[Tensor, ...]
    labels: Tensor
    fold_of: Tensor
    texts: tuple[str, ...]
    num_classes: int
    sources: Mapping[str, Source]

    @property
    def models(self) -> dict[str, EmbeddingSource]:
        """The sources that texts can pass through again; lexical ones are none."""
        found = self.sources.items()
        return {name: source for name, source in found if isinstance(source, EmbeddingSource)}

    def position(self, layer: LayerId) -> int:
        """Place of a layer among the candidates."""
        return self.layers.index(layer)


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
        layers: in the order wanted.
        hashes: of the texts, in the order wanted.

    Returns:
        One tensor a layer. Shapes: (texts, width), float32.
    """
    wanted: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        wanted.setdefault((layer.backbone, layer.pooling), []).append(layer.layer)
    found = {
        (backbone, pooling): sources[backbone].stores[pooling].read(hashes, names)
        for (backbone, pooling), names in wanted.items()
    }
    return [torch.from_numpy(found[x.backbone, x.pooling][x.layer]) for x in layers]
