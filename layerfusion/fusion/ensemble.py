"""Ensemble selection: the weights of an average, found by adding one member after the other.

Caruana, Niculescu-Mizil, Crew and Ksikes, *Ensemble selection from libraries of models*, ICML 2004.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

BAGS = 20
"""Number of random halves of the members among which members are selected."""
STEPS = 40
"""Members added in each half; the same one may be added again."""
_LEAST = 1e-12
"""Smallest average probability whose logarithm is taken."""


def ensemble_weights(log_probs: Tensor, target: Tensor, *, seed: int = 0) -> Tensor:
    """Weigh members by how often forward selection on held-out rows adds them.

    Each step adds the member that lowers the log-loss of the average probability most. Selecting
    among many members fits the rows by luck too; the mean over random halves of the members (bagged
    selection, as in the paper) evens that out.

    Args:
        log_probs: log-probabilities of held-out rows by member. Shape: (K, rows, classes).
        target: class indices. Shape: (rows,).
        seed: draws the halves.

    Returns:
        The weights, which add up to 1. Shape: (K,), float64.
    """
    probability = log_probs[:, torch.arange(len(target)), target].double().exp()
    members = len(probability)
    drawn = np.random.default_rng(seed)
    counts = torch.zeros(members, dtype=torch.float64)
    for _ in range(BAGS):
        bag = torch.from_numpy(drawn.choice(members, (members + 1) // 2, replace=False))
        among, total = probability[bag], torch.zeros(len(target), dtype=torch.float64)
        for step in range(1, STEPS + 1):
            losses = -((total + among) / step).clamp_min(_LEAST).log().mean(dim=1)
            best = losses.argmin()
            total = total + among[best]
            counts[bag[best]] += 1
    return counts / counts.sum()
