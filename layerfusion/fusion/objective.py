"""What a classifier should be best at, and how its probabilities are made to serve that.

`objective` is the measure by which epochs and fusions are chosen: log-loss, accuracy or an F1. Each
is here a mean over rows of one number for each row, so that two fusions can be compared row by row,
with a standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import ACCURACY, BALANCED, LOG_LOSS, MICRO_F1
from layerfusion.layers.labels import (
    answers,
    is_multilabel,
    label_counts,
    log_odds,
    right_rows,
    row_losses,
)
from layerfusion.layers.repeats import standard_error
from layerfusion.statistics.f1 import f1_of_rows

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the classes' log-frequencies that are tried, to be taken off the log-probabilities."""
THRESHOLDS = (0.4, 0.3, 0.2)
"""Probabilities that are tried as the least from which a label is named, beside one half."""


def costs(
    objective: str, log_probs: Tensor, target: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return what each row adds to a measure, of which lower is better.

    The mean is the log-loss in nats, or 1 - accuracy, or 1 - F1. F1 is no mean over rows; what a
    row adds to it is that of `statistics.f1.f1_of_rows`, so that the mean is exact, and the
    standard error of a difference is that of the delta method. Of classes, micro-F1 is accuracy. Of
    labels, a row is accurate where all of them are right.

    Args:
        objective: log_loss, accuracy, macro_f1 or micro_f1.
        log_probs: log-probabilities of rows. Shape: (rows, classes).
        target: class indices, shape (rows,), or labels, shape (rows, classes).
        weights: what rows count for, as `row_weights` has it; all count alike if None. Log-loss and
            the accuracy of classes are weighted. Labels are right or wrong together in accuracy,
            classes and labels count alike in macro-F1, and answers do in the micro-F1 of labels.

    Returns:
        Shape: (rows,), float64.
    """
    multilabel = is_multilabel(target)
    if objective == LOG_LOSS:
        return row_losses(log_probs, target, weights)
    if objective == ACCURACY or (objective == MICRO_F1 and not multilabel):
        wrong = (~right_rows(log_probs, target)).double()
        return wrong if weights is None or multilabel else wrong * weights
    said = answers(log_probs, multilabel=multilabel)
    return 1 - torch.from_numpy(f1_of_rows(objective, target.numpy(), said[None].numpy()))


@dataclass(frozen=True)
class Shift:
    """What is added to the scores of classes or labels, so that they serve the objective."""

    values: Tensor
    """Shape: (classes,), float64."""
    words: str
    """What was done, in one clause."""


def find_shift(
    objective: str,
    class_weights: str,
    log_probs: Tensor,
    target: Tensor,
    prior: Tensor,
    text_of: Tensor | None,
) -> Shift | None:
    """Find what is to be added to the scores for the objective; None where nothing is.

    A classifier that is asked for macro-F1, or to weigh all classes alike, has to name rare classes
    more often than one that is asked for accuracy. It is given the log-probabilities of a
    population in which the classes are less unequal: a share of their log-frequencies is taken off
    (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002). With `class_weights=balanced`
    that is the whole; for accuracy or macro-F1 it is the share that is best on held-out rows, if it
    is better than none by more than the standard error of the difference. Accuracy needs a shift
    only where the classifier names rare classes too seldom, as with many classes of few rows.

    Of labels it is a share of their log-odds, or one threshold for all of them: a label is named
    from a lower probability on than one half.

    Args:
        objective: log_loss, accuracy, macro_f1 or micro_f1.
        class_weights: none or balanced.
        log_probs: log-probabilities of held-out rows. Shape: (rows, classes).
        target: labels of these rows.
        prior: share of the rows with each class or label among those that the classifier learned
            from. Shape: (classes,).
        text_of: number of the text of each row, if some repeat one. Shape: (rows,).
    """
    multilabel = is_multilabel(target)
    whole = _whole_shift(prior, multilabel=multilabel)
    if class_weights == BALANCED:
        return _share(1.0, whole, multilabel=multilabel)
    if objective == LOG_LOSS or len(target) == 0:
        return None
    tried = [_share(share, whole, multilabel=multilabel) for share in SHARES]
    if multilabel:
        tried += [_threshold(threshold, whole) for threshold in THRESHOLDS]
    nothing = costs(objective, log_probs.double(), target)
    each = [
        costs(objective, shifted(log_probs.double(), one.values, multilabel=multilabel), target)
        for one in tried
    ]
    best = min(range(len(tried)), key=lambda n: float(each[n].mean()))
    gain = nothing - each[best]
    return tried[best] if float(gain.mean()) > standard_error(gain, text_of) else None


def shifted(log_probs: Tensor, shift: Tensor, *, multilabel: bool) -> Tensor:
    """Add a shift to log-probabilities, or to the log-odds of labels. Shape: (rows, classes)."""
    if multilabel:
        return F.logsigmoid(log_odds(log_probs) + shift)
    return (log_probs + shift).log_softmax(dim=1)


def label_shares(target: Tensor, num_classes: int) -> Tensor:
    """Return the share of the rows of each class, or with each label; none is quite 0 or 1.

    Shape: (classes,), float64.
    """
    counts = label_counts(target, num_classes).double()
    if is_multilabel(target):
        return counts.clamp(0.5, len(target) - 0.5) / len(target)
    counts = counts.clamp_min(0.5)
    return counts / counts.sum()


def _whole_shift(prior: Tensor, *, multilabel: bool) -> Tensor:
    return -prior.logit() if multilabel else -prior.log()


def _share(share: float, whole: Tensor, *, multilabel: bool) -> Shift:
    of = "labels' log-odds" if multilabel else "classes' log-frequencies"
    return Shift(share * whole, f"{share:.0%} of the {of} are taken off")


def _threshold(threshold: float, whole: Tensor) -> Shift:
    shift = torch.full_like(whole, math.log(1 - threshold) - math.log(threshold))
    return Shift(shift, f"a label is named from a probability of {threshold:.0%} on")


def weights_of(class_weights: str, target: Tensor, num_classes: int) -> Tensor | None:
    """Return the weight of each class in a training loss, whose mean over the rows is 1.

    Of labels it is the weight of a row with the label; a row without it has the weight 1.

    Args:
        class_weights: none or balanced.
        target: labels of the rows that are learned from.
        num_classes: number of classes.

    Returns:
        Shape: (classes,), float32, 0 for a class without rows; None if all rows count alike.
    """
    if class_weights != BALANCED:
        return None
    counts = label_counts(target, num_classes)
    occurs = counts > 0
    if is_multilabel(target):
        weights = (len(target) - counts) / counts.clamp_min(1).double()
    else:
        weights = counts.sum() / (occurs.sum() * counts.clamp_min(1).double())
    return (weights * occurs).float()


def row_weights(class_weights: str, target: Tensor, num_classes: int) -> Tensor | None:
    """Return what rows count for where predictions are judged with class weights.

    All classes count alike. Of labels, the rows with a label count as much as those without it, as
    in the training loss and after the whole shift (`find_shift`), and all labels count alike. A
    label that all rows have, or none, counts for nothing: it has no other side to be as frequent
    as.

    Args:
        class_weights: none or balanced.
        target: labels of the rows that are judged.
        num_classes: number of classes.

    Returns:
        The weights of rows, or of each label of each row, 1 on average over the rows. Shape: that
        of the labels, float64. None if all rows count alike.
    """
    by_class = weights_of(class_weights, target, num_classes)
    if by_class is None:
        return None
    if not is_multilabel(target):
        return by_class[target].double()
    rows, counts = len(target), label_counts(target, num_classes).double()
    with_it, without = rows / (2 * counts), rows / (2 * (rows - counts))
    varies = (counts > 0) & (counts < rows)
    return torch.where(varies, torch.where(target.bool(), with_it, without), 0.0)
