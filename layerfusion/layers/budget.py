"""Compute the cost of layers, and check it against the budget of a selection."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from layerfusion.config.job import BudgetConfig
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.errors import UserError
from layerfusion.layers.layer_id import LayerId


@dataclass(frozen=True)
class ModelCost:
    """Cost of passing a text of train through one model, as a mean over the texts."""

    shape: ModelShape
    flops: Mapping[str, float]
    """FLOPs of the pass up to each layer; infinite where they are not known, as of vectors that
    were computed elsewhere."""
    milliseconds: float | None
    """Measured time of the pass through all blocks; None if it was not measured."""

    def ms(self, layer: str) -> float | None:
        """Estimate the milliseconds of a pass up to a layer, in proportion to the blocks.

        We count all work outside the blocks (tokens, embeddings, pooling) as one more block.
        """
        if self.milliseconds is None:
            return None
        share = (1 + self.shape.blocks_run(layer)) / (1 + self.shape.num_blocks)
        return self.milliseconds * share


@dataclass(frozen=True)
class Cost:
    """Cost of some layers together: one pass of each model, up to its highest selected layer."""

    flops: float
    """Infinite where they are not known, so that no limit allows them and nothing is dearer."""
    ms: float | None

    @property
    def known_flops(self) -> float | None:
        """Return the FLOPs; None where they are not known."""
        return self.flops if math.isfinite(self.flops) else None


def too_high(layer: str, shape: ModelShape, limits: BudgetConfig) -> bool:
    """Return true for a layer above `max_layer`; this needs no measured cost."""
    return limits.max_layer is not None and shape.blocks_below(layer) > limits.max_layer


def measure(source: Source, hashes: Sequence[bytes], pooling: str) -> ModelCost:
    """Look up the cost of a model on texts that the store of a pooling already holds."""
    shape = source.shape
    store = source.stores[pooling]
    lengths = source.pass_lengths(store.tokens(hashes).seen.tolist())
    seconds = store.seconds_per_text(hashes, shape.layers[-1])
    return ModelCost(
        shape, _mean_flops(shape, lengths, len(hashes)), 1000 * seconds if seconds else None
    )


def expect(source: EmbeddingSource, texts: Sequence[str]) -> ModelCost:
    """Estimate the cost of a model from the number of tokens, before anything is extracted.

    The time stays unknown.
    """
    shape = source.expected_shape()
    lengths = source.pass_lengths(source.count_tokens(texts))
    return ModelCost(shape, _mean_flops(shape, lengths, len(texts)), milliseconds=None)


def _mean_flops(shape: ModelShape, lengths: Sequence[int], texts: int) -> dict[str, float]:
    return {layer: shape.flops(layer, lengths) / texts for layer in shape.layers}


class Budget:
    """The limits of a config and the costs of the models, which decide if layers are allowed.

    Args:
        config: the limits.
        models: cost of each backbone.
        in_time: most FLOPs a text for which there is time; those that are not known do not count.
        too_slow: backbones for which there is no time at all.
    """

    def __init__(
        self,
        config: BudgetConfig,
        models: Mapping[str, ModelCost],
        *,
        in_time: float = math.inf,
        too_slow: Collection[str] = (),
    ) -> None:
        self.config = config
        self.models = models
        self.in_time = in_time
        self.too_slow = frozenset(too_slow)

    def cost(self, layers: Sequence[LayerId]) -> Cost:
        """Compute the cost of layers together."""
        highest = self._highest(layers)
        flops = sum(self.models[name].flops[top] for name, top in highest.items())
        times = [self.models[name].ms(top) for name, top in highest.items()]
        known = [time for time in times if time is not None]
        return Cost(flops, sum(known) if len(known) == len(times) else None)

    def _highest(self, layers: Sequence[LayerId]) -> dict[str, str]:
        """Name the highest of some layers, by backbone."""
        highest: dict[str, str] = {}
        for layer in layers:
            shape = self.models[layer.backbone].shape
            other = highest.get(layer.backbone, layer.layer)
            highest[layer.backbone] = max(layer.layer, other, key=shape.layers.index)
        return highest

    def allows(self, layers: Sequence[LayerId]) -> bool:
        """Return true if layers together stay within every limit.

        Raises:
            UserError: if milliseconds are limited but were never measured.
        """
        limits = self.config
        if any(too_high(x.layer, self.models[x.backbone].shape, limits) for x in layers):
            return False
        if not self.has_time_for(layers):
            return False
        cost = self.cost(layers)
        if limits.ms_per_text is not None and cost.ms is None:
            raise UserError(
                "layers.budget.ms_per_text: no time was measured when these texts were extracted;"
                " limit layers.budget.flops_per_text instead"
            )
        return _within(cost.flops, limits.flops_per_text) and _within(cost.ms, limits.ms_per_text)

    def has_time_for(self, layers: Sequence[LayerId]) -> bool:
        """Return true if there is time for layers together, whatever the other limits are."""
        highest = self._highest(layers)
        if self.too_slow & highest.keys():
            return False
        each = [self.models[name].flops[top] for name, top in highest.items()]
        return sum(filter(math.isfinite, each)) <= self.in_time

    def within(self, flops: float) -> Budget:
        """Return this budget with at most so many FLOPs a text."""
        limit = self.config.flops_per_text
        least = flops if limit is None else min(flops, limit)
        config = replace(self.config, flops_per_text=least)
        return Budget(config, self.models, in_time=self.in_time, too_slow=self.too_slow)

    def limited_by_time(self, flops: float, too_slow: Collection[str]) -> Budget:
        """Return this budget with what there is time for: see the arguments of the class."""
        return Budget(self.config, self.models, in_time=flops, too_slow=too_slow)

    def affordable(self, layers: Sequence[LayerId]) -> list[LayerId]:
        """List the layers that the budget allows, each taken alone.

        Raises:
            UserError: if it allows none; the message names the cost of the cheapest layer.
        """
        allowed = [layer for layer in layers if self.allows([layer])]
        if not allowed and layers:
            cheapest = min(layers, key=lambda layer: self.cost([layer]).flops)
            raise UserError(
                f"layers.budget ({self.limits()}) allows no layer: the cheapest is"
                f" {self.words([cheapest])}"
            )
        return allowed

    def limits(self) -> str:
        """Return the limits that are set, for messages, as in `max_layer=3, ms_per_text=2`."""
        limits = vars(self.config).items()
        words = [f"{name}={value:g}" for name, value in limits if value is not None]
        if math.isfinite(self.in_time):
            words.append(f"time for {self.in_time:.3g} FLOPs a text")
        return ", ".join(words)

    def words(self, layers: Sequence[LayerId]) -> str:
        """Describe layers and their cost together, for messages."""
        cost = self.cost(layers)
        time = "" if cost.ms is None else f", {cost.ms:.2g} ms"
        names = ", ".join(f"layer {x.layer} of {x.backbone}" for x in layers)
        flops = "unknown" if cost.known_flops is None else f"{cost.flops:.3g}"
        return f"{names} ({flops} FLOPs{time} a text)"


def _within(value: float | None, limit: float | None) -> bool:
    return limit is None or (value is not None and bool(np.less_equal(value, limit)))
