"""The temperature that makes the probabilities of a head fit held-out rows."""

from __future__ import annotations

import torch
from torch import Tensor

from layerfusion.layers.labels import (
    classification_loss,
    is_multilabel,
    log_probabilities,
    row_losses,
)
from layerfusion.layers.repeats import distinct_share, standard_error

TEMPERATURE_ROWS = 2.0
"""Strength of the pull of the temperature towards 1, in rows with different texts."""
MAX_STEPS = 50
"""Most steps of L-BFGS."""


def temperature_of(logits: Tensor, target: Tensor, text_of: Tensor | None) -> float:
    """Return the temperature that makes held-out probabilities fit (Guo et al., ICML 2017).

    It is 1 unless it lowers their log-loss by more than the standard error of the difference. A
    head that stopped on the log-loss of these rows is calibrated on them as it is: with every
    temperature taken, the log-loss on test rose in four of five jobs, by up to 5 %.

    Args:
        logits: of rows that the classifier did not learn from. Shape: (rows, classes).
        target: labels of these rows.
        text_of: number of the text of each row, if some repeat one. Shape: (rows,).
    """
    texts = len(target) * distinct_share(text_of)
    logits = logits.double()
    multilabel = is_multilabel(target)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [log_temperature], max_iter=MAX_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        pull = TEMPERATURE_ROWS * log_temperature.square() / texts
        loss = classification_loss(logits / log_temperature.exp(), target) + pull
        loss.backward()
        return loss

    optimiser.step(closure)
    temperature = float(log_temperature.detach().exp())
    before, after = (
        row_losses(log_probabilities(scores, multilabel=multilabel), target)
        for scores in (logits, logits / temperature)
    )
    gain = before - after
    return temperature if float(gain.mean()) > standard_error(gain, text_of) else 1.0
