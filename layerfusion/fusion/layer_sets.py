"""The sets of layers that `fusion=auto` chooses among.

A set is a rule, so that it can be chosen anew wherever some rows have to stay out of the choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from layerfusion.fusion.pool_forms import Choose
from layerfusion.fusion.pursuit import pursue
from layerfusion.layers.budget import Budget
from layerfusion.layers.labels import mean_loss
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.selection import Choice, Selection

SHARES = (0.5, 0.25)
"""Shares of the FLOPs of every layer within which every layer is offered too, for less cost."""


@dataclass(frozen=True)
class LayerSet:
    """A set of layers that a fusion may use."""

    name: str
    """How it is chosen, for people."""
    selection: Selection
    """The layers that the rule chooses on all rows, and what they are worth."""
    choose: Choose
    only_stacked: bool = False
    """True for a set that is too large for trained heads. A stack's weights are quick to learn."""


def propose_layer_sets(
    layers: Sequence[LayerId],
    log_probs: Tensor,
    target: Tensor,
    budget: Budget,
    *,
    few: int,
    members: int | None = None,
    usable: Sequence[int] | None = None,
    distinct: float = 1.0,
) -> list[LayerSet]:
    """Propose the best layer, the best of each model, a few that complement each other, and all.

    Every set keeps to the budget. A set with the same layers as an earlier one is left out.

    Args:
        layers: the layers to choose among, each allowed by the budget alone.
        log_probs: log-probabilities of their probes on held-out rows. Shape: (K, rows, classes).
        target: labels of these rows.
        budget: what layers may cost together.
        few: most layers of the set that complements itself.
        members: most layers of any set; no limit if None.
        usable: positions of the layers that may be taken; all if None.
        distinct: number of different texts as a share of the rows.
    """
    allowed = frozenset(range(len(layers)) if usable is None else usable)
    rules = _Rules(layers, budget, allowed)
    losses = [float(mean_loss(source, target)) for source in log_probs]
    most = len(layers) if members is None else members
    named: dict[str, Choose] = {
        "the best layer": rules.best(1),
        "the best layer of each model": rules.best(most, one_of_a_model=True),
        "layers that complement each other": rules.complementary(min(few, most)),
    }
    large: dict[str, Choose] = {"every layer": rules.best(len(layers))}
    every = large["every layer"](log_probs, target, distinct)
    whole = budget.cost([layers[n] for n in every]).flops
    for share in SHARES:
        cheaper = _Rules(layers, budget.within(share * whole), allowed)
        large[f"every layer within {share:.0%} of their FLOPs"] = cheaper.best(len(layers))
    found: list[LayerSet] = []
    for name, choose in (named | large).items():
        positions = choose(log_probs, target, distinct)
        taken = {layers[n] for n in positions}
        seen = any(taken == set(other.selection.layers) for other in found)
        if positions and len(positions) <= most and not seen:
            choices = tuple(
                Choice(layers[n], f"held-out log-loss {losses[n]:.4g}") for n in positions
            )
            found.append(LayerSet(name, Selection(choices), choose, name in large))
    return found


@dataclass(frozen=True)
class _Rules:
    """Rules that choose among some layers within a budget."""

    layers: Sequence[LayerId]
    budget: Budget
    usable: frozenset[int]
    """Positions of the layers that may be taken."""

    def allows(self, positions: Sequence[int]) -> bool:
        """Return True if the layers at some positions may be taken together."""
        return self.usable.issuperset(positions) and self.budget.allows(
            [self.layers[n] for n in positions]
        )

    def best(self, limit: int, *, one_of_a_model: bool = False) -> Choose:
        """Take the layers with the lowest log-loss, while the budget allows them together.

        Args:
            limit: most layers.
            one_of_a_model: take only the best of each model.
        """

        def choose(log_probs: Tensor, target: Tensor, _distinct: float) -> list[int]:
            losses = torch.stack([mean_loss(source, target) for source in log_probs])
            taken: list[int] = []
            for n in losses.argsort(stable=True).tolist():
                models = {self.layers[m].backbone for m in taken}
                if one_of_a_model and self.layers[n].backbone in models:
                    continue
                if len(taken) < limit and self.allows([*taken, n]):
                    taken.append(n)
            return taken

        return choose

    def complementary(self, limit: int) -> Choose:
        """Take the layers that together predict best."""

        def choose(log_probs: Tensor, target: Tensor, distinct: float) -> list[int]:
            steps = pursue(log_probs, target, limit, allows=self.allows, distinct=distinct)
            return [step.position for step in steps]

        return choose
