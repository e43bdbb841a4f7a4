"""Which layers of which models become sources of the fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from layerfusion.config import LayersConfig
from layerfusion.embeddings.shape import ModelShape
from layerfusion.layers.layer_id import LayerId


@dataclass(frozen=True)
class Choice:
    """A selected layer and why it was selected."""

    layer: LayerId
    reason: str


Selection = tuple[Choice, ...]


def select(
    config: LayersConfig, shapes: Mapping[str, ModelShape], poolings: Sequence[str]
) -> Selection:
    """Select layers of several models at once; every pooling of a layer is a source of its own.

    Args:
        config: `last`, `all` or `fixed` with its layers.
        shapes: backbone to its shape, in the order the sources shall have.
        poolings: names of the poolings.

    Raises:
        UserError: for a layer that a model does not have.
    """
    chosen: list[tuple[str, str, str]] = []
    for backbone, shape in shapes.items():
        if config.name == "last":
            chosen.append((backbone, shape.layers[-1], "the last layer"))
        elif config.name == "all":
            chosen += [(backbone, layer, "all layers") for layer in shape.layers]
        else:
            asked = dict.fromkeys(
                shape.resolve(backbone, layer) for layer in config.fixed.get(backbone, ())
            )
            chosen += [(backbone, layer, "fixed by the user") for layer in asked]
    return tuple(
        Choice(LayerId(backbone, layer, pooling), reason)
        for backbone, layer, reason in chosen
        for pooling in poolings
    )
