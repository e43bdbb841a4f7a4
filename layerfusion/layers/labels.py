"""What labels are in tensors, and what predictions of them are worth.

A row has one of several classes, or any number of several labels (multilabel). The shape of the
labels says which: (rows,) class indices, or (rows, labels), true where a row has a label. Either
way predictions are the log-probabilities of classes or labels, (rows, classes). Those of labels do
not add up to one: each label is a decision of its own, yes or no.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import NAMED_FROM
from layerfusion.errors import UserError


def is_multilabel(target: Tensor) -> bool:
    """Tell whether rows have any number of labels, by the shape of the labels."""
    return target.ndim == 2


COMPARES_CLASSES = (
    "it compares classes, of which a row has one; rows with several labels need probe, accuracy,"
    " attention_entropy or effective_rank"
)
"""Why a score has no meaning for rows with several labels, and the scores that do."""


def require_classes(what: str, target: Tensor) -> None:
    """Refuse what compares the rows of classes where rows have any number of labels.

    Args:
        what: what needs a class for each row, as a user named it.
        target: labels of the rows.

    Raises:
        UserError: for rows with any number of labels.
    """
    if is_multilabel(target):
        raise UserError(f"{what}: {COMPARES_CLASSES}")


def log_probabilities(logits: Tensor, *, multilabel: bool) -> Tensor:
    """Turn scores into log-probabilities of classes, or of labels one by one.

    Args:
        logits: scores before the softmax, or log-odds of each label. Shape: (…, classes).
        multilabel: whether they are of labels.
    """
    return F.logsigmoid(logits) if multilabel else logits.log_softmax(dim=-1)


def log_odds(log_probs: Tensor) -> Tensor:
    """Turn log-probabilities of labels into log-odds. Shape: that of the argument."""
    return log_probs - _log_complement(log_probs)


def classification_loss(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of a batch, in nats; of labels, over rows and labels.

    Args:
        logits: scores. Shape: (rows, classes).
        target: labels of the rows.
        weights: weight of each class, or of the rows that have a label. Shape: (classes,).
    """
    if is_multilabel(target):
        return F.binary_cross_entropy_with_logits(logits, target.to(logits), pos_weight=weights)
    return F.cross_entropy(logits, target, weight=weights)


def row_losses(log_probs: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the log-loss of each row in nats; of labels, the mean over them.

    Args:
        log_probs: log-probabilities of rows. Shape: (rows, classes).
        target: labels of the rows.
        weights: what the loss of each row, or of each label of a row, is multiplied by; 1 if None.
            Shape: that of the labels.

    Returns:
        Shape: (rows,), float64.
    """
    log_probs = log_probs.double()
    if is_multilabel(target):
        losses = -torch.where(target.bool(), log_probs, _log_complement(log_probs))
    else:
        losses = F.nll_loss(log_probs, target, reduction="none")
    losses = losses if weights is None else losses * weights
    return losses.mean(dim=1) if is_multilabel(target) else losses


def mean_loss(log_probs: Tensor, target: Tensor) -> Tensor:
    """Return the mean log-loss in nats, in the precision of the log-probabilities. Shape: ()."""
    if is_multilabel(target):
        return row_losses(log_probs, target).mean()
    return F.nll_loss(log_probs, target)


def right_rows(log_probs: Tensor, target: Tensor) -> Tensor:
    """Tell which rows are right: their most probable class is, or all of their labels are.

    Shape: (rows,), bool, from (rows, classes).
    """
    multilabel = is_multilabel(target)
    same = answers(log_probs, multilabel=multilabel) == target
    return same.all(dim=1) if multilabel else same


def answers(log_probs: Tensor, *, multilabel: bool) -> Tensor:
    """Return the most probable class, shape (rows,), or the labels named, (rows, labels), bool."""
    return log_probs.exp().float() >= NAMED_FROM if multilabel else log_probs.argmax(dim=1)


def label_counts(target: Tensor, num_classes: int) -> Tensor:
    """Count the rows of each class, or with each label. Shape: (classes,), int64."""
    if is_multilabel(target):
        return target.sum(dim=0)
    return torch.bincount(target, minlength=num_classes)


def decisions(log_probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Make each label of a row a row of its own with the classes no and yes.

    What is learned for classes is learned for labels on these rows, of which those of a text stand
    together. Classes stay as they are.

    Args:
        log_probs: log-probabilities. Shape: (…, rows, labels).
        target: labels of the rows.

    Returns:
        Log-probabilities, shape (…, rows · labels, 2), and classes, shape (rows · labels,).
    """
    if not is_multilabel(target):
        return log_probs, target
    return unfolded(log_probs), target.long().flatten()


def unfolded(log_probs: Tensor) -> Tensor:
    """Return log-probabilities of no and yes for each label. Shape: (…, rows · labels, 2)."""
    return torch.stack([_log_complement(log_probs), log_probs], dim=-1).flatten(-3, -2)


def folded(log_probs: Tensor, labels: int) -> Tensor:
    """Undo `unfolded`. Shape: (…, rows, labels), from (…, rows · labels, 2)."""
    return log_probs[..., 1].unflatten(-1, (-1, labels))


def by_row(values: Tensor, target: Tensor) -> Tensor:
    """Average numbers of decisions over the labels of a row. Shape: (rows,)."""
    return values.view(target.shape).mean(dim=1) if is_multilabel(target) else values


def _log_complement(log_probs: Tensor) -> Tensor:
    """Return log(1 - p) from log p, which is below zero; of p = 1, a very small number."""
    tiny = torch.finfo(log_probs.dtype).tiny
    log_probs = log_probs.clamp_max(-tiny)
    near_one = log_probs > math.log(0.5)
    return torch.where(near_one, (-torch.expm1(log_probs)).log(), torch.log1p(-log_probs.exp()))
