"""Checks that a job's layers, folds and scores are possible, before hours of extraction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from layerfusion.config.job import AUTO, PLAIN, SCORED, STACKED, TrainConfig
from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.errors import UserError
from layerfusion.layers.backbone_scores import NEED_ATTENTION, require_attention
from layerfusion.layers.budget import Budget, ModelCost, expect, too_high
from layerfusion.layers.folds import require_folds
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.selection import select_plain
from layerfusion.texts import TextDataset

# Results are kept, since the jobs of a sweep ask for them again.
_giving_attention: set[str] = set()
"""Spec hashes of models known to return attention weights."""
_costs: dict[tuple[str, str], ModelCost] = {}
"""Expected cost of extracting train, by spec hash of a model and fingerprint of a data set."""


def require_possible(
    config: TrainConfig, dataset: TextDataset, sources: Mapping[str, Source]
) -> None:
    """Refuse layers, folds and scores that these models and texts cannot provide.

    Raises:
        UserError: if something is not possible; the message says what is.
    """
    models = {n: source for n, source in sources.items() if isinstance(source, EmbeddingSource)}
    if config.layers.name == "fixed":
        _require_fixed(config, models)
    elif config.layers.name == "top_k":
        _require_k(config, models, lexical=len(sources) - len(models))
    if config.layers.name in PLAIN and config.layers.budget.flops_per_text is not None:
        _require_affordable(config, dataset, models, lexical=len(sources) - len(models))
    train = dataset.splits["train"]
    judged_in_folds = config.layers.name in SCORED or config.fusion.name == STACKED
    if config.fusion.name == AUTO or (judged_in_folds and config.layers.held_out == "folds"):
        require_folds(np.asarray(train.labels), train.texts, config.layers.folds)
    scored = config.layers.name in SCORED and config.layers.name != "greedy"
    if scored and config.layers.score in NEED_ATTENTION:
        for source in models.values():
            spec = next(iter(source.stores.values())).name
            if spec not in _giving_attention:
                require_attention(source, train.texts[0], config.extract)
                _giving_attention.add(spec)


def _require_fixed(config: TrainConfig, models: Mapping[str, EmbeddingSource]) -> None:
    limits = config.layers.budget
    for name, source in models.items():
        shape = source.expected_shape()
        for asked in config.layers.fixed[name]:
            layer = shape.resolve(name, asked)
            if too_high(layer, shape, limits):
                raise UserError(
                    f"layers.budget (max_layer={limits.max_layer}): layers=fixed takes layer"
                    f" {layer} of {name}; fix lower ones"
                )


def _require_affordable(
    config: TrainConfig,
    dataset: TextDataset,
    models: Mapping[str, EmbeddingSource],
    *,
    lexical: int,
) -> None:
    """Check the limit of FLOPs, which follow from the tokens of train.

    A limit of milliseconds can only be checked after the forward passes.
    """
    if lexical and config.layers.name != "fixed":
        return  # a lexical source costs no FLOPs, so it may fit any limit
    layers = [
        LayerId(name, layer, pooling)
        for name, model in models.items()
        for pooling in model.stores
        for layer in model.expected_shape().layers
    ]
    costs = {}
    for name, model in models.items():
        key = next(iter(model.stores.values())).name, dataset.fingerprint
        if key not in _costs:
            _costs[key] = expect(model, dataset.splits["train"].texts)
        costs[name] = _costs[key]
    budget = Budget(replace(config.layers.budget, ms_per_text=None), costs)
    select_plain(config.layers, layers, budget)


def _require_k(config: TrainConfig, models: Mapping[str, EmbeddingSource], *, lexical: int) -> None:
    """Check that there are `layers.k` layers; each lexical source counts as one."""
    found = lexical + sum(
        len(source.expected_shape().layers) * len(source.stores) for source in models.values()
    )
    if config.layers.k > found:
        names = [*models, *config.lexical]
        raise UserError(
            f"layers.k={config.layers.k}: there are {found} layers to choose among,"
            f" of {', '.join(names)}"
        )
