"""Trains the heads of a job, one for each seed, or stacks probes; test is evaluated once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerfusion.config.job import GATED_STACK, STACKS, TrainConfig
from layerfusion.embeddings.backbone import probe_device
from layerfusion.embeddings.gpus import clock
from layerfusion.embeddings.lexical import LexicalSource
from layerfusion.embeddings.matrices import Rows
from layerfusion.embeddings.shape import BATCH
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.head_files import Head, StackHead
from layerfusion.fusion.member_training import member_recipe
from layerfusion.fusion.operator_head import OperatorHead
from layerfusion.fusion.stacking import fit_stack, refit
from layerfusion.fusion.together import HeadTask, fit_alone, fit_together
from layerfusion.fusion.training import Fitted
from layerfusion.layers.blends import held_out_blends
from layerfusion.layers.candidates import read_layers
from layerfusion.layers.discriminant import Blend
from layerfusion.layers.labels import is_multilabel, log_probabilities
from layerfusion.layers.lexical_regression import LexicalRegression, count
from layerfusion.layers.selection import ProbedLayer
from layerfusion.layers.threads import each_on_a_core
from layerfusion.progress import steps
from layerfusion.records.job import SeedRecord
from layerfusion.runs.inputs import Inputs, read_features, read_targets
from layerfusion.runs.protocol import CallbackFactory
from layerfusion.runs.select_layers import candidates_of
from layerfusion.statistics.metrics import evaluate
from layerfusion.tracking.tracker import Tracker

JUDGED = ("validation", "test")
CALLS = 5
"""Number of timed calls of a head. The fastest one counts."""


@dataclass(frozen=True)
class TrainingResult:
    """The heads of a job and their predictions on test."""

    seeds: list[SeedRecord]
    target: np.ndarray
    """Labels of the test rows: see `layers.labels`."""
    text_of: np.ndarray
    """The first row of test that has the text, or group, of each. Shape: (rows,), int64."""
    probabilities: np.ndarray
    """Predicted probabilities of the test rows. Shape: (seeds, rows, classes), float32."""
    gates: np.ndarray | None
    """Gates of the test rows, averaged over the seeds. Shape: (rows, sources)."""
    gate_epochs: list[list[list[float]]]
    """Mean gate of each source over validation, for each seed and epoch."""
    head_parameters: int
    head_flops: int
    """FLOPs of a head for one text."""
    seconds: float
    notes: list[str]
    heads: list[Head] = field(default_factory=list)
    """One head for each seed; empty if nobody should use them."""
    protocol_facts: dict[str, Any] = field(default_factory=dict)
    """Facts that only this protocol has, for the record."""
    head_milliseconds: tuple[float | None, float | None] = (None, None)
    """Time of a head for one text, and for a batch of 32; None if not measured."""
    references: Sequence[TrainedReference] = ()
    """Single layers that the fusion is compared with."""


@dataclass(frozen=True)
class TrainedReference:
    """A single layer alone, as a stack has it: the measure of what fusing is worth."""

    probed: ProbedLayer
    column: str
    """Name of the column of its answers among the predictions of test."""
    logits: Tensor
    """Logits of the test rows. Shape: (rows, classes)."""
    parameters: int
    flops: int


@dataclass(frozen=True)
class TrainedHead:
    """The head of one seed and its predictions."""

    head: Head
    logits: Mapping[str, Tensor]
    """Logits of validation and test, where they have rows; of labels, log-probabilities. Shapes:
    (rows, classes)."""
    gates: Tensor | None
    """Gates of the test rows. Shape: (rows, sources)."""
    held_out: Tensor
    """Logits of the rows of train that nothing of a stack but its pool had seen, or of validation;
    of labels, log-probabilities. Shape: (rows, classes)."""
    text_of: Tensor | None
    """Number of the text of each of these rows; None if all differ. Shape: (rows,)."""
    weights: Tensor | None
    """Mean gates over rows that the head did not learn from: validation, or the held-out rows of a
    stack. Shape: (sources,). None where the operator has no gates."""
    parameters: int
    flops: int
    seconds: float
    milliseconds: tuple[float, float] | None
    """Time for one text, and for a batch of 32; None without rows of test."""
    gate_epochs: list[list[float]] = field(default_factory=list)
    best_epoch: int = 0
    epochs: int = 0
    note: str = ""
    temperature: float | None = None
    """Divided the logits of a trained head; None for a stack, which is calibrated as a whole."""
    uncalibrated: Tensor | None = None
    """Logits of test before anything was changed; None if nothing was. Those of a stack are at
    equal weights. Shape: (rows, classes)."""
    shift: str = ""
    """What was added to the scores for the objective, in one clause; empty where nothing was."""


def train_heads(
    config: TrainConfig, inputs: Inputs, tracker: Tracker, callbacks: CallbackFactory | None = None
) -> TrainingResult:
    """Train one head for each seed on the selected layers."""
    targets = read_targets(inputs)
    heads = fit_heads(config, inputs, tracker, callbacks)
    records = []
    for seed, head in heads.items():
        validation, test = (evaluate(head.logits[split], targets[split]) for split in JUDGED)
        before = {}
        if head.uncalibrated is not None:
            before = evaluate(head.uncalibrated, targets["test"])
        records.append(
            SeedRecord(
                seed,
                head.best_epoch,
                head.epochs,
                head.seconds,
                validation=validation,
                test=test,
                temperature=head.temperature,
                uncalibrated=before,
                shift=head.shift,
            )
        )
    gates = [head.gates.numpy() for head in heads.values() if head.gates is not None]
    return TrainingResult(
        seeds=records,
        target=targets["test"].numpy(),
        text_of=inputs.dataset.splits["test"].unit_of,
        probabilities=np.stack(
            [
                probabilities_of(head.logits["test"].float(), targets["test"]).numpy()
                for head in heads.values()
            ]
        ),
        gates=np.mean(gates, axis=0) if gates else None,
        gate_epochs=[head.gate_epochs for head in heads.values() if head.gate_epochs],
        head_parameters=max(head.parameters for head in heads.values()),
        head_flops=max(head.flops for head in heads.values()),
        seconds=sum(record.seconds for record in records),
        notes=[f"seed {seed}: {head.note}" for seed, head in heads.items() if head.note],
        head_milliseconds=next(iter(heads.values())).milliseconds or (None, None),
        heads=[head.head for head in heads.values()],
    )


def probabilities_of(logits: Tensor, target: Tensor) -> Tensor:
    """Return the probabilities of logits, or of log-probabilities of labels: see `TrainedHead`."""
    return logits.exp() if is_multilabel(target) else logits.softmax(dim=1)


def fit_heads(
    config: TrainConfig,
    inputs: Inputs,
    tracker: Tracker | None = None,
    callbacks: CallbackFactory | None = None,
) -> dict[int, TrainedHead]:
    """Fit one head for each seed, and let it predict validation and test, as far as there are any.

    Test may have no rows. Validation may have none where the heads are stacks, which need nothing
    to stop on.
    """
    targets = read_targets(inputs)
    if inputs.fusion.name in STACKS:
        return _stack(config, inputs, targets)
    return _train(config, inputs, read_features(inputs), targets, tracker, callbacks)


def milliseconds(
    predict: Callable[[Sequence[Tensor]], object], features: Sequence[Rows]
) -> tuple[float, float]:
    """Time a trained head on one text and on a batch of 32, as the fastest of a few calls."""
    taken = []
    for rows in (1, BATCH):
        some = [source[:rows] for source in features]
        # Rows are repeated if test has fewer than the batch needs.
        some = [source.repeat(-(-rows // len(source)), 1)[:rows] for source in some]
        times = []
        for _ in range(CALLS):
            begun = time.perf_counter()
            predict(some)
            times.append(time.perf_counter() - begun)
        taken.append(1000 * min(times))
    return taken[0], taken[1]


def _train(
    config: TrainConfig,
    inputs: Inputs,
    features: Mapping[str, list[Tensor]],
    targets: Mapping[str, Tensor],
    tracker: Tracker | None,
    callbacks: CallbackFactory | None,
) -> dict[int, TrainedHead]:
    """Train a head for each seed by gradient descent, and choose its epoch on validation."""
    text_of = inputs.dataset.splits["validation"].unit_of
    data = FusionDataModule(features, targets, config.trainer.batch_size, text_of=text_of)
    judged = _with_rows(targets)
    heads = {}
    for seed, fitted in _fitted(config, inputs, data, tracker, callbacks):
        predicted = {
            split: fitted.classifier.predict_logits(data.features[split]) for split in judged
        }
        gates = {split: found for split, (_, found) in predicted.items() if found is not None}
        logits = {split: _said(fitted, found) for split, (found, _) in predicted.items()}
        uncalibrated = None
        if "test" in judged and fitted.is_calibrated:
            uncalibrated = _said(fitted, fitted.uncalibrated(predicted["test"][0]))
        shift = fitted.shift.words if fitted.shift is not None else ""
        heads[seed] = TrainedHead(
            OperatorHead(fitted.classifier, data.standardiser),
            logits,
            gates.get("test"),
            logits["validation"],
            data.text_of,
            gates["validation"].mean(dim=0) if gates else None,
            fitted.classifier.num_parameters,
            fitted.classifier.num_flops,
            fitted.seconds,
            milliseconds(fitted.classifier.predict_logits, data.features["test"])
            if "test" in judged
            else None,
            fitted.classifier.gate_epochs,
            fitted.best_epoch,
            fitted.epochs,
            temperature=fitted.temperature,
            uncalibrated=uncalibrated,
            note=shift,
            shift=shift,
        )
    return heads


def _fitted(
    config: TrainConfig,
    inputs: Inputs,
    data: FusionDataModule,
    tracker: Tracker | None,
    callbacks: CallbackFactory | None,
) -> Iterator[tuple[int, Fitted]]:
    """Train the heads of all seeds together; one by one with callbacks or a limit of time."""
    common = {
        "num_classes": len(inputs.dataset.label_names),
        "objective": config.objective,
        "class_weights": config.class_weights,
    }

    def task(seed: int) -> HeadTask:
        return HeadTask(
            data,
            inputs.fusion,
            seed,
            names=[str(layer) for layer in inputs.selection.layers],
            importance=inputs.selection.weights,
            logger=tracker.lightning_logger(f"seed{seed}") if tracker else None,
        )

    if callbacks is None and inputs.deadline.limit is None:
        seeds = range(config.seed, config.seed + config.seeds)
        fitted = fit_together([task(seed) for seed in seeds], config.trainer, **common)
        yield from zip(seeds, fitted, strict=True)
        return
    for seed in _seeds(config, inputs):
        own = callbacks(seed - config.seed) if callbacks else ()
        yield seed, fit_alone(task(seed), config.trainer, **common, callbacks=own)


def _said(fitted: Fitted, logits: Tensor) -> Tensor:
    """Return log-probabilities of labels; the logits of classes are kept as they are."""
    return log_probabilities(logits, multilabel=True) if fitted.classifier.multilabel else logits


def _stack(
    config: TrainConfig, inputs: Inputs, targets: Mapping[str, Tensor]
) -> dict[int, TrainedHead]:
    """Stack probes for each seed. The seed assigns the rows to the folds of the held-out probes.

    A stack fitted on train is evaluated on validation. The same stack, refitted on train and
    validation together, is evaluated on test and kept by the job. A trained head that is a member
    of it is fitted on the same rows. Strengths are chosen with the first seed; the others try only
    those that some source took.
    """
    device = probe_device(config.extract.device)
    layers = replace(config.layers, held_out="folds")
    chosen, num_classes = inputs.selection.layers, len(inputs.dataset.label_names)
    labels = torch.cat([targets["train"], targets["validation"]])
    judged = _with_rows(targets)
    units = {name: split.units for name, split in inputs.dataset.splits.items()}
    heads: dict[int, TrainedHead] = {}
    sources: StackSources | None = None
    for seed in _seeds(config, inputs):
        begun = clock()
        dealt = replace(config, seed=seed, layers=layers)
        candidates = candidates_of(dealt, inputs.dataset, inputs.sources, chosen)
        held = held_out_blends(candidates, layers, device)
        if sources is None:
            sources = _stack_sources(inputs, targets, held)
            own = {
                probe.strength
                for probe, vectors in zip(held, sources.train, strict=True)
                if vectors is not None and probe.strength is not None
            }
            layers = replace(layers, strengths=sorted(own)) if own else layers
        recipe = member_recipe(inputs.fusion, config.trainer, candidates, held, seed)
        said = [probe.log_probs for probe in held]
        beside = None
        if recipe is not None:
            said.append(recipe.held_out(candidates))
            member = recipe.train(sources.train, targets["train"], units["train"])
            beside = member, said[-1]
        stack = fit_stack(
            sources.train,
            targets["train"],
            held,
            num_classes=num_classes,
            seed=seed,
            gated=inputs.fusion.name == GATED_STACK,
            objective=config.objective,
            class_weights=config.class_weights,
            beside=beside,
            device=device,
        )
        logits, gates, kept, uncalibrated = {}, None, stack, None
        if "validation" in judged:
            logits["validation"] = stack.predict(sources.validation)[0]
            again = None
            if recipe is not None:
                known = [*units["train"], *units["validation"]]
                again = recipe.train(sources.known, labels, known)
            kept = refit(stack, sources.known, labels, held, member=again, device=device)
        if "test" in judged:
            each = kept.each_member(sources.test)
            logits["test"], gates = (part.float() for part in kept.pool_of(each))
            uncalibrated = kept.at_equal_weights().pool_of(each)[0].float()
        held_out, weights = kept.pool_of(torch.stack(said))
        heads[seed] = TrainedHead(
            StackHead(kept, sources.regressions),
            logits,
            gates if len(chosen) > 1 else None,
            held_out,
            held[0].text_of,
            weights.mean(dim=0),
            kept.num_parameters + sum(one.num_parameters for one in sources.regressions.values()),
            kept.num_flops,
            clock() - begun,
            milliseconds(kept.predict, sources.test) if "test" in judged else None,
            note=stack.reason,
            uncalibrated=uncalibrated,
            shift=stack.shift,
        )
    return heads


def _seeds(config: TrainConfig, inputs: Inputs) -> Iterator[int]:
    """Give the seeds of the training runs, the first always and others while there is time."""
    seeds = range(config.seed, config.seed + config.seeds)
    return steps(inputs.deadline.steps(seeds, "seeds were trained"), "heads", config.seeds)


def _with_rows(targets: Mapping[str, Tensor]) -> list[str]:
    return [split for split in JUDGED if len(targets[split])]


@dataclass(frozen=True)
class StackSources:
    """What the sources of a stack say of each row, in the order of the selection.

    These are vectors of layers, shapes (rows, width), and the scores of lexical regressions, shapes
    (rows, classes): see `LexicalRegression.vectors`. Rows that a regression has learned from have
    None in their place.
    """

    train: list[Tensor | None]
    known: list[Tensor | None]
    """Train and validation together."""
    validation: list[Tensor]
    """Regressions have learned from train."""
    test: list[Tensor]
    """Regressions have learned from train and validation."""
    regressions: Mapping[str, LexicalRegression]
    """Lexical source to the regression that learned from train and validation."""


def _stack_sources(
    inputs: Inputs, targets: Mapping[str, Tensor], held: Sequence[Blend]
) -> StackSources:
    """Read the layers, and fit the regressions of lexical sources with their held-out strengths."""
    splits = inputs.dataset.splits
    chosen = inputs.selection.layers
    layers = [x for x in chosen if not isinstance(inputs.sources[x.backbone], LexicalSource)]
    known = [*inputs.hashes["train"], *inputs.hashes["validation"]]
    vectors = {
        part: dict(zip(layers, read_layers(inputs.sources, layers, hashes), strict=True))
        for part, hashes in {"known": known, "test": inputs.hashes["test"]}.items()
    }
    learned = len(inputs.hashes["train"])
    regressions = _lexical_regressions(inputs, targets, held)
    found = StackSources([], [], [], [], {})
    for layer in chosen:
        if layer in vectors["known"]:
            found.known.append(vectors["known"][layer])
            found.train.append(vectors["known"][layer][:learned])
            found.validation.append(vectors["known"][layer][learned:])
            found.test.append(vectors["test"][layer])
        else:
            of_train, of_known = (regressions[layer.backbone, part] for part in ("train", "known"))
            found.train.append(None)
            found.known.append(None)
            found.validation.append(_predicted(of_train, splits["validation"].texts))
            found.test.append(_predicted(of_known, splits["test"].texts))
    kept = {name: one for (name, part), one in regressions.items() if part == "known"}
    return replace(found, regressions=kept)


def _lexical_regressions(
    inputs: Inputs, targets: Mapping[str, Tensor], held: Sequence[Blend]
) -> dict[tuple[str, str], LexicalRegression]:
    """Fit each lexical source on train, and on the known rows: train and validation together."""
    train, validation = (inputs.dataset.splits[name].texts for name in ("train", "validation"))
    texts, labels = [*train, *validation], torch.cat([targets["train"], targets["validation"]])
    known = np.ones(len(texts), bool)
    rows = {"train": np.arange(len(texts)) < len(train), "known": known}

    found: dict[tuple[str, str], LexicalRegression] = {}
    for layer, probe in zip(inputs.selection.layers, held, strict=True):
        source = inputs.sources[layer.backbone]
        if not isinstance(source, LexicalSource):
            continue
        if probe.strength is None:
            raise ValueError(f"{layer}: a lexical source is a regression")
        learn = partial(
            LexicalRegression.learn,
            count(source.config.features, texts, source.config.max_features),
            labels=labels.numpy(),
            strength=probe.strength,
            num_classes=len(inputs.dataset.label_names),
            learner=source.config.learner,
        )
        for part, regression in zip(rows, each_on_a_core(learn, [*rows.values()]), strict=True):
            found[layer.backbone, part] = regression
    return found


def _predicted(regression: LexicalRegression, texts: Sequence[str]) -> Tensor:
    """Return the scores of texts, of which there may be none. Shape: (texts, classes)."""
    return regression.vectors(texts) if texts else torch.empty(0, len(regression.bias))
