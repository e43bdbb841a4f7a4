"""Pursuit on sources made by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.fusion.pool_fitting import anchored_weights
from layerfusion.fusion.pursuit import pursue


def _sources(rows: int = 1500) -> tuple[Tensor, Tensor]:
    """A good source with a mistake, copies of it, noise, and one that knows only the mistake."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(3, (rows,), generator=generator)
    truth = F.one_hot(target, 3).float()
    mistake, noise = (torch.randn(rows, 3, generator=generator) for _ in range(2))
    copies = [truth + mistake + 0.05 * torch.randn(rows, 3, generator=generator) for _ in range(3)]
    return torch.stack([*copies, noise, mistake]).log_softmax(dim=2), target


def test_a_source_that_corrects_the_first_comes_before_its_copies() -> None:
    log_probs, target = _sources()
    steps = pursue(log_probs, target, limit=3)
    assert steps[0].position in {0, 1, 2}
    assert steps[1].position == 4
    assert steps[1].log_loss < 0.7 * steps[0].log_loss


def test_each_step_has_the_loss_of_the_pool_that_is_fitted_anew() -> None:
    log_probs, target = _sources()
    steps = pursue(log_probs, target, limit=3)
    chosen = log_probs[[step.position for step in steps]]
    pooled = torch.einsum("k,knc->nc", anchored_weights(chosen, target).float(), chosen)
    torch.testing.assert_close(torch.tensor(steps[-1].log_loss), F.cross_entropy(pooled, target))


def test_only_what_is_allowed_is_taken() -> None:
    log_probs, target = _sources()
    steps = pursue(log_probs, target, limit=5, allows=lambda taken: 4 not in taken)
    assert sorted(step.position for step in steps) == [0, 1, 2, 3]
