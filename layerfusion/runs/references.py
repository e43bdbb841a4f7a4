"""Single layers that a fusion is compared with on test, without a job of their own."""

from __future__ import annotations

from dataclasses import asdict, replace

from layerfusion.assets.memo import hash_of
from layerfusion.config.job import AUTO, STACKED, STACKS, FusionConfig, TrainConfig
from layerfusion.embeddings.backbone import probe_device
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.layers.blends import held_out_blends
from layerfusion.layers.selection import Choice, ProbedLayer, Selection
from layerfusion.progress import steps
from layerfusion.runs.heads import TrainedReference, fit_heads
from layerfusion.runs.inputs import Inputs
from layerfusion.runs.select_layers import candidates_of, probed_layers

KEPT = 64
"""References that stay in memory for the next jobs of a process."""
_known: dict[str, TrainedReference] = {}
BEST, LAST = "best_probe", "last_probe"
"""Columns of the answers of the best and of the last layer."""


def with_probes(config: TrainConfig, inputs: Inputs) -> Inputs:
    """Add what a stack has for each of its layers, where the selection itself fitted no probes.

    The stack needs these held-out predictions anyway, and finds them in the cache.
    """
    layers, selection = inputs.selection.layers, inputs.selection
    stacked = inputs.fusion.name in STACKS and config.layers.held_out == "folds"
    if not stacked or selection.probes or len(layers) == 1:
        return inputs
    candidates = candidates_of(config, inputs.dataset, inputs.sources, layers)
    held_out = held_out_blends(candidates, config.layers, probe_device(config.extract.device))
    return replace(inputs, selection=replace(selection, probes=probed_layers(layers, held_out)))


def fit_references(config: TrainConfig, inputs: Inputs) -> list[TrainedReference]:
    """Fit the best single layer by its probe, and the last layer of the same model, on known rows.

    Both are chosen before test is looked at. Each is a stack of one source, fitted on train and
    validation. There are none where no probes were fitted, where rows are held out in validation
    alone, as a stack needs folds, after a pilot, which leaves most layers out of the cache, and
    where the time is over.
    """
    folded = config.layers.held_out == "folds" or config.fusion.name == AUTO
    probes = {
        one.layer: one
        for one in inputs.selection.probes
        if not isinstance(inputs.sources[one.layer.backbone], LexicalSource)
    }
    if not probes or not folded or inputs.pilot is not None:
        return []
    if not inputs.deadline.allows(0):
        inputs.deadline.leave_out("the best and the last layer alone are not judged on test")
        return []
    # The first of equals is the lowest layer.
    best = min(probes.values(), key=lambda one: (-round(one.accuracy, 9), round(one.log_loss, 9)))
    top = inputs.sources[best.layer.backbone].shape.layers[-1]
    last = probes.get(replace(best.layer, layer=top))
    todo = [(best, BEST)] if last is None or last is best else [(best, BEST), (last, LAST)]
    return [_fitted_once(config, inputs, *one) for one in steps(todo, "single layers to compare")]


def _fitted_once(
    config: TrainConfig, inputs: Inputs, one: ProbedLayer, column: str
) -> TrainedReference:
    """Fit a reference, or take it from an earlier job: those of a sweep mostly share theirs."""
    store = inputs.sources[one.layer.backbone].stores[one.layer.pooling]
    key = hash_of({
        "data": inputs.dataset.coding,
        "rows": {name: len(split.texts) for name, split in inputs.dataset.splits.items()},
        "spec": store.spec.canonical(),
        "layer": one.layer.layer,
        "layers": asdict(config.layers),
        "seed": config.seed,
        "objective": [config.objective, config.class_weights],
    })  # fmt: skip
    if key not in _known:
        while len(_known) >= KEPT:
            _known.pop(next(iter(_known)))
        _known[key] = _fit(config, inputs, one, column)
    return replace(_known[key], probed=one, column=column)


def _fit(config: TrainConfig, inputs: Inputs, one: ProbedLayer, column: str) -> TrainedReference:
    stacked = FusionConfig(STACKED)
    alone = Selection((Choice(one.layer, "reference"),))
    single = replace(inputs, selection=alone, fusion=stacked, decision=None)
    (head,) = fit_heads(replace(config, fusion=stacked, seeds=1), single).values()
    return TrainedReference(one, column, head.logits["test"], head.parameters, head.flops)
