"""The race of `fusion=auto`: candidates are evaluated on held-out rows, bad ones dropped early."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from layerfusion.config.job import STACKS, FusionConfig
from layerfusion.config.operators import settled_head
from layerfusion.errors import UserError
from layerfusion.fusion.layer_sets import LayerSet
from layerfusion.fusion.operators.capacity import head_parameters, matched_width
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import NEVER
from layerfusion.layers.selection import standard_error

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FusionCandidate:
    """A candidate (layers and fusion) that has not been evaluated yet."""

    layer_set: LayerSet
    """Its layers, and how they were chosen."""
    fusion: FusionConfig
    parameters: int
    """Number of parameters of the head, or of a stack's probes."""

    @property
    def words(self) -> str:
        """Describe the candidate to a reader: operator, width where it has one, and layers."""
        width = "" if self.fusion.name in STACKS else f" of width {self.fusion.width}"
        return f"{self.fusion.name}{width} on {self.layer_set.name} (K = {len(self.layers)})"

    @property
    def layers(self) -> list[LayerId]:
        """The layers that it fuses."""
        return self.layer_set.selection.layers


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The log-losses of a candidate on held-out rows."""

    candidate: FusionCandidate
    losses: Tensor
    """Log-loss of each row in nats, NaN where the candidate was not evaluated. Shape: (rows,)."""
    folds: int
    """Number of folds that it was evaluated on before it was dropped."""

    @property
    def log_loss(self) -> float:
        """Mean over the rows that it was evaluated on."""
        return float(self.losses.nanmean())

    def behind(self, other: Evaluation) -> tuple[float, float]:
        """Return the mean difference to another, over the rows of both, and its standard error."""
        difference = self.losses - other.losses
        difference = difference[~difference.isnan()]
        return float(difference.mean()), standard_error(difference)


Losses = Callable[[FusionCandidate, int], Tensor]
"""Trains a candidate without a fold and returns the log-loss of each of the fold's rows."""


def list_fusion_candidates(
    layer_sets: Sequence[LayerSet],
    settings: FusionConfig,
    widths: Mapping[LayerId, int],
    num_classes: int,
) -> list[FusionCandidate]:
    """List every fusion that `fusion.among` and `fusion.widths` name, on every set of layers.

    On a single layer all operators are the same plain head, so there is one candidate for each
    width. On large sets of layers only the stack is a candidate. A head that cannot have the
    capacity that `fusion.match_capacity` asks for is left out.

    Args:
        layer_sets: the sets of layers.
        settings: the settings of `fusion=auto`.
        widths: width of each layer.
        num_classes: number of classes.

    Raises:
        UserError: if no candidate is left.
    """
    candidates = []
    unmatched: UserError | None = None
    stacks = [name for name in settings.among if name in STACKS]
    operators = [name for name in settings.among if name not in STACKS]
    for layer_set in layer_sets:
        source_widths = [widths[layer] for layer in layer_set.selection.layers]
        size = sum(width + 1 for width in source_widths) * num_classes
        for name in stacks if len(source_widths) > 1 else stacks[:1]:
            candidates.append(FusionCandidate(layer_set, settled_head(settings, name), size))
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
    if unmatched is not None and not candidates:
        raise unmatched
    return candidates


def _parameters(head: FusionConfig, widths: Sequence[int], num_classes: int) -> int:
    """Count the parameters of the head that is trained, at its matched width where there is one."""
    if head.match_capacity:
        head = replace(head, width=matched_width(head, widths, num_classes))
    return head_parameters(head, widths, num_classes)


def race(
    candidates: Sequence[FusionCandidate],
    stacked: Callable[[FusionCandidate], Tensor],
    trained: Losses,
    fold_of: Tensor,
) -> list[Evaluation]:
    """Evaluate candidates by successive halving over folds, and rank them, the best first.

    All trained heads are evaluated on one fold, the better half on two, and so on; those that are
    left on all folds (Jamieson and Talwalkar, *Non-stochastic best arm identification and
    hyperparameter optimization*, AISTATS 2016). Stacked fusions cost nearly nothing, so each is
    evaluated on all rows. Candidates evaluated on all folds rank above those dropped early.

    Args:
        candidates: the candidates.
        stacked: returns the losses of a stacked candidate on all held-out rows. Shape: (rows,).
        trained: returns the losses of any other candidate on the rows of a fold.
        fold_of: the fold that holds out each row, -1 for rows that none does. Shape: (rows of
            train,).
    """
    fold_of = fold_of[fold_of != NEVER]
    folds = int(fold_of.max()) + 1
    stacks = [candidate for candidate in candidates if _is_stacked(candidate)]
    finished = [Evaluation(candidate, stacked(candidate), folds) for candidate in stacks]
    running = {
        candidate: torch.full((len(fold_of),), torch.nan, dtype=torch.float64)
        for candidate in candidates
        if not _is_stacked(candidate)
    }
    dropped: list[Evaluation] = []
    done = 0
    for stop in _rungs(folds):
        for candidate, losses in running.items():
            for fold in range(done, stop):
                losses[fold_of == fold] = trained(candidate, fold)
        done = stop
        ranked = sorted(running, key=lambda candidate: float(running[candidate].nanmean()))
        if ranked:
            log.info("auto: %d heads on %d of %d folds", len(ranked), done, folds)
        keep = len(ranked) if done == folds else math.ceil(len(ranked) / 2)
        worse = [Evaluation(candidate, running[candidate], done) for candidate in ranked[keep:]]
        dropped = worse + dropped
        running = {candidate: running[candidate] for candidate in ranked[:keep]}
    finished += [Evaluation(candidate, losses, folds) for candidate, losses in running.items()]
    return sorted(finished, key=lambda evaluation: evaluation.log_loss) + dropped


def _rungs(folds: int) -> list[int]:
    """Return 1, 2, 4, … while that is less than half of the folds, and last all of them."""
    return [*(2**n for n in range(folds.bit_length()) if 2 * 2**n < folds), folds]


def _is_stacked(candidate: FusionCandidate) -> bool:
    return candidate.fusion.name in STACKS
