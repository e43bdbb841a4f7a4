"""A pool: the log-probabilities of several probes in one, by few numbers learned on held-out rows.

`pool_fitting` learns these numbers, and `pool_forms` finds how many of them the rows support.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from layerfusion.fusion.objective import shifted
from layerfusion.layers.labels import folded, unfolded

SINGLE, WEIGHTED, ANCHORED, GATED = FORMS = ("single", "weighted", "anchored", "gated")
"""The forms in which sets of sources compete, the simplest first. Of many sources, only the best
single one and anchored weights are compared."""
ANCHORED_GATED = "anchored_gated"
"""The form of `fusion=gated_stack`."""
KEPT_FORMS = (*FORMS, ANCHORED_GATED)
"""The forms that cross-validation chooses among for a pool that is kept."""
WORDS = {
    SINGLE: "the best source alone",
    WEIGHTED: "one weight for each source",
    ANCHORED: "weights held near equal ones",
    GATED: "weights that differ from text to text",
    ANCHORED_GATED: "weights that move a little from text to text",
}
"""The forms in the words of a reader."""
FACTS = 3
"""Numbers that a gate sees of each source: entropy, largest log-probability, distance from the mean
of all sources."""


@dataclass(frozen=True)
class Pool:
    """Combines the log-probabilities of the probes in a logarithmic opinion pool.

    log p(c|x) = log softmax_c(κ Σ_k g_k(x) log p_k(c|x)), with g(x) = softmax(b + G e(x)). κ > 0 is
    an inverse temperature: above 1, agreeing sources make the pool more confident. κ g_k tempers
    each source, so that an overconfident one weighs less. e(x) is the standardised evidence: see
    `evidence`. In the form `anchored`, g are the same for all texts and may be negative, and their
    absolute values add up to 1. In the form `anchored_gated`, g(x) = b + G e(x), with b as in
    `anchored` and the standardised `agreement` of the sources as e(x).
    """

    form: str
    """One of `KEPT_FORMS`."""
    bias: Tensor
    """b, or g itself in the form `anchored`. Shape: (K,)."""
    scale: Tensor
    """κ. Shape: ()."""
    gate: Tensor
    """G. Shape: (K, E): E numbers describe a text."""
    mean: Tensor
    """Mean of these numbers over the rows. Shape: (E,)."""
    std: Tensor
    """Standard deviation of these numbers over the rows. Shape: (E,)."""
    shift: Tensor | None = None
    """Added to the pooled scores, or to the log-odds of labels: what is made of the frequencies of
    the classes (`_sure_weights`), an offset of the labels, and what `objective.find_shift` finds.
    None adds nothing. Shape: (classes,)."""
    multilabel: bool = False
    """Whether texts have any number of the classes. Each label of a text is then pooled as a text
    of its own with the classes no and yes, and its gates are the means over the labels."""

    def __call__(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the sources.

        Args:
            log_probs: log-probabilities of each source's probe. Shape: (K, rows, classes).

        Returns:
            Log-probabilities, shape (rows, classes), and gates, shape (rows, K).
        """
        log_probs = log_probs.double()
        if self.multilabel:
            labels = log_probs.shape[2]
            pooled, gates = self._pool(unfolded(log_probs))
            pooled, gates = folded(pooled, labels), gates.unflatten(0, (-1, labels)).mean(dim=1)
        else:
            pooled, gates = self._pool(log_probs)
        if self.shift is not None:
            pooled = shifted(pooled, self.shift, multilabel=self.multilabel)
        return pooled, gates

    def _pool(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        if self.form == ANCHORED:
            gates = self.bias.expand(log_probs.shape[1], -1)
        elif self.form in (SINGLE, WEIGHTED):
            gates = torch.softmax(self.bias, dim=0).expand(log_probs.shape[1], -1)
        elif self.form == ANCHORED_GATED:
            facts = (agreement(log_probs, self.scale * self.bias) - self.mean) / self.std
            gates = self.bias + facts @ self.gate.T
        else:
            facts = (evidence(log_probs) - self.mean) / self.std
            gates = torch.softmax(self.bias + facts @ self.gate.T, dim=1)
        return mix(log_probs, gates, self.scale), gates


def agreement(log_probs: Tensor, weights: Tensor) -> Tensor:
    """Describe how sure a pool is of each row, and how far its sources agree with it.

    Gives the entropy of the pool, its largest log-probability, the mean L1 distance of the sources'
    probabilities from its own, and the spread of their largest probabilities. Shape: (rows, 4),
    float64, from (K, rows, classes) and the pool's weights, (K,).
    """
    pooled = torch.einsum("k,knc->nc", weights.to(log_probs), log_probs).log_softmax(dim=1)
    sure, probs = pooled.exp(), log_probs.exp()
    entropy = -(sure * pooled).sum(dim=1)
    distance = (probs - sure).abs().sum(dim=2).mean(dim=0)
    spread = probs.amax(dim=2).std(dim=0, correction=0)
    return torch.stack([entropy, pooled.amax(dim=1), distance, spread], dim=1).double()


def evidence(log_probs: Tensor) -> Tensor:
    """Describe how sure the sources are of each row, and how far they agree.

    Gives each source's entropy, its largest log-probability, and the L1 distance of its
    probabilities from the mean of all sources. Shape: (rows, K · FACTS), from (K, rows, classes).
    """
    probs = log_probs.exp()
    entropy = -(probs * log_probs).sum(dim=2)
    distance = (probs - probs.mean(dim=0)).abs().sum(dim=2)
    return torch.cat([entropy, log_probs.amax(dim=2), distance]).T


def mix(log_probs: Tensor, gates: Tensor, scale: Tensor) -> Tensor:
    """Return log softmax(scale · Σ_k g_k log p_k). Shape: (rows, classes), gates (rows, K)."""
    return (scale * torch.einsum("nk,knc->nc", gates, log_probs)).log_softmax(dim=1)
