"""Computes a layer profile: scores and similarities of all layers, and every selection."""

from __future__ import annotations

import datetime
import itertools
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from layerfusion.assets.files import refuse_foreign
from layerfusion.config.check import refuse_time_limit, require_honest
from layerfusion.config.identity import code_of_profile, profile_id, refuse_other_job, sweep_of
from layerfusion.config.job import LayersConfig, TrainConfig
from layerfusion.embeddings.source import Source
from layerfusion.errors import UserError
from layerfusion.layers.budget import Budget
from layerfusion.layers.candidates import all_layers
from layerfusion.layers.complementarity import complementarity
from layerfusion.layers.scores import ScoreTable, compute_scores, groups, oriented
from layerfusion.layers.selection import (
    Choice,
    Selection,
    behind,
    find_selection,
    select_plain,
)
from layerfusion.records.json_files import DamagedRecord, may_be_record
from layerfusion.records.profile import (
    BEST_BY,
    PROFILE,
    BackboneProfile,
    LayerProfile,
    ModelPair,
    Profile,
    ScoreFacts,
    SelectionProfile,
    read_profile,
    write_profile,
)
from layerfusion.runs.job_sources import extract_all, open_backbones, open_sources
from layerfusion.runs.job_texts import dataset_of
from layerfusion.runs.judge import Judge
from layerfusion.runs.long_texts import settled
from layerfusion.runs.multi_layer import fit_multi_layer_probes
from layerfusion.runs.preflight import folds_notes
from layerfusion.runs.recording import data_record, versions
from layerfusion.runs.select_layers import budget_of, candidates_of, similarity_of
from layerfusion.texts import TextDataset
from layerfusion.tracking.columns import run_config
from layerfusion.tracking.lineage import ingredients
from layerfusion.tracking.tracker import open_tracker

log = logging.getLogger(__name__)

BESIDE = ("profile.csv", "profile.png")
"""What the command writes beside the record."""
HALVES = 50
"""Number of random halvings of test over which the cross-fitted regret is averaged."""


def run_profile(config: TrainConfig, folder: Path) -> Profile:
    """Compute the layer profile of a data set and some models, or read it if it exists.

    Raises:
        UserError: for any mistake that the user can correct.
    """
    require_honest(config, "profile")
    refuse_time_limit(config, "`layerfusion profile`")
    dataset = dataset_of(config)
    if config.profile.judge and len(set(dataset.splits["test"].units)) < 2:
        raise UserError(
            "profile.judge=true: test has fewer than the two texts, or groups, that it needs"
        )
    if config.layers.held_out == "folds":
        folds_notes(config, dataset)
    kept = _kept(folder)
    if kept is not None:
        refuse_other_job(folder, kept.job, profile_id(config))
        same = kept.dataset.fingerprint == dataset.fingerprint and kept.job == profile_id(config)
        sources = open_sources(config, dataset)
        models = {name: _spec_hashes(source) for name, source in sources.items()}
        code = code_of_profile(config)
        other = [path for path, source in code.items() if kept.code.get(path) != source]
        if other:
            log.info("%s: the code of %s has changed since, so it runs again", folder, other[0])
        elif same and models == {name: x.spec_hashes for name, x in kept.backbones.items()}:
            log.info("finished before: %s", folder)
            return kept
    open_backbones(settled(config, dataset))  # reports a missing model before a W&B run starts
    with open_tracker(
        config.logger,
        folder=folder,
        name=f"{dataset.name} layers of {'+'.join(config.backbone)}",
        group=sweep_of(config, folder),
        job_type="profile",
        tags=["profile", dataset.name, *config.backbone],
        config=run_config(config, of_profile=True),
    ) as tracker:
        sources = extract_all(config, dataset)
        tracker.uses(ingredients(dataset, sources))
        profile = make_profile(config, dataset, sources)
        write_profile(profile, folder)
        tracker.finish_with_profile(profile)
    return profile


def _kept(folder: Path) -> Profile | None:
    """Read the profile in a folder; None where there is none, or it is damaged.

    Raises:
        UserError: where files of that name are not of a profile.
    """
    other = "choose another folder (hydra.run.dir=…, or folder=… in Python)"
    if not (folder / PROFILE).exists():
        refuse_foreign([folder / name for name in BESIDE], other)
        return None
    try:
        return read_profile(folder)
    except DamagedRecord as error:
        if not may_be_record(folder / PROFILE, ("job", "dataset", "layers")):
            refuse_foreign([folder / PROFILE], other)
        log.warning("%s: so it is computed again", error)
        return None


def make_profile(
    config: TrainConfig, dataset: TextDataset, sources: Mapping[str, Source]
) -> Profile:
    """Compute a profile from the stores, which must have all texts."""
    layers = all_layers(sources)
    budget = budget_of(config, dataset, sources)
    candidates = candidates_of(config, dataset, sources, layers)
    rules = map(find_selection, config.profile.selections)
    needed = [
        score for rule in rules for score in rule.scores(replace(config.layers, score="probe"))
    ]
    names = list(dict.fromkeys(["probe", *config.profile.scores, *needed]))
    table = compute_scores(candidates, names, config.layers, config.extract, lenient=True)
    similarity = similarity_of(candidates)
    selections = _selections(config, table, similarity, budget)
    kinds, strengths = config.profile.multi_layer, config.layers.strengths
    together = fit_multi_layer_probes(kinds, candidates, budget, strengths)
    last = selections["last"].layers[0]
    judge = Judge(config, dataset, candidates, table, last) if config.profile.judge else None
    if judge:
        log.info("judging %d layers and %d selections on test", len(layers), len(selections))
    folds = int(candidates.fold_of.max()) + 1
    return Profile(
        job=profile_id(config),
        dataset=data_record(dataset, config.limit),
        backbones={name: _backbone(source, table) for name, source in sources.items()},
        rows=len(dataset.splits["train"].texts),
        held_out=f"{folds} folds of train" if config.layers.held_out == "folds" else "validation",
        layers=[_layer(n, table, budget, judge) for n in range(len(layers))],
        similarity=similarity.numpy().round(4).tolist(),
        spearman=_spearman(table),
        seconds=dict(table.seconds),
        missing=dict(table.missing),
        pairs=_pairs(table),
        selections=[
            judge.selection(one) if judge else one
            for one in (_selection(name, found, table) for name, found in selections.items())
        ],
        multi_layer=[judge.multi_layer(one) if judge else one.record for one in together],
        versions=versions(),
        code=code_of_profile(config),
        score_facts={
            name: ScoreFacts(table.score(name).low_is_good, table.score(name).within_model)
            for name in table.values
        },
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


# -- choices ------------------------------------------------------------------------------------


def _selections(
    config: TrainConfig, table: ScoreTable, similarity: Tensor, budget: Budget
) -> dict[str, Selection]:
    """Return what each kind of selection chooses within the budget.

    `last` is the usual practice: of the models' last layers under the first pooling, it takes the
    one with the lowest held-out log-loss. `best by SCORE` is the layer that a score ranks first.
    """
    scored = replace(config.layers, score="probe")
    allowed = set(budget.affordable(table.layers))
    within = [n for n, layer in enumerate(table.layers) if layer in allowed]
    owned = [np.intersect1d(places, within) for places in groups(table.layers).values()]
    lasts = [int(places[-1]) for places in owned if len(places)]
    usual = [n for n in lasts if table.layers[n].pooling == table.layers[within[0]].pooling]
    losses = table.values["log_loss"]
    found = {"last": _single(table, min(usual, key=losses.__getitem__), "last")}
    if len(lasts) > len(usual):
        found["last, best pooling"] = _single(table, min(lasts, key=losses.__getitem__), "last")
    for score, values in table.values.items():
        usable = [n for n in within if np.isfinite(values[n])]
        if usable:
            distance = behind(table, score, usable)
            # If a score is comparable only within a model, log-loss decides between the models.
            best = min(usable, key=lambda n, d=distance: (d[n], losses[n]))
            found[BEST_BY + score] = _single(table, best, score)
    adaptive = _select("adaptive", scored, table, similarity, budget)
    number = len(adaptive.layers)
    for name in config.profile.selections:
        if name == "even":
            even = _evenly(scored, table, number, budget)
            if budget.allows(even.layers):
                found["even"] = even
        elif name == "loes":
            found[name] = _select(name, replace(scored, k=number), table, similarity, budget)
        elif name == "adaptive":
            found[name] = adaptive
        elif name not in found:
            at_most = replace(scored, k=min(scored.k, len(within)))
            found[name] = _select(name, at_most, table, similarity, budget)
    return found


def _select(
    name: str, config: LayersConfig, table: ScoreTable, similarity: Tensor, budget: Budget
) -> Selection:
    return find_selection(name).select(replace(config, name=name), table, similarity, budget)


def _evenly(config: LayersConfig, table: ScoreTable, number: int, budget: Budget) -> Selection:
    """Take about so many layers at equal distances, as many of each model, under one pooling."""
    layers = [x for x in table.layers if x.pooling == table.layers[0].pooling]
    models = {x.backbone for x in budget.affordable(layers)}
    wanted = replace(config, name="even", k=max(1, round(number / len(models))))
    return select_plain(wanted, layers, budget)


def _single(table: ScoreTable, n: int, score: str) -> Selection:
    if score == "last":
        reason = "of the last layers the one with the lowest log-loss"
    else:
        reason = f"{score} {table.values[score][n]:.4g}"
    return Selection((Choice(table.layers[n], reason),))


# -- parts of the record ------------------------------------------------------------------------


def _backbone(source: Source, table: ScoreTable) -> BackboneProfile:
    return BackboneProfile(
        origin=source.origin,
        num_blocks=source.shape.num_blocks,
        layers=list(source.shape.layers),
        spec_hashes=_spec_hashes(source),
        attention_heads={
            layer: values.tolist() for layer, values in table.heads.get(source.name, {}).items()
        },
    )


def _spec_hashes(source: Source) -> dict[str, str]:
    return {pooling: store.name for pooling, store in source.stores.items()}


def _layer(n: int, table: ScoreTable, budget: Budget, judge: Judge | None) -> LayerProfile:
    layer = table.layers[n]
    cost = budget.cost([layer])
    scores = {
        name: float(values[n]) if np.isfinite(values[n]) else None
        for name, values in table.values.items()
    }
    return LayerProfile(
        backbone=layer.backbone,
        layer=layer.layer,
        pooling=layer.pooling,
        depth=budget.models[layer.backbone].shape.depth(layer.layer),
        scores=scores,
        strength=table.held_out[n].strength,
        flops_per_text=cost.known_flops,
        milliseconds_per_text=cost.ms,
        test=judge.accuracy(judge.layers[n]) if judge else None,
    )


def _spearman(table: ScoreTable) -> dict[str, dict[str, float | None]]:
    """Compute each score's rank correlation with probe accuracy over the layers of each source."""
    result: dict[str, dict[str, float | None]] = {}
    for (backbone, pooling), places in groups(table.layers).items():
        source = backbone if pooling == "mean" else f"{backbone} ({pooling})"
        accuracy = table.values["accuracy"][places]
        result[source] = {}
        for name in table.values:
            if name != "accuracy":
                values = oriented(table, name)[places]
                both = np.isfinite(values)
                varied = both.sum() > 2 and np.ptp(values[both]) > 0 and np.ptp(accuracy[both]) > 0
                result[source][name] = (
                    _rank_correlation(values[both], accuracy[both]) if varied else None
                )
    return result


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Compute Spearman's correlation: Pearson's correlation of ranks, with equal ranks for ties."""
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _pairs(table: ScoreTable) -> list[ModelPair]:
    """Compare every pair of models by the best layer of each."""
    losses = table.values["log_loss"]
    best: dict[str, int] = {}
    for n, layer in enumerate(table.layers):
        other = best.get(layer.backbone, n)
        best[layer.backbone] = n if losses[n] < losses[other] else other
    right = [one.right.numpy() for one in table.held_out]
    pairs = []
    for (first, a), (second, b) in itertools.combinations(best.items(), 2):
        found = complementarity(right[a], right[b])
        pairs.append(
            ModelPair(
                first, second, a, b, found.error_overlap, found.q_statistic, found.oracle_gain
            )
        )
    return pairs


def _selection(name: str, choice: Selection, table: ScoreTable) -> SelectionProfile:
    """Build the record of a selection as train gives it."""
    return SelectionProfile(
        name=name,
        layers=[table.layers.index(layer) for layer in choice.layers],
        reasons=[one.words for one in choice.choices],
        notes=list(choice.notes),
        best_by=name.removeprefix(BEST_BY) if name.startswith(BEST_BY) else "",
    )
