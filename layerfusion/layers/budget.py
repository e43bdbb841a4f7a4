"""What layers cost to compute, and which selections a budget allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context

import numpy as np

from layerfusion.config.job import BudgetConfig
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.errors import UserError
from layerfusion.layers.layer_id import LayerId


@dataclass(frozen=True)
class ModelCost:
    """What passing the texts of train through one model costs, on average over the texts."""

    shape: ModelShape
    flops: Mapping[str, float]
    """Layer to the FLOPs of the pass up to it."""
    milliseconds: float | None
    """Of the pass through all blocks, as measured; none where it was not."""

    def ms(self, layer: str) -> float | None:
        """Milliseconds up to a layer, in proportion to the blocks.

        What comes before the blocks (tokens, embeddings, pooling) counts as one block.
        """
        if self.milliseconds is None:
            return None
        share = (1 + self.shape.blocks_run(layer)) / (1 + self.shape.num_blocks)
        return self.milliseconds * share


@dataclass(frozen=True)
class Cost:
    """Of some layers together: each model is passed up to the highest of its layers, once."""

    flops: float
    ms: float | None


def too_high(layer: str, shape: ModelShape, limits: BudgetConfig) -> bool:
    """Whether a layer lies above `max_layer`, which needs no measured cost to be known."""
    return limits.max_layer is not None and shape.blocks_below(layer) > limits.max_layer


def measure(source: Source, hashes: Sequence[bytes], pooling: str) -> ModelCost:
    """The cost of a model on some texts that are all in the store of a pooling."""
    shape = source.shape
    store = source.stores[pooling]
    lengths = source.pass_lengths(store.tokens(hashes).seen.tolist())
    seconds = store.seconds_per_text(hashes, shape.layers[-1])
    return ModelCost(
        shape, _mean_flops(shape, lengths, len(hashes)), 1000 * seconds if seconds else None
    )


def expect(source: EmbeddingSource, texts: Sequence[str]) -> ModelCost:
    """The same but for the time, from the texts' tokens, where nothing is extracted yet."""
    shape = source.expected_shape()
    lengths = source.pass_lengths(source.count_tokens(texts))
    return ModelCost(shape, _mean_flops(shape, lengths, len(texts)), milliseconds=None)


def _mean_flops(shape: ModelShape, lengths: Sequence[int], texts: int) -> dict[str, float]:
    return {layer: shape.flops(layer, lengths) / texts for layer in shape.layers}


class Budget:
    """The limits of a config, and the costs that they are held against.

    Args:
        config: the limits.
        models: backbone to its cost.
    """

    def __init__(self, config: BudgetConfig, models: Mapping[str, ModelCost]) -> None:
        self.config = config
        self.models = models

    def cost(self, layers: Sequence[LayerId]) -> Cost:
        """What some layers cost together."""
        highest: dict[str, str] = {}
        for layer in layers:
            shape = self.models[layer.backbone].shape
            other = highest.get(layer.backbone, layer.layer)
            highest[layer.backbone] = max(layer.layer, other, key=shape.layers.index)
        flops = sum(self.models[name].flops[top] for name, top in highest.items())
        times = [self.models[name].ms(top) for name, top in highest.items()]
        known = [time for time in times if time is not None]
        return Cost(flops, sum(known) if len(known) == len(times) else None)

    def allows(self, layers: Sequence[LayerId]) -> bool:
        """Whether some layers together stay within every limit.

        Raises:
            UserError: where milliseconds are limited and were never measured.
        """
        limits = self.config
        if any(too_high(x.layer, self.models[x.backbone].shape, limits) for x in layers):
            return False
        cost = self.cost(layers)
        if limits.ms_per_text is not None and cost.ms is None:
            raise UserError(
                "layers.budget.ms_per_text: no time was measured when these texts were extracted;"
                " limit layers.budget.flops_per_text instead"
            )
        return _within(cost.flops, limits.flops_per_text) and _within(cost.ms, limits.ms_per_text)

    def affordable(self, layers: Sequence[LayerId]) -> list[LayerId]:
        """The layers that the budget allows one by one.

        Raises:
            UserError: where it allows none, with what the cheapest one costs.
        """
        kept = [layer for layer in layers if self.allows([layer])]
        if not kept and layers:
            cheapest = min(layers, key=lambda layer: self.cost([layer]).flops)
            raise UserError(
                f"layers.budget ({self.limits()}) allows no layer: the cheapest is"
                f" {self.words([cheapest])}"
            )
        return kept

    def flops_that_allow(self, layers: Sequence[LayerId]) -> str:
        """A `flops_per_text` in three digits that some layers stay within: rounded up."""
        above = Context(prec=3, rounding=ROUND_CEILING)
        return f"{float(above.create_decimal_from_float(self.cost(layers).flops)):.3g}"

    def limits(self) -> str:
        """The limits that are set, in words."""
        limits = vars(self.config).items()
        return ", ".join(f"{name}={value:g}" for name, value in limits if value is not None)

    def words(self, layers: Sequence[LayerId]) -> str:
        """Layers and what they cost together."""
        cost = self.cost(layers)
        time = "" if cost.ms is None else f", {cost.ms:.2g} ms"
        names = ", ".join(f"layer {x.layer} of {x.backbone}" for x in layers)
        return f"{names} ({cost.flops:.3g} FLOPs{time} a text)"


def _within(value: float | None, limit: float | None) -> bool:
    return limit is None or (value is not None and bool(np.less_equal(value, limit)))
