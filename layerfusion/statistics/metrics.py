"""Accuracy, macro-F1, log-loss and calibration error of a set of predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multilabel_exact_match,
    multilabel_f1_score,
)

from layerfusion.errors import UserError
from layerfusion.statistics.answers import answers

METRICS = ("accuracy", "macro_f1", "log_loss", "calibration_error")
BINS = 15
"""Ranges of probability that a calibration error has."""
_LEAST = torch.finfo(torch.float32).tiny
"""Least probability of what did not happen; a log-loss has no end otherwise."""
_ROUNDING = 1e-5
"""How far above zero a log-probability may lie for its rounding."""


def evaluate(logits: Tensor | np.ndarray, target: Tensor | np.ndarray) -> dict[str, float]:
    """Compute accuracy, macro-F1, log-loss and calibration error of one run on one split.

    Macro-F1 is the mean over the classes that occur in `target` or in the predictions, as in
    scikit-learn's `f1_score(average="macro")`. Log-loss is in nats. Calibration error is the
    expected calibration error of the largest probability in 15 equal bins (Guo et al., 2017,
    equation 3).

    Where a row has any number of the labels, each label with a probability of one half or more is
    an answer. Accuracy is then the share of the rows whose labels are all right, and micro-F1 is
    that of all labels of all rows together; both are scikit-learn's. Macro-F1 is that of
    scikit-learn over the labels that occur in `target` or in the answers: it counts a label that
    is in neither as 0 with its `zero_division`, and here such a label does not count. Both F1 are
    0 where there is neither a label nor an answer. Log-loss is the mean over rows and labels of
    the binary log-loss, and calibration error compares the probabilities of all labels of all rows
    with the shares of the rows that have them.

    Args:
        logits: scores before the softmax, or log-probabilities. Shape: (rows, num_classes). Where
            a row has several labels, log-probabilities of the labels, which do not sum to one.
        target: class indices, shape (rows,), or true where a row has a label, shape (rows, labels).

    Returns:
        The figures by name: `METRICS`, and `micro_f1` where a row has several labels.

    Raises:
        UserError: if there are no rows, the shapes do not match, a logit is not finite, or what
            should be a log-probability lies above zero.
    """
    logits, target = _tensor(logits).double(), _tensor(target).long()
    _check(logits, target)
    if target.ndim == 2:
        return _evaluate_sets(logits, target)
    num_classes = logits.shape[1]
    probabilities = logits.softmax(dim=1)
    preds = torch.from_numpy(answers(logits.numpy(), multilabel=False))
    values = {
        "accuracy": multiclass_accuracy(preds, target, num_classes, average="micro"),
        "macro_f1": multiclass_f1_score(preds, target, num_classes, average="macro"),
        "log_loss": F.cross_entropy(logits, target),
        # torchmetrics mistakes logits in [0, 1] for probabilities, so it is given probabilities.
        "calibration_error": multiclass_calibration_error(
            probabilities, target, num_classes, n_bins=BINS, norm="l1"
        ),
    }
    return {name: float(values[name]) for name in METRICS}


def _evaluate_sets(log_probs: Tensor, target: Tensor) -> dict[str, float]:
    """Compute the figures of rows that have any number of the labels. Shapes: (rows, labels)."""
    if bool((log_probs > _ROUNDING).any()):
        raise UserError(
            f"metrics: log-probabilities of labels up to {float(log_probs.max()):.3g}; none may lie"
            " above zero"
        )
    log_probs = log_probs.clamp(max=0.0)
    probabilities, labels = log_probs.exp(), target.shape[1]
    preds = torch.from_numpy(answers(probabilities.numpy(), multilabel=True)).long()
    # Log of the probability that a row lacks the label, exact where the label is all but sure.
    log_lacks = (-torch.expm1(log_probs)).clamp(min=_LEAST).log()
    # The arguments were checked; torchmetrics would refuse a single label.
    checks: Any = {"num_labels": labels, "validate_args": False}
    by_label = multilabel_f1_score(preds, target, average="none", **checks).reshape(labels)
    occurs = (preds + target).sum(dim=0) > 0
    values = {
        "accuracy": multilabel_exact_match(preds, target, **checks),
        "micro_f1": multilabel_f1_score(preds, target, average="micro", **checks),
        "macro_f1": by_label[occurs].mean() if bool(occurs.any()) else by_label.sum(),
        "log_loss": -torch.where(target > 0, log_probs, log_lacks).mean(),
        "calibration_error": binary_calibration_error(
            probabilities.flatten(), target.flatten(), n_bins=BINS, norm="l1"
        ),
    }
    return {name: float(value) for name, value in values.items()}


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach().cpu()
    return torch.from_numpy(np.array(values))  # a copy: torch warns of arrays that are read-only


def _check(logits: Tensor, target: Tensor) -> None:
    fits = target.shape in (logits.shape[:1], logits.shape)
    if logits.ndim != 2 or not fits or not len(target):
        raise UserError(
            f"metrics: logits of shape {tuple(logits.shape)} and target of shape "
            f"{tuple(target.shape)}; they must be (rows, classes) and (rows,) with at least one"
            " row, or both (rows, labels)"
        )
    if not bool(logits.isfinite().all()):
        rows = int((~logits.isfinite().all(dim=1)).sum())
        raise UserError(f"metrics: logits of {rows} of {len(target)} rows are not finite")
