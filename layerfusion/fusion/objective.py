"""What a classifier should be best at, and how its probabilities are made to serve that.

`objective` is the measure by which epochs and fusions are chosen: log-loss, accuracy or macro-F1.
Each is here a mean over rows of one number for each row, so that two fusions can be compared row by
row, with a standard error.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import ACCURACY, BALANCED, LOG_LOSS
from layerfusion.layers.selection import standard_error

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the classes' log-frequencies that are tried, to be taken off the log-probabilities."""
TEMPERATURE_ROWS = 2.0
"""Strength of the pull of the temperature towards 1, in rows."""
MAX_STEPS = 50
"""Most steps of L-BFGS."""


def costs(objective: str, log_probs: Tensor, target: Tensor) -> Tensor:
    """Return what each row adds to a measure, of which lower is better.

    The mean is the log-loss in nats, or 1 - accuracy, or 1 - macro-F1. Macro-F1 is no mean over
    rows; a row's number is its influence on it to first order (the delta method), added to the
    value. So the mean is exact, and the standard error of a difference is that of the delta method.

    Args:
        objective: log_loss, accuracy or macro_f1.
        log_probs: log-probabilities of rows. Shape: (rows, classes).
        target: class indices. Shape: (rows,).

    Returns:
        Shape: (rows,), float64.
    """
    if objective == LOG_LOSS:
        return F.nll_loss(log_probs.double(), target, reduction="none")
    said = log_probs.argmax(dim=1)
    if objective == ACCURACY:
        return (said != target).double()
    classes = log_probs.shape[1]
    is_said, is_target = F.one_hot(said, classes).double(), F.one_hot(target, classes).double()
    hits, counts = 2 * is_said * is_target, is_said + is_target
    occurs = counts.sum(dim=0) > 0
    share = counts.mean(dim=0).clamp_min(1 / len(target))
    f1 = hits.mean(dim=0) / share
    influence = (hits - f1 * counts) / share
    return 1 - (f1 + influence)[:, occurs].mean(dim=1)


def share_of(
    objective: str, class_weights: str, log_probs: Tensor, target: Tensor, prior: Tensor
) -> float:
    """Return the share of the classes' log-frequencies that is to be taken off for the objective.

    A classifier that is asked for macro-F1, or to weigh all classes alike, has to name rare classes
    more often than one that is asked for accuracy. It is given the log-probabilities of a
    population in which the classes are less unequal: a share of their log-frequencies is taken off
    (Saerens, Latinne and Decaestecker, Neural Computation 14, 2002). With `class_weights=balanced`
    that is the whole; for accuracy or macro-F1 it is the share that is best on held-out rows, if it
    is better than none by more than the standard error of the difference. Accuracy needs a shift
    only where the classifier names rare classes too seldom, as with many classes of few rows.

    Args:
        objective: log_loss, accuracy or macro_f1.
        class_weights: none or balanced.
        log_probs: log-probabilities of held-out rows. Shape: (rows, classes).
        target: class indices of these rows. Shape: (rows,).
        prior: number of rows of each class that the classifier learned from. Shape: (classes,).

    Returns:
        A number from 0 to 1: what `shift_by` adds to the log-probabilities.
    """
    if class_weights == BALANCED:
        return 1.0
    if objective == LOG_LOSS or len(target) == 0:
        return 0.0
    each = {
        share: costs(objective, log_probs.double() + shift_by(share, prior), target)
        for share in (0.0, *SHARES)
    }
    best = min(each, key=lambda share: float(each[share].mean()))
    gain = each[0.0] - each[best]
    return best if float(gain.mean()) > standard_error(gain) else 0.0


def shift_by(share: float, prior: Tensor) -> Tensor:
    """Return what is added to the log-probabilities when a share of the frequencies is taken off.

    Args:
        share: of the log-frequencies.
        prior: number of rows of each class that the classifier learned from. Shape: (classes,).

    Returns:
        Shape: (classes,), float64.
    """
    frequencies = prior.double().clamp_min(0.5)
    return -share * (frequencies / frequencies.sum()).log()


def shift_words(share: float) -> str:
    """Say in one clause what was taken off; nothing if nothing was."""
    return f"; {share:.0%} of the classes' log-frequencies are taken off" if share else ""


def temperature_of(logits: Tensor, target: Tensor) -> float:
    """Return the temperature that makes held-out probabilities fit (Guo et al., ICML 2017).

    It is 1 unless it lowers their log-loss by more than the standard error of the difference. A
    head that stopped on the log-loss of these rows is calibrated on them as it is: with every
    temperature taken, the log-loss on test rose in four of five jobs, by up to 5 %.

    Args:
        logits: of rows that the classifier did not learn from. Shape: (rows, classes).
        target: class indices. Shape: (rows,).
    """
    logits = logits.double()
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [log_temperature], max_iter=MAX_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        pull = TEMPERATURE_ROWS * log_temperature.square() / len(target)
        loss = F.cross_entropy(logits / log_temperature.exp(), target) + pull
        loss.backward()
        return loss

    optimiser.step(closure)
    temperature = float(log_temperature.detach().exp())
    gain = costs(LOG_LOSS, logits.log_softmax(dim=1), target) - costs(
        LOG_LOSS, (logits / temperature).log_softmax(dim=1), target
    )
    return temperature if float(gain.mean()) > standard_error(gain) else 1.0


def weights_of(class_weights: str, prior: Tensor) -> Tensor | None:
    """Return the weight of each class in a training loss, whose mean over the rows is 1.

    Args:
        class_weights: none or balanced.
        prior: number of rows of each class. Shape: (classes,).

    Returns:
        Shape: (classes,), float32, 0 for a class without rows; None if all rows count alike.
    """
    if class_weights != BALANCED:
        return None
    occurs = prior > 0
    weights = prior.sum() / (occurs.sum() * prior.clamp_min(1).double())
    return (weights * occurs).float()
