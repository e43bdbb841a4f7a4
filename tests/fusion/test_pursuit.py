"""Pursuit on sources made by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.fusion.pool_fitting import anchored_weights
from layerfusion.fusion.pool_forms import judge_forms
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


def test_rows_that_repeat_their_texts_choose_what_the_texts_choose() -> None:
    """Taken for rows of their own, they would fit more, and choose otherwise."""
    for seed in (3, 7):
        generator = torch.Generator().manual_seed(seed)
        target = torch.randint(3, (30,), generator=generator)
        said = 0.5 * F.one_hot(target, 3) + torch.randn(8, 30, 3, generator=generator)
        log_probs = said.log_softmax(dim=2)
        many, labels = log_probs.repeat(1, 10, 1), target.repeat(10)
        once = pursue(log_probs, target, limit=6)
        again = pursue(many, labels, limit=6, distinct=1 / 10)
        bold = pursue(many, labels, limit=6)
        places = [[step.position for step in steps] for steps in (once, again, bold)]
        assert places[1] == places[0] != places[2]
        assert again[-1].log_loss == pytest.approx(once[-1].log_loss, abs=1e-4)
        assert bold[-1].log_loss < once[-1].log_loss - 0.05


def test_a_fold_of_a_pool_says_how_many_of_its_rows_are_texts_of_their_own() -> None:
    log_probs, target = _sources(20)
    told = []

    def choose(_said: Tensor, labels: Tensor, distinct: float) -> list[int]:
        told.append((len(labels), distinct))
        return [0, 1]

    text_of = torch.tensor([0] * 11 + [*range(1, 10)])
    judge_forms(log_probs, target, choose=choose, text_of=text_of)
    assert set(told) == {(8, 1.0), (18, 8 / 18)}
    told.clear()
    judge_forms(log_probs, target, choose=choose, text_of=None)
    assert {distinct for _, distinct in told} == {1.0}
