"""Fits a classifier on labelled texts in memory: no test split, no folder, no record of a job."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.identity import job_id
from layerfusion.config.job import AUTO, GATED_STACK, STACKS, LayersConfig, TrainConfig
from layerfusion.embeddings.backbone import probe_device
from layerfusion.embeddings.cache_key import text_hash
from layerfusion.errors import UserError
from layerfusion.fusion.deadline import Deadline
from layerfusion.fusion.head_files import Head
from layerfusion.fusion.member_training import member_recipe
from layerfusion.fusion.objective import shifted
from layerfusion.fusion.operator_head import OperatorHead
from layerfusion.fusion.pool_forms import judge_forms, serve
from layerfusion.layers.blends import held_out_blends
from layerfusion.layers.candidates import Candidates, all_layers
from layerfusion.layers.discriminant import Blend
from layerfusion.layers.folds import dealt_by
from layerfusion.layers.held_out import held_out_probes
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import HeldOut, Predictions
from layerfusion.layers.score import Needs, find_score
from layerfusion.layers.selection import find_selection
from layerfusion.runs.bundle import Bundle
from layerfusion.runs.bundle_saving import make_bundle
from layerfusion.runs.familiar import FACT, HELD_OUT, Familiar
from layerfusion.runs.heads import TrainedHead, fit_heads, probabilities_of
from layerfusion.runs.inputs import Inputs, check_inputs, prepare_texts, read_targets
from layerfusion.runs.recording import versions
from layerfusion.runs.select_layers import budget_of, candidates_of, select
from layerfusion.runs.time_limit import keep_in_time
from layerfusion.statistics.metrics import evaluate
from layerfusion.texts import TextDataset, fingerprint
from layerfusion.texts.groups import deal_groups, has_groups, hold_out_units, refuse_few
from layerfusion.texts.splits import Split

PROBE = "probe"
"""Stands for a linear probe on a single layer among the fusions that were tried."""
SURE = 30.0
"""Added to the log-odds of a label that every row has, and taken off where none has it."""


@dataclass(frozen=True)
class LayerImportance:
    """A layer that could be chosen: whether it was, and what it is worth."""

    layer: LayerId
    chosen: bool
    weight: float | None
    """Mean weight of the layer in the fusion, 0 where it was not chosen. The weights of a stack may
    be negative. None where the operator has no weights."""
    log_loss: float | None
    """Held-out log-loss of the layer's own probe, in nats; None where none was fitted."""
    accuracy: float | None
    """Held-out accuracy of the same probe."""


@dataclass(frozen=True)
class Trial:
    """A fusion that was tried, and how well it predicted rows that it was not fitted on."""

    fusion: str
    width: int | None
    layers: list[str]
    judged_on: str
    """The rows that its figures are of."""
    log_loss: float
    """In nats."""
    accuracy: float | None
    behind: float | None
    """Log-loss, or 1 minus the accuracy or F1 that is the objective, minus that of the chosen
    fusion, on the rows of both; None where not compared."""
    behind_error: float | None
    """Standard error of this difference."""
    flops_per_text: float | None
    """FLOPs of the forward passes up to the layers used, as a mean over the texts; None where
    they are not known."""
    chosen: bool = False


@dataclass(frozen=True)
class FittedTexts:
    """A fitted classifier, and what was learned about the layers on the way."""

    bundle: Bundle
    importances: list[LayerImportance]
    trials: list[Trial]
    """The lowest log-loss comes first."""


def needs_validation(config: TrainConfig) -> bool:
    """Tell whether some rows have to be kept from the fit: trained heads stop on them.

    A stack is judged on folds instead, and learns from every row. All that `auto` tries unless it
    is told otherwise are stacks.
    """
    stacks: Sequence[str] = [config.fusion.name]
    if config.fusion.name == AUTO:
        stacks = config.fusion.among or ()
    return any(name not in STACKS for name in stacks) or config.layers.held_out == "validation"


def training_texts(
    texts: Sequence[str],
    labels: np.ndarray,
    label_names: Sequence[str],
    *,
    validation_size: float | None,
    seed: int,
    repeats: np.ndarray | None = None,
    groups: Sequence[str | None] | None = None,
) -> TextDataset:
    """Make a data set of rows that are all there to learn from: its test split is empty.

    The rows are put in an order of their own, by the hash of the text. So the same rows give the
    same classifier in whatever order they come, and a row that counts twice is the same as two.

    Args:
        texts: texts without outer white space.
        labels: class indices, shape (rows,), each of which occurs; or labels, shape (rows, labels),
            bool, of which one at least is not that of all rows or of none.
        label_names: name of each class.
        validation_size: share of the rows that becomes validation, stratified; no row if None.
            Rows with the same text, or of a group, are never divided.
        seed: draws these rows.
        repeats: how many times each row counts; once if None. Shape: (rows,), int64.
        groups: group of each row, None for a row without one; None if there are no groups.

    Raises:
        UserError: where no class has two different texts, or groups, so that no row can be kept.
    """
    hashes = [text_hash(text) for text in texts]
    of_row = ["" if name is None else name for name in groups or [""] * len(texts)]
    order = sorted(
        range(len(texts)), key=lambda row: (hashes[row], labels[row].tolist(), of_row[row])
    )
    times = np.ones(len(texts), np.int64) if repeats is None else repeats[order]
    whole = Split(
        tuple(texts[row] for row in order),
        labels[order],
        None if groups is None else tuple(groups[row] for row in order),
    )
    unique = np.unique(whole.unit_of)
    if not has_groups(whole.units) and np.bincount(dealt_by(whole.labels[unique])).max() < 2:
        raise UserError(
            "fit: no class has two different texts, so none can be held out; more rows are needed"
        )
    if has_groups(whole.units):
        refuse_few(deal_groups(whole.labels, whole.units, 2, seed=seed), "fit: ")
    written = _rows(whole, times)  # groups are held out by their numbers of rows
    kept = np.zeros(len(written), bool)
    if validation_size is not None:
        kept = hold_out_units(
            written.labels, written.units, validation_size, seed=seed, purpose="validation"
        )
    splits = {
        "train": written.take(~kept),
        "validation": written.take(kept),
        "test": written.take(np.zeros_like(kept)),
    }
    names = tuple(label_names)
    return TextDataset(
        name="memory",
        splits=splits,
        label_names=names,
        fingerprint=fingerprint(splits, names),
        origin="memory",
        available={split: len(rows) for split, rows in splits.items()},
        sampled=False,
        overlap=0,
        notes=(),
    )


def _rows(whole: Split, times: np.ndarray) -> Split:
    """Take each row so many times. Shape of times: (rows,), int64."""
    rows = np.repeat(np.arange(len(whole)), times).tolist()
    groups = None if whole.groups is None else tuple(whole.groups[row] for row in rows)
    return Split(tuple(whole.texts[row] for row in rows), whole.labels[rows], groups)


def fit_texts(
    config: TrainConfig, dataset: TextDataset, *, begun: float | None = None
) -> FittedTexts:
    """Choose layers and fusion, and fit a head for each seed, on train and validation alone.

    Args:
        config: of a job; the data set that it names is not read.
        dataset: its rows; test is empty, and validation too unless `needs_validation`.
        begun: what `time.monotonic` gave when the fit began, from which `time_limit` counts; this
            moment if None.

    Raises:
        UserError: for anything that the user can mend.
    """
    check_inputs(config)
    deadline = Deadline(config.time_limit, begun)
    inputs = prepare_texts(keep_in_time(config, dataset, deadline), dataset, deadline)
    heads = fit_heads(config, inputs)
    importances, trials = _findings(config, inputs, heads)
    facts = {
        "job": job_id(config),
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "fusion": inputs.fusion.name,
        "rows": len(dataset.splits["train"]) + len(dataset.splits["validation"]),
        "time_notes": deadline.notes(),
        "reading": inputs.reading,
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    constant = _shift_of_constant_labels(dataset)
    fitted = [_shifted(head.head, constant) for head in heads.values()]
    said = [head.held_out for head in heads.values()]
    if constant is not None:
        said = [shifted(one, constant, multilabel=True) for one in said]
    target = torch.from_numpy(dataset.splits["train"].labels)
    held_out = torch.stack([probabilities_of(one, target).float() for one in said]).numpy()
    text_of = None
    if dataset.splits["train"].groups is None:  # else they number groups, and each row is counted
        texts = next(iter(heads.values())).text_of
        text_of = None if texts is None else texts.numpy()
    facts[FACT] = Familiar.of_job(inputs, held_out, text_of=text_of, rows=HELD_OUT).facts()
    bundle = make_bundle(config, inputs, fitted, facts)
    return FittedTexts(bundle, importances, trials)


def probe_layers(
    config: TrainConfig, inputs: Inputs, layers: Sequence[LayerId]
) -> tuple[Blend, ...]:
    """Predict held-out rows of train by what a stack has for each layer."""
    candidates = candidates_of(config, inputs.dataset, inputs.sources, layers)
    return held_out_blends(candidates, config.layers, probe_device(config.extract.device))


def _held_out_probes(
    candidates: Candidates, config: LayersConfig, device: torch.device
) -> tuple[HeldOut, ...]:
    return held_out_probes(candidates, config, device)[0]


def _shift_of_constant_labels(dataset: TextDataset) -> Tensor | None:
    """Return what lets a head name the labels that every row has, and never those that none has.

    There is nothing to learn of such labels, as in a fold that lacks a rare one. What a head says
    of them is left to chance, or to `class_weights`, which would name one that it has never seen.

    Returns:
        What is added to the log-odds, shape (labels,); None where there are no such labels.
    """
    if not dataset.multilabel:
        return None
    labels = np.concatenate([rows.labels for rows in dataset.splits.values()])
    always, never = labels.all(axis=0), ~labels.any(axis=0)
    shift = torch.from_numpy(SURE * (always.astype(float) - never.astype(float)))
    return shift if shift.any() else None


def _shifted(head: Head, shift: Tensor | None) -> Head:
    """Let a head add a shift to the log-odds of labels. Shape: (labels,)."""
    if shift is None:
        return head
    if isinstance(head, OperatorHead):
        head.classifier.rescale(1.0, shift)
        return head
    pool = head.stack.pool
    pool = replace(pool, shift=shift if pool.shift is None else pool.shift + shift)
    return replace(head, stack=replace(head.stack, pool=pool))


# -- what was learned about the layers ----------------------------------------------------------


def _findings(
    config: TrainConfig, inputs: Inputs, heads: dict[int, TrainedHead]
) -> tuple[list[LayerImportance], list[Trial]]:
    """Gather the figures of layers and fusions; the probes behind them lie in the cache."""
    folded = config.fusion.name in (AUTO, *STACKS)
    if folded:
        config = replace(config, layers=replace(config.layers, held_out="folds"))
    chosen, considered = inputs.selection.layers, _considered(config, inputs)
    budget = budget_of(config, inputs.dataset, inputs.sources, layers=considered)
    probes: dict[LayerId, Predictions] = {}
    judged_on = "validation"
    if folded or _selected_by_probes(config):
        candidates = candidates_of(config, inputs.dataset, inputs.sources, considered)
        predict = held_out_blends if folded else _held_out_probes
        found = predict(candidates, config.layers, probe_device(config.extract.device))
        probes = dict(zip(considered, found, strict=True))
        if config.layers.held_out == "folds":
            judged_on = f"{int(candidates.fold_of.max()) + 1} folds"
    weights = _mean_weights(heads)
    shares = dict.fromkeys(chosen) if weights is None else dict(zip(chosen, weights, strict=True))
    importances = [
        LayerImportance(
            layer,
            layer in shares,
            shares.get(layer, 0.0),
            probes[layer].log_loss if layer in probes else None,
            probes[layer].accuracy if layer in probes else None,
        )
        for layer in considered
    ]

    def trial(fusion: str, layers: Sequence[LayerId], log_loss: float, **facts: Any) -> Trial:
        blank = {"width": None, "judged_on": judged_on, "accuracy": None}
        given = {**blank, "behind": None, "behind_error": None, **facts}
        names, flops = [str(layer) for layer in layers], budget.cost(layers).known_flops
        return Trial(fusion, layers=names, log_loss=log_loss, flops_per_text=flops, **given)

    trials = [
        trial(PROBE, [layer], probe.log_loss, accuracy=probe.accuracy)
        for layer, probe in probes.items()
    ]
    if inputs.decision is not None:
        by_name = {str(layer): layer for layer in considered}
        trials += [
            trial(
                one.fusion,
                [by_name[layer] for layer in one.layers],
                one.log_loss,
                width=None if one.fusion in STACKS else one.width,
                judged_on=f"{one.folds} folds",
                behind=one.behind,
                behind_error=one.behind_error,
                accuracy=one.accuracy,
                chosen=number == 0,
            )
            for number, one in enumerate(inputs.decision.candidates)
        ]
    elif inputs.fusion.name in STACKS:
        loss, accuracy = _judge_stack(config, inputs)
        trials.append(trial(inputs.fusion.name, chosen, loss, accuracy=accuracy, chosen=True))
    else:
        target = read_targets(inputs)["validation"]
        figures = [evaluate(head.logits["validation"], target) for head in heads.values()]
        trials.append(
            trial(
                inputs.fusion.name,
                chosen,
                float(np.mean([one["log_loss"] for one in figures])),
                accuracy=float(np.mean([one["accuracy"] for one in figures])),
                judged_on="validation",
                width=inputs.fusion.width,
                chosen=True,
            )
        )
    return importances, sorted(trials, key=lambda one: one.log_loss)


def _considered(config: TrainConfig, inputs: Inputs) -> list[LayerId]:
    """List the layers that the fit could choose among; after a pilot, those that it left."""
    if inputs.pilot is not None:  # it alone has seen the others
        tried = inputs.decision.candidates if inputs.decision is not None else []
        names = [name for one in tried for name in one.layers]
        found = [*inputs.selection.layers, *(LayerId(*name.split(":")) for name in names)]
        return list(dict.fromkeys(found))
    if not find_selection(config.layers.name).looks_at_labels:
        return select(config, inputs.dataset, inputs.sources).layers
    budget = budget_of(config, inputs.dataset, inputs.sources)
    return list(budget.affordable(all_layers(inputs.sources)))


def _selected_by_probes(config: TrainConfig) -> bool:
    scores = find_selection(config.layers.name).scores(config.layers)
    return any(find_score(name).needs == Needs.PROBES for name in scores)


def _mean_weights(heads: dict[int, TrainedHead]) -> list[float] | None:
    weights = [head.weights for head in heads.values() if head.weights is not None]
    return torch.stack(weights).double().mean(dim=0).tolist() if weights else None


def _judge_stack(config: TrainConfig, inputs: Inputs) -> tuple[float, float]:
    """Compute the cross-validated log-loss and accuracy of the first seed's stack."""
    candidates = candidates_of(config, inputs.dataset, inputs.sources, inputs.selection.layers)
    held = held_out_blends(candidates, config.layers, probe_device(config.extract.device))
    said = [probe.log_probs for probe in held]
    recipe = member_recipe(config.fusion, config.trainer, candidates, held, config.seed)
    if recipe is not None:
        said.append(recipe.held_out(candidates))
    form, predicted = judge_forms(
        torch.stack(said).double(),
        held[0].target,
        seed=config.seed,
        gated=config.fusion.name == GATED_STACK,
        text_of=held[0].text_of,
    )
    served = serve(
        config.objective,
        config.class_weights,
        predicted[form],
        held[0].target,
        seed=config.seed,
        text_of=held[0].text_of,
    )
    judged = Predictions(served, held[0].target, text_of=held[0].text_of)
    return judged.log_loss, judged.accuracy
