"""The race of `fusion=auto`: candidates are evaluated on held-out rows, bad ones dropped early."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from layerfusion.config.job import (
    ACCURACY,
    GATED_STACK,
    LATE_STACK,
    LOG_LOSS,
    STACKED,
    STACKS,
    UNWEIGHTED,
    FusionConfig,
)
from layerfusion.config.operators import among_of, settled_head
from layerfusion.errors import UserError
from layerfusion.fusion.deadline import Deadline, Pace
from layerfusion.fusion.head_member import head_of, read_by_head
from layerfusion.fusion.layer_sets import LayerSet
from layerfusion.fusion.objective import costs, row_weights
from layerfusion.fusion.operators.capacity import head_parameters, matched_width
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import NEVER
from layerfusion.layers.repeats import standard_error, take_texts
from layerfusion.layers.selection import SURE_ERRORS
from layerfusion.progress import steps

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FusionCandidate:
    """A candidate (layers and fusion) that has not been evaluated yet."""

    layer_set: LayerSet
    """The layers that it fuses, and how they were chosen."""
    fusion: FusionConfig
    parameters: int
    """Number of parameters of the head, or of a stack's probes and its head."""

    @property
    def words(self) -> str:
        """Describe the candidate to a reader: operator, width where it has one, and layers."""
        width = "" if self.fusion.name in STACKS else f" of width {self.fusion.width}"
        sources = f"{len(self.layers)} source{'s' * (len(self.layers) != 1)}"
        return f"{self.fusion.name}{width} on {self.layer_set.name} ({sources})"

    @property
    def layers(self) -> list[LayerId]:
        """The layers that it fuses."""
        return self.layer_set.selection.layers


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a candidate predicts for held-out rows."""

    candidate: FusionCandidate
    log_probs: Tensor
    """Log-probabilities, NaN in rows that it was not evaluated on. Shape: (rows, classes)."""
    target: Tensor
    """Labels of the rows."""
    folds: int
    """Number of folds that it was evaluated on before it was dropped."""
    text_of: Tensor | None
    """Number of the text of each row, if some repeat one. Shape: (rows,)."""
    objective: str = LOG_LOSS
    """The measure that candidates are ranked by."""
    weights: Tensor | None = None
    """What each row, or each label of a row, counts for where classes are weighted: see
    `objective.row_weights`. Shape: that of the labels."""

    @property
    def seen(self) -> Tensor:
        """True for the rows that it was evaluated on. Shape: (rows,), bool."""
        return ~self.log_probs.isnan().any(dim=1)

    @cached_property
    def log_loss(self) -> float:
        """Mean log-loss in nats over the rows that it was evaluated on."""
        return self._mean(LOG_LOSS)

    @property
    def accuracy(self) -> float:
        """Share of these rows that are right; of labels, those with all of them right."""
        return 1 - self._mean(ACCURACY)

    @cached_property
    def cost(self) -> float:
        """The log-loss, 1 - accuracy or 1 - F1 on these rows, weighted: lower is better."""
        return float(self._costs(self.seen).mean())

    def _mean(self, objective: str) -> float:
        return float(costs(objective, self.log_probs[self.seen], self.target[self.seen]).mean())

    def _costs(self, rows: Tensor) -> Tensor:
        """Return what each of some rows adds to the cost. Shape: (rows chosen,), float64."""
        weights = None if self.weights is None else self.weights[rows]
        return costs(self.objective, self.log_probs[rows], self.target[rows], weights)

    def behind(self, other: Evaluation) -> tuple[float, float]:
        """Return the difference of costs on the rows of both, and its standard error."""
        both = self.seen & other.seen
        mine, others = self._costs(both), other._costs(both)
        error = standard_error(mine - others, take_texts(self.text_of, both))
        return float((mine - others).mean()), error


Predict = Callable[[FusionCandidate, Sequence[int]], Sequence[Tensor]]
"""Trains a candidate without each of some folds and returns log-probabilities of their rows."""


def list_fusion_candidates(
    layer_sets: Sequence[LayerSet],
    settings: FusionConfig,
    widths: Mapping[LayerId, int],
    num_classes: int,
    *,
    multilabel: bool = False,
    losses: Mapping[LayerId, float] | None = None,
    counted: Mapping[LayerId, int] | None = None,
) -> list[FusionCandidate]:
    """List every fusion that `fusion.among` and `fusion.widths` name, on every set of layers.

    On a single layer all operators are the same plain head, so there is one candidate for each
    width. On large sets of layers only stacks are candidates. The head of a stack has the first of
    the widths. A head that cannot have the capacity that `fusion.match_capacity` asks for is left
    out.

    Args:
        layer_sets: the sets of layers.
        settings: the settings of `fusion=auto`.
        widths: width of each layer.
        num_classes: number of classes.
        multilabel: whether a text has any number of the classes.
        losses: held-out log-loss of the layers that the head of a stack may read; none if None.
        counted: number of words or runs of characters that a stack weighs of each lexical source,
            where other heads read its vectors; all are taken for layers if None.

    Raises:
        UserError: if no candidate is left.
    """
    candidates = []
    unmatched: UserError | None = None
    among = among_of(settings, multilabel=multilabel)
    stacks = [name for name in among if name in STACKS and name != LATE_STACK]
    operators = [name for name in among if name not in STACKS]
    for layer_set in layer_sets:
        source_widths = [widths[layer] for layer in layer_set.selection.layers]
        weighed = [(counted or {}).get(x, widths[x]) for x in layer_set.selection.layers]
        size = sum(width + 1 for width in weighed) * num_classes
        for name in stacks if len(source_widths) > 1 else stacks[:1]:
            candidates.append(FusionCandidate(layer_set, settled_head(settings, name), size))
        read = read_by_head(layer_set.selection.layers, losses or {})
        if LATE_STACK in among and read:
            stack = settled_head(settings, LATE_STACK, settings.widths[0])
            head = _parameters(head_of(stack), [source_widths[n] for n in read], num_classes)
            candidates.append(FusionCandidate(layer_set, stack, size + head))
        if layer_set.only_stacked:
            continue
        for name in operators if len(source_widths) > 1 else operators[:1]:
            for width in settings.widths:
                head = settled_head(settings, name, width)
                try:
                    size = _parameters(head, source_widths, num_classes)
                except UserError as error:
                    if not head.match_capacity:
                        raise
                    unmatched = error
                    log.info("auto: left out on %s: %s", layer_set.name, error)
                    continue
                candidates.append(FusionCandidate(layer_set, head, size))
    if not candidates:
        raise unmatched or UserError(
            f"fusion.among=[{','.join(among)}]: the head of a stack reads layers of models, and"
            " there are none to choose; stacked takes words and characters alone"
        )
    return candidates


def _parameters(head: FusionConfig, widths: Sequence[int], num_classes: int) -> int:
    """Count the parameters of the head that is trained, at its matched width where there is one."""
    if head.match_capacity:
        head = replace(head, width=matched_width(head, widths, num_classes))
    return head_parameters(head, widths, num_classes)


def race(
    candidates: Sequence[FusionCandidate],
    stacked: Callable[[Sequence[FusionCandidate]], Sequence[Tensor]],
    trained: Predict,
    fold_of: Tensor,
    target: Tensor,
    num_classes: int,
    text_of: Tensor | None,
    objective: str = LOG_LOSS,
    deadline: Deadline | None = None,
    class_weights: str = UNWEIGHTED,
) -> list[Evaluation]:
    """Evaluate candidates by successive halving over folds, and rank them, the best first.

    All trained heads are evaluated on one fold, the better half on two, and so on; those that are
    left on all folds (Jamieson and Talwalkar, *Non-stochastic best arm identification and
    hyperparameter optimization*, AISTATS 2016). Stacked fusions cost nearly nothing, so each is
    evaluated on all rows; one with a trained head costs a head for each fold, so it is tried where
    the others are best. Candidates evaluated on all folds rank above those dropped early.

    Args:
        candidates: the candidates.
        stacked: returns log-probabilities of stacked candidates for all held-out rows. Shapes:
            (rows, classes).
        trained: returns those of any other candidate for the rows of each of some folds. Within a
            deadline it is asked for one fold at a time.
        fold_of: the fold that holds out each row, -1 for rows that none does. Shape: (rows of
            train,).
        target: labels of the rows of train.
        num_classes: number of classes.
        text_of: number of the text of each held-out row, if some repeat one. Shape: (rows,).
        objective: what they are ranked by: log_loss, accuracy, macro_f1 or micro_f1.
        deadline: end of the time. A head is not evaluated if that would end too late by the slowest
            one so far, with time to train the chosen one; at least one candidate always is.
        class_weights: none, or balanced to let all classes count alike, and of labels the rows with
            one as much as those without it.
    """
    held_out = fold_of != NEVER
    fold_of, target = fold_of[held_out], target[held_out]
    weights = row_weights(class_weights, target, num_classes)

    def evaluation(candidate: FusionCandidate, log_probs: Tensor, folds: int) -> Evaluation:
        return Evaluation(candidate, log_probs, target, folds, text_of, objective, weights)

    deadline = deadline or Deadline()
    folds = int(fold_of.max()) + 1
    plain = [one for one in candidates if one.fusion.name in STACKS and not _has_head(one)]
    said = zip(plain, stacked(plain), strict=True)
    finished = [evaluation(candidate, log_probs, folds) for candidate, log_probs in said]
    candidates = _without_dear_stacks(candidates, _ranked(finished))
    for candidate in steps([*filter(_has_head, candidates)], "stacks with a head"):
        if finished and not deadline.allows(0):
            deadline.leave_out(f"fusion=auto did not try {candidate.words}; there was no time")
            continue
        try:
            (log_probs,) = stacked([candidate])
            finished.append(evaluation(candidate, log_probs, folds))
        except UserError as error:
            if not finished:
                raise
            log.info("auto: left out %s: %s", candidate.words, error)
    running = {
        candidate: torch.full((len(target), num_classes), torch.nan, dtype=torch.float64)
        for candidate in candidates
        if candidate.fusion.name not in STACKS
    }
    dropped: list[Evaluation] = []
    done = 0
    pace = Pace(deadline)
    for stop in _rungs(folds):
        ready = []
        heads = f"heads of auto on {stop} of {folds} folds"
        for candidate, log_probs in steps(running.items(), heads):
            if (finished or done or ready) and not pace.allows(stop - done + 1):
                break
            rung = range(done, stop)
            for some in [rung] if deadline.limit is None else [[fold] for fold in rung]:
                with pace.step():
                    for fold, said in zip(some, trained(candidate, some), strict=True):
                        log_probs[fold_of == fold] = said.double()
            ready.append(candidate)
        if late := [candidate for candidate in running if candidate not in ready]:
            dropped = _ranked([evaluation(x, running[x], done) for x in late if done]) + dropped
            running = {candidate: running[candidate] for candidate in ready}
            seen = len(finished) + len(running) + len(dropped)
            whole = len(finished) + (len(running) if stop == folds else 0)
            deadline.leave_out(
                f"fusion=auto evaluated {seen} of {len(candidates)} candidates, {whole} of them on"
                f" all {folds} folds; there was no time for more"
            )
        done = stop
        costs_so_far = {one: evaluation(one, found, done).cost for one, found in running.items()}
        ranked = sorted(running, key=costs_so_far.__getitem__)
        if ranked:
            log.info("auto: %d heads on %d of %d folds", len(ranked), done, folds)
        keep = len(ranked) if done == folds else math.ceil(len(ranked) / 2)
        if late:  # nobody goes on
            keep = len(ranked) if done == folds else 0
        worse = [evaluation(candidate, running[candidate], done) for candidate in ranked[keep:]]
        dropped = worse + dropped
        running = {candidate: running[candidate] for candidate in ranked[:keep]}
        if late:
            break
    finished += [evaluation(candidate, found, folds) for candidate, found in running.items()]
    return _ranked(finished) + dropped


def prefer(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Choose the stack of the most layers, unless another candidate is surely better.

    What is best on few held-out rows is so by luck, while an average of many loses little by those
    that add nothing. Of several that are surely better it is the best.

    Args:
        evaluations: all candidates, the best first, as `race` returns them.
    """
    whole = [one for one in evaluations if one.folds == evaluations[0].folds]
    widest = widest_stack(whole)
    if widest is None:
        return evaluations[0]

    def is_surely_better(one: Evaluation) -> bool:
        behind, error = one.behind(widest)
        return -behind > SURE_ERRORS * error

    return next(filter(is_surely_better, whole), widest)


def widest_stack(evaluations: Sequence[Evaluation]) -> Evaluation | None:
    """Find the stack of the most layers that has no head, the first of equal ones; None if none."""
    stacks = [one for one in evaluations if one.candidate.fusion.name in (STACKED, GATED_STACK)]
    return max(stacks, key=lambda one: len(one.candidate.layers), default=None)


def _ranked(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    return sorted(evaluations, key=lambda one: one.cost)


def _rungs(folds: int) -> list[int]:
    """Return 1, 2, 4, … while that is less than half of the folds, and last all of them."""
    return [*(2**n for n in range(folds.bit_length()) if 2 * 2**n < folds), folds]


def _has_head(candidate: FusionCandidate) -> bool:
    return candidate.fusion.name == LATE_STACK


def _without_dear_stacks(
    candidates: Sequence[FusionCandidate], ranked: Sequence[Evaluation]
) -> list[FusionCandidate]:
    """Leave out stacks with a trained head but on the layers of the best stack without one.

    Args:
        candidates: all candidates.
        ranked: the evaluated stacks without a head, the best first. Where there is none, nothing
            says on which layers a head is worth its time.
    """
    best = [one.candidate.layer_set for one in ranked[:1]]
    return [one for one in candidates if not (_has_head(one) and best) or one.layer_set in best]
