"""`fusion=auto`: layers, fusion and width of a job chosen on train; nothing here reads test."""

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
from layerfusion.fusion.race import Entrant, Standing, entrants_of, race
from layerfusion.fusion.stacking import judge_forms
from layerfusion.layers.budget import Budget
from layerfusion.layers.candidates import Candidates, all_layers, read_layers
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.scores import ScoreTable, compute_scores
from layerfusion.layers.selection import Selection
from layerfusion.layers.teams import propose_teams
from layerfusion.records.job import EntrantRecord
from layerfusion.runs.select_layers import budget_of, candidates_of, similarity_of
from layerfusion.texts import TextDataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """What `fusion=auto` settled on, and why."""

    selection: Selection
    fusion: FusionConfig
    reasons: list[str]
    entrants: list[EntrantRecord]
    """All that were judged, the best first."""


def decide(
    config: TrainConfig,
    dataset: TextDataset,
    sources: Mapping[str, Source],
    given: Selection | None,
) -> Decision:
    """Choose the fusion with the lowest log-loss on rows of train held out.

    Args:
        config: the job.
        dataset: its texts.
        sources: its models.
        given: the layers that it may use: those of a selection that looks at no data, or of a
            pilot; none: all that the budget allows.
    """
    config = replace(config, layers=replace(config.layers, held_out="folds"))
    budget = budget_of(config, dataset, sources, layers=given.layers if given else None)
    layers = given.layers if given else budget.affordable(all_layers(sources))
    candidates = candidates_of(config, dataset, sources, layers)
    table = compute_scores(candidates, ["probe"], config.layers, config.extract)
    teams = propose_teams(config.layers, table, similarity_of(candidates), budget)
    widths = {layer: sources[layer.backbone].shape.width for layer in layers}
    entrants = entrants_of(teams, config.fusion, widths, len(dataset.label_names))
    chosen = list(dict.fromkeys(layer for team in teams.values() for layer in team.layers))
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
    standings = race(
        entrants,
        lambda entrant: _stacked_losses(entrant, candidates, table, config.seed),
        heads,
        candidates.fold_of,
    )
    reasons = _reasons(standings, budget)
    if config.layers.name in ("last", "fixed"):
        reasons.append(
            f"auto: it looked at the layers of layers={config.layers.name} alone; layers=adaptive"
            " lets it look at all that the budget allows"
        )
    for line in reasons:
        log.info(line)
    best = standings[0].entrant
    records = [_record(standing, standings[0], budget) for standing in standings]
    return Decision(best.selection, best.fusion, reasons, records)


def _stacked_losses(
    entrant: Entrant, candidates: Candidates, table: ScoreTable, seed: int
) -> Tensor:
    held = [table.held_out[candidates.position(layer)] for layer in entrant.selection.layers]
    said = torch.stack([one.log_probs for one in held]).double()
    form, losses = judge_forms(said, held[0].target, seed=seed)
    return losses[form]


def _reasons(standings: Sequence[Standing], budget: Budget) -> list[str]:
    best = standings[0]
    lines = [
        f"auto: {best.entrant.words}: held-out log-loss {best.log_loss:.4f}, the lowest of"
        f" {len(standings)} candidates",
        *(f"auto: it uses {choice.reason}" for choice in best.entrant.selection.choices),
    ]
    rivals = [one for one in standings[1:] if one.folds == best.folds]
    alone = [one for one in rivals if len(one.entrant.selection.layers) == 1]
    for rival in dict.fromkeys([*rivals[:1], *alone[:1]]):
        difference, error = rival.behind(best)
        lines.append(f"auto: {rival.entrant.words} is behind by {difference:.4f} ± {error:.4f}")
    cost = budget.cost(best.entrant.selection.layers).flops
    near = [one for one in rivals if np.less_equal(*one.behind(best))]
    cheapest = min(
        near, key=lambda one: budget.cost(one.entrant.selection.layers).flops, default=None
    )
    if cheapest is not None:
        less = budget.cost(cheapest.entrant.selection.layers).flops
        if less < cost:
            limit = budget.flops_that_allow(cheapest.entrant.selection.layers)
            lines.append(
                f"auto: {cheapest.entrant.words} is within a standard error of it at"
                f" {less / cost:.0%} of its FLOPs a text; layers.budget.flops_per_text={limit}"
                " allows that"
            )
    return lines


def _record(standing: Standing, best: Standing, budget: Budget) -> EntrantRecord:
    entrant = standing.entrant
    behind, error = standing.behind(best)
    layers: Sequence[LayerId] = entrant.selection.layers
    return EntrantRecord(
        fusion=entrant.fusion.name,
        width=entrant.fusion.width,
        team=entrant.team,
        layers=[str(layer) for layer in layers],
        folds=standing.folds,
        log_loss=standing.log_loss,
        behind=behind,
        behind_error=error if np.isfinite(error) else None,
        head_parameters=entrant.parameters,
        flops_per_text=budget.cost(layers).flops,
    )
