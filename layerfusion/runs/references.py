"""Single layers that a fusion is compared with on test, without a job of their own."""

from __future__ import annotations

from dataclasses import replace

from layerfusion.config.job import STACKED, FusionConfig, TrainConfig
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.layers.selection import Choice, ProbedLayer, Selection
from layerfusion.runs.heads import TrainedReference, fit_heads
from layerfusion.runs.inputs import Inputs

BEST, LAST = "best_probe", "last_probe"
"""Columns of the answers of the best and of the last layer."""


def fit_references(config: TrainConfig, inputs: Inputs) -> list[TrainedReference]:
    """Fit the best single layer by its probe, and the last layer of the same model, on known rows.

    Both are chosen before test is looked at. Each is a stack of one source, fitted on train and
    validation. There is none where the selection fitted no probes, or a pilot has left most layers
    out of the cache.
    """
    probes = {
        one.layer: one
        for one in inputs.selection.probes
        if not isinstance(inputs.sources[one.layer.backbone], LexicalSource)
    }
    if not probes or inputs.pilot is not None:
        return []
    # The first of equals is the lowest layer.
    best = min(probes.values(), key=lambda one: (-round(one.accuracy, 9), round(one.log_loss, 9)))
    top = inputs.sources[best.layer.backbone].shape.layers[-1]
    last = probes.get(replace(best.layer, layer=top))
    found = [_fit(config, inputs, best, BEST)]
    if last is not None and last is not best:
        found.append(_fit(config, inputs, last, LAST))
    return found


def _fit(config: TrainConfig, inputs: Inputs, one: ProbedLayer, column: str) -> TrainedReference:
    stacked = FusionConfig(STACKED)
    alone = Selection((Choice(one.layer, "reference"),))
    single = replace(inputs, selection=alone, fusion=stacked, decision=None)
    (head,) = fit_heads(replace(config, fusion=stacked, seeds=1), single).values()
    return TrainedReference(one, column, head.logits["test"], head.parameters, head.flops)
