"""Which fusion of which layers: candidates judged on rows held out, worse ones dropped early."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from layerfusion.config.job import STACKED, FusionConfig
from layerfusion.config.operators import settled_head
from layerfusion.errors import UserError
from layerfusion.fusion.operators.capacity import head_parameters, matched_width
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import NEVER
from layerfusion.layers.selection import Selection, standard_error

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class FusionCandidate:
    """A fusion of some layers, before it is known what it is worth."""

    layer_set: str
    """How its layers were found."""
    selection: Selection
    fusion: FusionConfig
    parameters: int
    """Of the head; of a stack, those of its probes."""

    @property
    def words(self) -> str:
        """For a reader: operator, width where it has one, and layers."""
        width = "" if self.fusion.name == STACKED else f" of width {self.fusion.width}"
        sources = len(self.selection.layers)
        return f"{self.fusion.name}{width} on {self.layer_set} (K = {sources})"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a candidate was worth on the rows that it was judged on."""

    candidate: FusionCandidate
    losses: Tensor
    """Log-loss of each row in nats, NaN where the candidate was not judged. Shape: (rows,)."""
    folds: int
    """How many folds it was judged on before it was dropped."""

    @property
    def log_loss(self) -> float:
        """Mean over the rows judged."""
        return float(self.losses.nanmean())

    def behind(self, other: Evaluation) -> tuple[float, float]:
        """Mean difference to another on the rows that both were judged on, and its error."""
        difference = self.losses - other.losses
        difference = difference[~difference.isnan()]
        return float(difference.mean()), standard_error(difference)


Losses = Callable[[FusionCandidate, int], Tensor]
"""Log-loss of a candidate on the rows of a fold, having learned from the others."""


def list_fusion_candidates(
    layer_sets: Mapping[str, Selection],
    settings: FusionConfig,
    widths: Mapping[LayerId, int],
    num_classes: int,
) -> list[FusionCandidate]:
    """Every fusion that `fusion.among` and `fusion.widths` name, of every layer_set.

    Of a single layer there is one plain head a width, whatever the operator. A head that cannot
    have the capacity that `fusion.match_capacity` asks for is left out.

    Args:
        layer_sets: how layers were found, and the layers.
        settings: names, widths and all else of the fusions.
        widths: of the layers.
        num_classes: number of classes.

    Raises:
        UserError: where none is left.
    """
    candidates = []
    unmatched: UserError | None = None
    operators = [name for name in settings.among if name != STACKED]
    for layer_set, selection in layer_sets.items():
        own = [widths[layer] for layer in selection.layers]
        if STACKED in settings.among:
            size = sum(width + 1 for width in own) * num_classes
            candidates.append(
                FusionCandidate(layer_set, selection, settled_head(settings, STACKED), size)
            )
        for name in operators if len(own) > 1 else operators[:1]:
            for width in settings.widths:
                head = settled_head(settings, name, width)
                try:
                    size = _parameters(head, own, num_classes)
                except UserError as error:
                    if not head.match_capacity:
                        raise
                    unmatched = error
                    log.info("auto: left out on %s: %s", layer_set, error)
                    continue
                candidates.append(FusionCandidate(layer_set, selection, head, size))
    if unmatched is not None and not candidates:
        raise unmatched
    return candidates


def _parameters(head: FusionConfig, widths: Sequence[int], num_classes: int) -> int:
    """Of the head as it is trained: at the matched width where capacities are matched."""
    if head.match_capacity:
        head = replace(head, width=matched_width(head, widths, num_classes))
    return head_parameters(head, widths, num_classes)


def race(
    candidates: Sequence[FusionCandidate],
    stacked: Callable[[FusionCandidate], Tensor],
    trained: Losses,
    fold_of: Tensor,
) -> list[Evaluation]:
    """Judge candidates by successive halving over folds, the best one first.

    Jamieson and Talwalkar, *Non-stochastic best arm identification and hyperparameter
    optimization* (AISTATS 2016): all trained heads are judged on one fold, the better half on two,
    and so on; those that are left on all folds. Stacked fusions cost nearly nothing, so each is
    judged on all rows. Whoever was judged on all rows comes before those who were not.

    Args:
        candidates: who takes part.
        stacked: losses of a stacked candidate on all rows held out. Shape: (rows,).
        trained: losses of any other on the rows of a fold.
        fold_of: the fold that holds each row out, -1 where none does. Shape: (rows of train,).
    """
    own = fold_of[fold_of != NEVER]
    folds = int(own.max()) + 1
    finished = [Evaluation(one, stacked(one), folds) for one in candidates if _is_stacked(one)]
    running = {one: torch.full((len(own),), torch.nan, dtype=torch.float64)
               for one in candidates if not _is_stacked(one)}  # fmt: skip
    dropped: list[Evaluation] = []
    done = 0
    for stop in _rungs(folds):
        for one, losses in running.items():
            for fold in range(done, stop):
                losses[own == fold] = trained(one, fold)
        done = stop
        ranked = sorted(running, key=lambda one: float(running[one].nanmean()))
        if ranked:
            log.info("auto: %d heads on %d of %d folds", len(ranked), done, folds)
        keep = len(ranked) if done == folds else math.ceil(len(ranked) / 2)
        dropped = [Evaluation(one, running[one], done) for one in ranked[keep:]] + dropped
        running = {one: running[one] for one in ranked[:keep]}
    finished += [Evaluation(one, losses, folds) for one, losses in running.items()]
    return sorted(finished, key=lambda evaluation: evaluation.log_loss) + dropped


def _rungs(folds: int) -> list[int]:
    """1, 2, 4, … while that is less than half of the folds, and last all of them."""
    return [*(2**n for n in range(folds.bit_length()) if 2 * 2**n < folds), folds]


def _is_stacked(candidate: FusionCandidate) -> bool:
    return candidate.fusion.name == STACKED
