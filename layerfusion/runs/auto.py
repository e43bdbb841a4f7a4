"""`fusion=auto` chooses a job's layers, fusion and width on train; nothing here reads test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import FusionConfig, TrainConfig
from layerfusion.embeddings.source import Source
from layerfusion.embeddings.spec import text_hash
from layerfusion.fusion.held_out_heads import HeldOutHeads
from layerfusion.fusion.race import Evaluation, FusionCandidate, list_fusion_candidates, race
from layerfusion.fusion.stacking import judge_forms
from layerfusion.layers.budget import Budget
from layerfusion.layers.candidates import Candidates, all_layers, read_layers
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.layer_sets import propose_layer_sets
from layerfusion.layers.scores import ScoreTable, compute_scores
from layerfusion.layers.selection import Selection
from layerfusion.records.job import CandidateRecord
from layerfusion.runs.select_layers import budget_of, candidates_of, similarity_of
from layerfusion.texts import TextDataset

log = logging.getLogger(__name__)

NAMED = 8
"""Most layers of the chosen fusion that a reason is given for; the record has those of all."""


@dataclass(frozen=True)
class Decision:
    """The choice that `fusion=auto` made, and why."""

    selection: Selection
    fusion: FusionConfig
    reasons: list[str]
    candidates: list[CandidateRecord]
    """All candidates that were evaluated, the best first."""


def decide(
    config: TrainConfig,
    dataset: TextDataset,
    sources: Mapping[str, Source],
    given: Selection | None,
) -> Decision:
    """Choose the fusion with the lowest log-loss on held-out rows of train.

    Args:
        config: the job.
        dataset: its texts.
        sources: its models and lexical sources, by name.
        given: selection whose layers may be used, either one that looks at no data or that of a
            pilot. If None, all layers within the budget may be used.
    """
    config = replace(config, layers=replace(config.layers, held_out="folds"))
    budget = budget_of(config, dataset, sources, layers=given.layers if given else None)
    layers = given.layers if given else budget.affordable(all_layers(sources))
    candidates = candidates_of(config, dataset, sources, layers)
    table = compute_scores(candidates, ["probe"], config.layers, config.extract)
    layer_sets = propose_layer_sets(config.layers, table, similarity_of(candidates), budget)
    widths = {layer: sources[layer.backbone].shape.width for layer in layers}
    fusion_candidates = list_fusion_candidates(
        layer_sets, config.fusion, widths, len(dataset.label_names)
    )
    chosen = list(
        dict.fromkeys(layer for layer_set in layer_sets.values() for layer in layer_set.layers)
    )
    validation = dataset.splits["validation"]
    hashes = [text_hash(text) for text in validation.texts]
    heads = HeldOutHeads(
        candidates,
        dict(zip(chosen, read_layers(sources, chosen, hashes), strict=True)),
        validation.texts,
        torch.from_numpy(np.asarray(validation.labels, np.int64)),
        config.trainer,
        config.seed,
    )
    evaluations = race(
        fusion_candidates,
        lambda candidate: _stacked_losses(candidate, candidates, table, config.seed),
        heads,
        candidates.fold_of,
    )
    reasons = _reasons(evaluations, budget)
    if config.layers.name in ("last", "fixed"):
        reasons.append(
            f"it considered only the layers of layers={config.layers.name}; with"
            " layers=adaptive it considers all layers within the budget"
        )
    for line in reasons:
        log.info("auto: %s", line)
    best = evaluations[0].candidate
    records = [_record(evaluation, evaluations[0], budget) for evaluation in evaluations]
    return Decision(best.selection, best.fusion, reasons, records)


def _stacked_losses(
    candidate: FusionCandidate, candidates: Candidates, table: ScoreTable, seed: int
) -> Tensor:
    held = [table.held_out[candidates.position(layer)] for layer in candidate.selection.layers]
    log_probs = torch.stack([probe.log_probs for probe in held]).double()
    form, losses = judge_forms(log_probs, held[0].target, seed=seed)
    return losses[form]


def _reasons(evaluations: Sequence[Evaluation], budget: Budget) -> list[str]:
    best = evaluations[0]
    choices = best.candidate.selection.choices
    lines = [
        f"{best.candidate.words}: held-out log-loss {best.log_loss:.4f}, the lowest of"
        f" {len(evaluations)} candidates",
        *(f"it uses {choice.words}" for choice in choices[:NAMED]),
        *([f"and {len(choices) - NAMED} more"] if len(choices) > NAMED else []),
    ]
    rivals = [one for one in evaluations[1:] if one.folds == best.folds]
    alone = [one for one in rivals if len(one.candidate.selection.layers) == 1]
    for rival in dict.fromkeys([*rivals[:1], *alone[:1]]):
        difference, error = rival.behind(best)
        lines.append(f"{rival.candidate.words} is behind by {difference:.4f} ± {error:.4f}")
    cost = budget.cost(best.candidate.selection.layers).flops
    near = [one for one in rivals if np.less_equal(*one.behind(best))]
    cheapest = min(
        near, key=lambda one: budget.cost(one.candidate.selection.layers).flops, default=None
    )
    if cheapest is not None:
        less = budget.cost(cheapest.candidate.selection.layers).flops
        if less < cost:
            limit = budget.flops_that_allow(cheapest.candidate.selection.layers)
            lines.append(
                f"{cheapest.candidate.words} is within a standard error of it at"
                f" {less / cost:.0%} of its FLOPs a text; layers.budget.flops_per_text={limit}"
                " allows that"
            )
    return lines


def _record(evaluation: Evaluation, best: Evaluation, budget: Budget) -> CandidateRecord:
    candidate = evaluation.candidate
    behind, error = evaluation.behind(best)
    layers: Sequence[LayerId] = candidate.selection.layers
    return CandidateRecord(
        fusion=candidate.fusion.name,
        width=candidate.fusion.width,
        layer_set=candidate.layer_set,
        layers=[str(layer) for layer in layers],
        folds=evaluation.folds,
        log_loss=evaluation.log_loss,
        behind=behind,
        behind_error=error if np.isfinite(error) else None,
        head_parameters=candidate.parameters,
        flops_per_text=budget.cost(layers).flops,
    )
