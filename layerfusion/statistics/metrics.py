"""Accuracy, macro-F1, log-loss and calibration error of a set of predictions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
)

from layerfusion.errors import UserError

METRICS = ("accuracy", "macro_f1", "log_loss", "calibration_error")


def evaluate(logits: Tensor | np.ndarray, target: Tensor | np.ndarray) -> dict[str, float]:
    """Compute accuracy, macro-F1, log-loss and calibration error of one run on one split.

    Macro-F1 is the mean over the classes that occur in `target` or in the predictions, as in
    scikit-learn's `f1_score(average="macro")`. Log-loss is in nats. Calibration error is the
    expected calibration error of the largest probability in 15 equal bins (Guo et al., 2017,
    equation 3).

    Args:
        logits: scores before the softmax, or log-probabilities. Shape: (rows, num_classes).
        target: class indices. Shape: (rows,).

    Raises:
        UserError: if there are no rows, the shapes do not match or a logit is not finite.
    """
    logits, target = _tensor(logits).double(), _tensor(target).long()
    _check(logits, target)
    num_classes = logits.shape[1]
    probabilities = logits.softmax(dim=1)
    preds = logits.argmax(dim=1)
    values = {
        "accuracy": multiclass_accuracy(preds, target, num_classes, average="micro"),
        "macro_f1": multiclass_f1_score(preds, target, num_classes, average="macro"),
        "log_loss": F.cross_entropy(logits, target),
        # torchmetrics mistakes logits in [0, 1] for probabilities, so it is given probabilities.
        "calibration_error": multiclass_calibration_error(
            probabilities, target, num_classes, n_bins=15, norm="l1"
        ),
    }
    return {name: float(values[name]) for name in METRICS}


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    # The array is copied, since torch warns about arrays that are not writable.
    return values.cpu() if isinstance(values, Tensor) else torch.from_numpy(np.array(values))


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.ndim != 2 or target.shape != logits.shape[:1] or not len(target):
        raise UserError(
            f"metrics: logits of shape {tuple(logits.shape)} and target of shape "
            f"{tuple(target.shape)}; they must be (rows, classes) and (rows,) with at least one row"
        )
    if not bool(logits.isfinite().all()):
        rows = int((~logits.isfinite().all(dim=1)).sum())
        raise UserError(f"metrics: logits of {rows} of {len(target)} rows are not finite")
