"""Checks that a job's layers, folds and scores are possible, before hours of extraction."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from layerfusion.config.job import AUTO, STACKS, TrainConfig
from layerfusion.embeddings.given import GivenSource
from layerfusion.embeddings.shape import ModelShape
from layerfusion.embeddings.source import EmbeddingSource, Source
from layerfusion.errors import UserError
from layerfusion.layers.backbone_scores import require_attention
from layerfusion.layers.budget import Budget, ModelCost, expect, too_high
from layerfusion.layers.folds import possible_folds
from layerfusion.layers.labels import COMPARES_CLASSES
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.score import Needs, find_score
from layerfusion.layers.scores import ScoreTable
from layerfusion.layers.selection import find_selection
from layerfusion.progress import STANDING
from layerfusion.texts import TextDataset
from layerfusion.texts.groups import has_groups

log = logging.getLogger(__name__)

# Results are kept, since the jobs of a sweep ask for them again.
_giving_attention: set[str] = set()
"""Spec hashes of models known to return attention weights."""
_costs: dict[tuple[str, str], ModelCost] = {}
"""Expected cost of extracting train, by spec hash of a model and fingerprint of a data set."""


def require_possible(
    config: TrainConfig, dataset: TextDataset, sources: Mapping[str, Source]
) -> list[str]:
    """Refuse layers, folds and scores that these models and texts cannot provide.

    Returns:
        Notes on what is done otherwise than the config says.

    Raises:
        UserError: if something is not possible; the message says what is.
    """
    models = {n: source for n, source in sources.items() if isinstance(source, EmbeddingSource)}
    _require_known_cost(config, sources)
    if config.layers.name == "fixed":
        _require_fixed(config, sources)
    elif config.layers.name == "top_k":
        _require_k(config, sources)
    rule = find_selection(config.layers.name)
    scores = [find_score(name) for name in rule.scores(config.layers)]
    if config.layers.pilot is not None and not rule.looks_at_labels:
        raise UserError(
            f"layers.pilot: layers={config.layers.name} needs no pilot; it goes with selections"
            " that look at labels, such as top_k, adaptive and greedy"
        )
    if not rule.looks_at_labels and config.layers.budget.flops_per_text is not None:
        _require_affordable(config, dataset, models, lexical=len(sources) - len(models))
    train = dataset.splits["train"]
    for score in scores:
        if score.compares_classes and dataset.multilabel:
            raise UserError(f"layers={config.layers.name}, score {score.name}: {COMPARES_CLASSES}")
    notes = []
    by_folds = rule.looks_at_labels and config.layers.held_out == "folds"
    if by_folds or config.fusion.name in (*STACKS, AUTO):
        notes += folds_notes(config, dataset)
    if any(score.needs == Needs.ATTENTION for score in scores):
        for source in models.values():
            spec = next(iter(source.stores.values())).name
            if spec not in _giving_attention:
                require_attention(source, train.texts[0], config.extract)
                _giving_attention.add(spec)
    return notes


def folds_notes(config: TrainConfig, dataset: TextDataset) -> list[str]:
    """Say where there are fewer folds than `layers.folds`, since no class has texts for so many.

    Raises:
        UserError: if no class has two different texts.
    """
    train, asked = dataset.splits["train"], config.layers.folds
    folds = possible_folds(np.asarray(train.labels), train.units, asked, seed=config.seed)
    if folds == asked:
        return []
    why = f"the largest class has {folds} different texts in train"
    if has_groups(train.units):
        why = "no more groups of train can be held out without all rows of some class"
    note = f"layers.folds={asked}: {folds} folds are dealt, as {why}"
    log.info(note, extra=STANDING)
    return [note]


def _require_known_cost(config: TrainConfig, sources: Mapping[str, Source]) -> None:
    """Refuse a limit on a cost of vectors from elsewhere that nobody can know."""
    limits = config.layers.budget
    for name, source in sources.items():
        if not isinstance(source, GivenSource):
            continue
        if limits.flops_per_text is not None:
            other = "" if config.backbone[name].vectors else "; layers.budget.ms_per_text limits it"
            raise UserError(
                f"layers.budget.flops_per_text: the vectors of {name} are computed elsewhere, so"
                f" nobody knows their FLOPs; leave {name} or the limit out{other}"
            )
        if limits.ms_per_text is not None and config.backbone[name].vectors:
            raise UserError(
                f"layers.budget.ms_per_text: the vectors of {name} come from a file, so their time"
                f" was not measured; leave {name} or the limit out"
            )


def _shape_of(source: Source) -> ModelShape:
    """Return the shape of a source, which may not have given a vector yet."""
    known_before = isinstance(source, (EmbeddingSource, GivenSource))
    return source.expected_shape() if known_before else source.shape


def _require_fixed(config: TrainConfig, sources: Mapping[str, Source]) -> None:
    limits = config.layers.budget
    for name, source in sources.items():
        shape = _shape_of(source)
        # Vectors from elsewhere and a lexical source have a single layer, which need not be named.
        for asked in config.layers.fixed.get(name, ()):
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
    rule = find_selection(config.layers.name)
    rule.select(config.layers, ScoreTable(tuple(layers), {}), torch.empty(0, 0), budget)


def _require_k(config: TrainConfig, sources: Mapping[str, Source]) -> None:
    """Check that there are `layers.k` layers."""
    found = sum(len(_shape_of(one).layers) * len(one.stores) for one in sources.values())
    if config.layers.k > found:
        raise UserError(
            f"layers.k={config.layers.k}: there are {found} layers to choose among,"
            f" of {', '.join(sources)}"
        )
