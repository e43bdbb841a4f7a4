"""Probes of several layers at once: what they weigh, what they minimise, and what they may see."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from layerfusion.embeddings.standardise import Standardiser
from layerfusion.errors import UserError
from layerfusion.layers import multi_layer
from layerfusion.layers.multi_layer import (
    PENALTIES,
    SCALAR_MIX,
    FitMultiLayer,
    find_multi_layer,
    group_lasso,
    scalar_mix,
)
from layerfusion.layers.probe import cross_validate

BOTH = pytest.mark.parametrize("fit", [scalar_mix, group_lasso])


def layers(
    signals: list[float], *, classes: int = 2, rows: int = 240, width: int = 6, seed: int = 0
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Make layers that each tell the classes apart by a signal of their own noise, and folds."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    directions = torch.eye(width)[:classes]
    features = [
        signal * directions[labels] + torch.randn(rows, width, generator=draw) for signal in signals
    ]
    return features, labels, torch.arange(rows) // classes % 4


@BOTH
@pytest.mark.parametrize("classes", [2, 3])
def test_the_layer_that_tells_the_classes_apart_has_most_of_the_weight(
    fit: FitMultiLayer, classes: int
) -> None:
    features, labels, folds = layers([0, 0, 2.5, 0], classes=classes)
    probe = fit(features, labels, folds, classes)
    assert sum(probe.shares) == pytest.approx(1)
    assert probe.shares.index(max(probe.shares)) == 2
    assert max(probe.shares) > 0.6
    assert probe.held_out.accuracy > 0.85
    right = probe.probe.logits(torch.cat(features, dim=1)).argmax(dim=1) == labels
    assert float(right.double().mean()) > 0.85


@BOTH
def test_layers_that_err_on_different_rows_are_worth_more_together(fit: FitMultiLayer) -> None:
    features, labels, folds = layers([1.2, 1.2, 0, 1.2])
    probe = fit(features, labels, folds, 2)
    alone = cross_validate(features, labels, folds, num_classes=2, text_of=None)
    assert probe.held_out.log_loss < min(one.log_loss for one in alone) - 0.02
    assert min(probe.shares[n] for n in (0, 1, 3)) > 2 * probe.shares[2]


def test_a_mix_of_one_layer_is_its_probe() -> None:
    features, labels, folds = layers([1.0], classes=3)
    probe = scalar_mix(features, labels, folds, 3)
    (alone,) = cross_validate(features, labels, folds, num_classes=3, tolerance=1e-6, text_of=None)
    assert probe.held_out.strength == alone.strength
    assert torch.allclose(probe.held_out.log_probs, alone.log_probs, atol=5e-3)


def test_a_mix_is_no_steeper_where_its_layers_are_alike() -> None:
    """Equal layers in any shares are one layer: the penalty must not tell the shares apart."""
    features, labels, folds = layers([1.0])
    probe = scalar_mix([features[0], 3 * features[0] + 1], labels, folds, 2)
    assert probe.shares == pytest.approx((0.5, 0.5), abs=1e-3)


def test_the_group_lasso_is_at_its_minimum() -> None:
    """No proximal step from the fitted weights lowers the objective by more than a little."""
    features, labels, folds = layers([1.0, 0, 0.6], rows=200)
    probe = group_lasso(features, labels, folds, 2)
    x = torch.cat(Standardiser.fit(features)(features), dim=1)
    target = labels.float()

    def loss(weight: Tensor, bias: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(x @ weight + bias, target)

    weight = torch.zeros(x.shape[1], requires_grad=True)
    loss(weight, torch.zeros(())).backward()
    assert weight.grad is not None
    strength = probe.held_out.strength * float(weight.grad.view(3, -1).norm(dim=1).max())

    def objective(weight: Tensor, bias: Tensor) -> float:
        return float(loss(weight, bias) + strength * weight.view(3, -1).norm(dim=1).sum())

    weight, bias = torch.zeros(x.shape[1]), torch.zeros(())
    for _ in range(4000):  # proximal gradient descent from zeros
        for one in (weight, bias):
            one.requires_grad_()
        slopes = torch.autograd.grad(loss(weight, bias), [weight, bias])
        moved = (weight - 0.2 * slopes[0]).detach().view(3, -1)
        norms = moved.norm(dim=1, keepdim=True)
        weight = (moved * (1 - 0.2 * strength / norms).clamp_min(0)).flatten()
        bias = (bias - 0.2 * slopes[1]).detach()
    std = torch.cat(Standardiser.fit(features).std)
    mean = torch.cat(Standardiser.fit(features).mean)
    own = probe.probe.weight[1] * std
    own_bias = probe.probe.bias[1] + probe.probe.weight[1] @ mean
    assert objective(own, own_bias) < objective(weight, bias) + 3e-4


@BOTH
def test_nothing_of_a_row_that_is_held_out_enters_the_predictions_of_others(
    fit: FitMultiLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi_layer, "PENALTIES", (0.1,))
    if fit is scalar_mix:
        fit = partial(scalar_mix, strengths=(0.01,))
    features, labels, folds = layers([1.0, 0.5], rows=120)
    before = fit(features, labels, folds, 2).held_out.log_probs
    changed = [layer.clone() for layer in features]
    for layer in changed:
        layer[0] += 50.0
    other = labels.clone()
    other[0] = 1 - other[0]
    after = fit(changed, other, folds, 2).held_out.log_probs
    beside = (folds == folds[0]) & (torch.arange(len(labels)) > 0)
    assert torch.equal(before[beside], after[beside])
    assert not torch.allclose(before[folds != folds[0]], after[folds != folds[0]], atol=1e-3)


@BOTH
def test_rows_that_are_never_held_out_are_fitted_on_alone(fit: FitMultiLayer) -> None:
    features, labels, _ = layers([1.5, 0.5], rows=120)
    folds = torch.where(torch.arange(120) < 80, -1, 0)
    probe = fit(features, labels, folds, 2)
    assert probe.held_out.log_probs.shape == (40, 2)
    assert torch.equal(probe.held_out.target, labels[80:])


@BOTH
def test_rows_may_have_several_labels_or_none_of_one(fit: FitMultiLayer) -> None:
    features, labels, folds = layers([2.0, 0.5], classes=3)
    several = F.one_hot(labels, 3).bool()
    several[:, 1] |= several[:, 0]
    several[:, 2] = False
    probe = fit(features, several, folds, 3)
    assert probe.held_out.log_probs.shape == several.shape
    assert bool(probe.held_out.log_probs.isfinite().all())
    assert probe.held_out.accuracy > 0.6
    assert float(probe.held_out.log_probs[:, 2].exp().max()) < 0.1


def test_kinds_are_found_by_name_and_others_refused() -> None:
    assert find_multi_layer("scalar_mix") is SCALAR_MIX
    with pytest.raises(UserError, match="MultiLayerKind is needed"):
        find_multi_layer("layerfusion.layers.multi_layer:PENALTIES")
    assert PENALTIES[0] == 0.5
