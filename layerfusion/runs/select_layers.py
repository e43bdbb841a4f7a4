"""Selects the layers of a job from its texts and models; nothing here reads test."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import TrainConfig
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.source import Source
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.layers.budget import Budget, measure
from layerfusion.layers.candidates import Candidates, all_layers, read_lazily
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import Predictions
from layerfusion.layers.score import find_score
from layerfusion.layers.scores import ScoreTable, compute_scores
from layerfusion.layers.selection import ProbedLayer, Selection, find_selection
from layerfusion.layers.similarity import linear_cka
from layerfusion.progress import STANDING
from layerfusion.statistics.intervals import bootstrap_interval
from layerfusion.texts import TextDataset
from layerfusion.texts.groups import units_of

log = logging.getLogger(__name__)

SIMILARITY_ROWS = 1000
"""Number of rows on which layers are compared, enough for two digits of the CKA."""
LEAST_ROWS = 4
"""Fewer rows have no debiased CKA."""

_selections: dict[str, Selection] = {}


def select(config: TrainConfig, dataset: TextDataset, sources: Mapping[str, Source]) -> Selection:
    """Select the layers of a job, and log why.

    Selections stay in memory, since jobs of a sweep that differ only in later steps share them.
    """
    specs = {
        name: {pooling: store.name for pooling, store in source.stores.items()}
        for name, source in sources.items()
    }
    key = json.dumps([dataset.coding, specs, asdict(config.layers), config.seed])
    if key not in _selections:
        _selections[key] = _select(config, dataset, sources)
    selection = _selections[key]
    scored = find_selection(config.layers.name).looks_at_labels
    for line in selection_lines(selection) if scored else selection.notes:
        log.info(line, extra=STANDING)
    return selection


def _select(config: TrainConfig, dataset: TextDataset, sources: Mapping[str, Source]) -> Selection:
    layers = all_layers(sources)
    budget = budget_of(config, dataset, sources)
    rule = find_selection(config.layers.name)
    if not rule.looks_at_labels:
        return rule.select(config.layers, ScoreTable(layers, {}), torch.empty(0, 0), budget)
    candidates = candidates_of(config, dataset, sources, layers_to_score(config, budget, layers))
    return select_scored(config, candidates, budget)[0]


def select_scored(
    config: TrainConfig, candidates: Candidates, budget: Budget
) -> tuple[Selection, ScoreTable]:
    """Select by scores among some candidates; return the selection and the scores."""
    rule = find_selection(config.layers.name)
    table = compute_scores(candidates, rule.scores(config.layers), config.layers, config.extract)
    selection = rule.select(config.layers, table, similarity_of(candidates), budget)
    return replace(selection, probes=probed_layers(table.layers, table.held_out)), table


def probed_layers(
    layers: Sequence[LayerId], held_out: Sequence[Predictions]
) -> tuple[ProbedLayer, ...]:
    """Sum up what the probes of some layers say of held-out rows; nothing where there are none."""
    found = []
    for layer, one in zip(layers if held_out else (), held_out, strict=True):
        text_of = None if one.text_of is None else one.text_of.numpy()
        right = one.right.double().numpy()
        low, high = bootstrap_interval(right, one.target.numpy(), text_of=text_of)
        found.append(ProbedLayer(layer, one.accuracy, low, high, one.log_loss))
    return tuple(found)


def layers_to_score(
    config: TrainConfig, budget: Budget, layers: Sequence[LayerId]
) -> Sequence[LayerId]:
    """Return the layers to score: those within the budget, or all if the score needs the last."""
    affordable = budget.affordable(layers)
    scores = map(find_score, find_selection(config.layers.name).scores(config.layers))
    return layers if any(score.passes_texts for score in scores) else affordable


def selection_lines(selection: Selection) -> list[str]:
    """Describe a selection, one line for each layer and note."""
    lines = [f"selected {choice.words}" for choice in selection.choices]
    return lines + list(selection.notes)


def budget_of(
    config: TrainConfig,
    dataset: TextDataset,
    sources: Mapping[str, Source],
    rows: np.ndarray | None = None,
    layers: Sequence[LayerId] | None = None,
) -> Budget:
    """Measure the costs of layers on train, and combine them with the limits of the config.

    Args:
        config: the job.
        dataset: its texts.
        sources: its models and lexical sources, by name.
        rows: train rows on which costs are measured; None means all.
        layers: layers that may be chosen, which must be stored for every row; None means all. After
            a pilot, the stores of other models and poolings contain only its sample.
    """
    texts = dataset.splits["train"].texts
    hashes = [text_hash(texts[row]) for row in (range(len(texts)) if rows is None else rows)]
    ordered = layers or all_layers(sources)
    poolings = {x.backbone: x.pooling for x in reversed(ordered)}  # the first pooling of each
    models = {name: measure(sources[name], hashes, held) for name, held in poolings.items()}
    return Budget(config.layers.budget, models)


def candidates_of(
    config: TrainConfig,
    dataset: TextDataset,
    sources: Mapping[str, Source],
    layers: Sequence[LayerId],
    rows: np.ndarray | None = None,
) -> Candidates:
    """Gather layers with labels and folds on train, or on validation if `layers.held_out` says so.

    Args:
        config: the job.
        dataset: its texts.
        sources: its models and lexical sources, by name.
        layers: layers that may be chosen.
        rows: rows of train; None means all.
    """
    train = dataset.splits["train"]
    rows = np.arange(len(train.texts)) if rows is None else rows
    texts = [train.texts[row] for row in rows]
    groups = None if train.groups is None else [train.groups[row] for row in rows]
    labels = np.asarray(train.labels)[rows]
    if config.layers.held_out == "validation":
        judge = dataset.splits["validation"]
        fold_of = torch.cat(
            [torch.full((len(texts),), -1), torch.zeros(len(judge.texts), dtype=torch.int64)]
        )
        texts = [*texts, *judge.texts]
        groups = None if groups is None else [*groups, *(judge.groups or ())]
        labels = np.concatenate([labels, np.asarray(judge.labels)])
    else:
        fold_of = stratified_folds(
            labels,
            units_of(texts, groups),
            config.layers.folds,
            seed=config.seed,
            names=dataset.label_names,
        )
    features = read_lazily(sources, layers, [text_hash(text) for text in texts])
    return Candidates(
        tuple(layers),
        features,
        torch.from_numpy(labels),
        fold_of,
        tuple(texts),
        len(dataset.label_names),
        sources,
        None if groups is None else tuple(groups),
    )


def similarity_of(candidates: Candidates) -> Tensor:
    """Compute the debiased linear CKA between candidates, on an even sample of their rows.

    Vectors are standardised, as for probes and fusion. Otherwise the few very large features of
    decoders would make all layers look alike. Too few rows show no two layers as alike.
    """
    rows = len(candidates.labels)
    if rows < LEAST_ROWS:
        return torch.eye(len(candidates.layers))
    places = torch.linspace(0, rows - 1, min(rows, SIMILARITY_ROWS)).round().long()
    sample = [[layer[places]] for layer in candidates.features]
    return linear_cka([Standardiser.fit(one)(one)[0] for one in sample])
