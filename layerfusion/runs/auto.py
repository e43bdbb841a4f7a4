"""`fusion=auto` chooses a job's layers, fusion and width on train; nothing here reads test."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import (
    ACCURACY,
    CHEAP,
    GATED_STACK,
    LOG_LOSS,
    MACRO_F1,
    MICRO_F1,
    STACKS,
    FusionConfig,
    TrainConfig,
)
from layerfusion.embeddings.backbone import probe_device
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.embeddings.source import Source
from layerfusion.fusion.deadline import Deadline
from layerfusion.fusion.held_out_heads import HeldOutHeads
from layerfusion.fusion.layer_sets import propose_layer_sets
from layerfusion.fusion.member_training import losses_of_layers, member_recipe
from layerfusion.fusion.pool import ANCHORED_GATED, FORMS
from layerfusion.fusion.pool_forms import Choose, PoolTask, judge_pools, serve
from layerfusion.fusion.race import (
    Evaluation,
    FusionCandidate,
    list_fusion_candidates,
    prefer,
    race,
    widest_stack,
)
from layerfusion.layers.blends import held_out_blends
from layerfusion.layers.budget import Budget
from layerfusion.layers.candidates import Candidates, all_layers, read_layers
from layerfusion.layers.discriminant import Blend
from layerfusion.layers.labels import is_multilabel
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.lexical_regression import count
from layerfusion.layers.repeats import distinct_share
from layerfusion.layers.selection import Selection
from layerfusion.records.job import CandidateRecord
from layerfusion.runs.select_layers import budget_of, candidates_of, probed_layers
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
    """All candidates that were evaluated, the one that was taken first, and then the best."""


def decide(
    config: TrainConfig,
    dataset: TextDataset,
    sources: Mapping[str, Source],
    given: Selection | None,
    deadline: Deadline | None = None,
) -> Decision:
    """Choose the fusion that serves the objective best on held-out rows of train.

    Args:
        config: the job.
        dataset: its texts.
        sources: its models and lexical sources, by name.
        given: selection whose layers may be used, either one that looks at no data or that of a
            pilot. If None, all layers within the budget may be used.
        deadline: end of the time that the candidates may take.
    """
    config = replace(config, layers=replace(config.layers, held_out="folds"))
    budget = budget_of(config, dataset, sources, layers=given.layers if given else None)
    layers = given.layers if given else budget.affordable(all_layers(sources))
    candidates = candidates_of(config, dataset, sources, layers)
    held_out = held_out_blends(candidates, config.layers, probe_device(config.extract.device))
    log_probs = torch.stack([blend.log_probs for blend in held_out])
    target = held_out[0].target
    varying = candidates.varying()
    layer_sets = propose_layer_sets(
        layers,
        log_probs,
        target,
        budget,
        few=config.layers.max_layers,
        members=config.fusion.members,
        usable=varying,
        distinct=distinct_share(held_out[0].text_of),
    )
    widths = {layer: sources[layer.backbone].shape.width for layer in layers}
    fusion_candidates = list_fusion_candidates(
        layer_sets,
        config.fusion,
        widths,
        len(dataset.label_names),
        multilabel=dataset.multilabel,
        losses=losses_of_layers(candidates, held_out),
        features=_features_of(dataset, sources, layers),
    )
    trained = [one for one in fusion_candidates if one.fusion.name not in STACKS]
    trained_on = list(dict.fromkeys(layer for one in trained for layer in one.layers))
    validation = dataset.splits["validation"]
    hashes = [text_hash(text) for text in validation.texts]
    heads = HeldOutHeads(
        candidates,
        dict(zip(trained_on, read_layers(sources, trained_on, hashes), strict=True)),
        validation.texts,
        torch.from_numpy(validation.labels),
        config.trainer,
        config.seed,
        config.objective,
        config.class_weights,
        validation.groups,
    )
    evaluations = race(
        fusion_candidates,
        _StackedPredictions(config, candidates, held_out, log_probs),
        heads,
        candidates.fold_of,
        candidates.labels,
        candidates.num_classes,
        held_out[0].text_of,
        config.objective,
        deadline,
        config.class_weights,
    )

    preferred = chosen = prefer(evaluations)
    if config.fusion.prefer == CHEAP:
        chosen = _cheapest(_as_good(evaluations, preferred), budget)
    evaluations = [chosen, *(one for one in evaluations if one is not chosen)]
    reasons = _reasons(evaluations, preferred, budget)
    if config.layers.name in ("last", "fixed"):
        reasons.append(
            f"it considered only the layers of layers={config.layers.name}; with"
            " layers=adaptive it considers all layers within the budget"
        )
    if left := [layer.words for n, layer in enumerate(layers) if n not in varying]:
        names = ", ".join(left[:NAMED]) + (" …" if len(left) > NAMED else "")
        reasons.append(f"it left out what hardly differs between texts: {names}")
    for line in reasons:
        log.info("auto: %s", line)
    records = [_record(evaluation, chosen, budget) for evaluation in evaluations]
    best = chosen.candidate
    selection = replace(best.layer_set.selection, probes=probed_layers(layers, held_out))
    return Decision(selection, best.fusion, reasons, records)


@dataclass(frozen=True)
class _StackedPredictions:
    """Predicts held-out rows by stacks that are chosen, fitted and shifted without them."""

    config: TrainConfig
    candidates: Candidates
    held_out: Sequence[Blend]
    log_probs: Tensor
    """Log-probabilities of all sources. Shape: (K, rows, classes)."""

    def __call__(self, candidates: Sequence[FusionCandidate]) -> list[Tensor]:
        """Return log-probabilities of all held-out rows. Shapes: (rows, classes), float64."""
        config, first = self.config, self.held_out[0]
        judged = judge_pools([*map(self._pool, candidates)], seed=config.seed)
        return [
            serve(
                config.objective,
                config.class_weights,
                predicted[form],
                first.target,
                seed=config.seed,
                text_of=first.text_of,
            )
            for form, predicted in judged
        ]

    def _pool(self, candidate: FusionCandidate) -> PoolTask:
        """Give what the pool of a stack has to choose among."""
        choose, log_probs = candidate.layer_set.choose, self.log_probs
        places = [self.candidates.position(layer) for layer in candidate.layers]
        recipe = member_recipe(
            candidate.fusion,
            self.config.trainer,
            self.candidates.take(places),
            [self.held_out[n] for n in places],
            self.config.seed,
        )
        if recipe is not None:
            head = recipe.held_out(self.candidates.take(places))
            choose, log_probs = _with_last(choose), torch.cat([log_probs, head[None]])
        forms = (ANCHORED_GATED,) if candidate.fusion.name == GATED_STACK else FORMS
        first = self.held_out[0]
        return PoolTask(log_probs, first.target, first.text_of, choose, forms)


def _with_last(choose: Choose) -> Choose:
    """Let a rule that chooses layers keep the last member, a head, whatever it chooses."""

    def chosen(log_probs: Tensor, target: Tensor, distinct: float) -> list[int]:
        return [*choose(log_probs[:-1], target, distinct), len(log_probs) - 1]

    return chosen


def _as_good(evaluations: Sequence[Evaluation], preferred: Evaluation) -> list[Evaluation]:
    """List those that are at most a standard error behind the one that is preferred."""
    return [
        one
        for one in evaluations
        if one.folds == preferred.folds and bool(np.less_equal(*one.behind(preferred)))
    ]


def _cheapest(evaluations: Sequence[Evaluation], budget: Budget) -> Evaluation:
    return min(evaluations, key=lambda one: _flops(one, budget))


def _flops(evaluation: Evaluation, budget: Budget) -> float:
    return budget.cost(evaluation.candidate.layers).flops


def _reasons(evaluations: Sequence[Evaluation], preferred: Evaluation, budget: Budget) -> list[str]:
    """Say in plain words why the first of some evaluations was chosen."""
    chosen = evaluations[0]
    lowest = min(evaluations, key=lambda one: (-one.folds, one.cost))
    among = f"of {len(evaluations)} candidates"
    if chosen is not preferred:
        why = f"the cheapest {among} within a standard error of {preferred.candidate.words}"
    elif chosen is lowest:
        why = f"the best {among}"
    elif chosen is widest_stack(evaluations):
        why = f"the most layers {among}, none of which is surely better"
    else:
        why = f"the best {among} that are surely better than the most layers"
    choices = chosen.candidate.layer_set.selection.choices
    lines = [
        f"{chosen.candidate.words}: held-out {_value(chosen)}, {why}",
        *(f"it uses {choice.words}" for choice in choices[:NAMED]),
        *([f"and {len(choices) - NAMED} more"] if len(choices) > NAMED else []),
    ]
    rivals = [one for one in evaluations[1:] if one.folds == chosen.folds]
    alone = [one for one in rivals if len(one.candidate.layers) == 1]
    for rival in dict.fromkeys([*rivals[:1], *alone[:1]]):
        difference, error = rival.behind(chosen)
        place = "behind" if difference >= 0 else "ahead"
        lines.append(f"{rival.candidate.words} is {place} by {abs(difference):.4f} ± {error:.4f}")
    as_good = _as_good(evaluations, preferred)
    cheaper = [one for one in as_good if _flops(one, budget) < _flops(chosen, budget)]
    if chosen is preferred and cheaper:
        cheapest = _cheapest(cheaper, budget)
        dear = _flops(chosen, budget)
        lines.append(
            f"{cheapest.candidate.words} is within a standard error of it "
            + (
                f"at {_flops(cheapest, budget) / dear:.0%} of its FLOPs a text"
                if math.isfinite(dear)
                else "and needs no vectors from elsewhere"
            )
            + "; fusion.prefer=cheap takes that"
        )
    return lines


def _value(evaluation: Evaluation) -> str:
    """Name the measure that was chosen by, with its value."""
    weighted, multilabel = evaluation.weights is not None, is_multilabel(evaluation.target)
    if evaluation.objective == LOG_LOSS:
        how = ", each label as often there as not" if multilabel else ", all classes alike"
        return f"log-loss {evaluation.cost:.4f}{how if weighted else ''}"
    name = {ACCURACY: "accuracy", MACRO_F1: "macro-F1", MICRO_F1: "micro-F1"}[evaluation.objective]
    alike = weighted and not multilabel and evaluation.objective != MACRO_F1
    return f"{'balanced ' if alike else ''}{name} {1 - evaluation.cost:.1%}"


def _features_of(
    dataset: TextDataset, sources: Mapping[str, Source], layers: Sequence[LayerId]
) -> dict[LayerId, int]:
    """Count the features that the regressions on lexical sources have in the end."""
    texts = [text for name in ("train", "validation") for text in dataset.splits[name].texts]

    @cache  # sources differ in what learns from the same counts
    def number(features: str, most: int) -> int:
        return count(features, texts, most).num_features(np.ones(len(texts), bool))

    owners = {layer: sources[layer.backbone] for layer in layers}
    return {
        layer: number(source.config.features, source.config.max_features)
        for layer, source in owners.items()
        if isinstance(source, LexicalSource)
    }


def _record(evaluation: Evaluation, best: Evaluation, budget: Budget) -> CandidateRecord:
    candidate = evaluation.candidate
    behind, error = evaluation.behind(best)
    layers: Sequence[LayerId] = candidate.layers
    return CandidateRecord(
        fusion=candidate.fusion.name,
        width=candidate.fusion.width,
        layer_set=candidate.layer_set.name,
        layers=[str(layer) for layer in layers],
        folds=evaluation.folds,
        log_loss=evaluation.log_loss,
        behind=behind,
        behind_error=error if np.isfinite(error) else None,
        head_parameters=candidate.parameters,
        flops_per_text=budget.cost(layers).known_flops,
        accuracy=evaluation.accuracy,
    )
