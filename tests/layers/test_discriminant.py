"""Discriminants against scikit-learn's, and their blend with logistic probes."""

from __future__ import annotations

from itertools import product, starmap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from layerfusion.config.job import LayersConfig
from layerfusion.embeddings.standardise import Standardiser
from layerfusion.fusion.stacking import fit_stack
from layerfusion.layers import blends
from layerfusion.layers.candidates import Candidates
from layerfusion.layers.discriminant import (
    SCALES,
    SHRINKAGES,
    Blend,
    Discriminant,
    blend,
    blend_probes,
    cross_validate_discriminant,
    fit_discriminant,
)
from layerfusion.layers.labels import row_losses
from layerfusion.layers.layer_id import LayerId
from layerfusion.layers.probe import HeldOut, cross_validate, fit_probes


def clouds(rows: int, width: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of each class around a mean of its own, with features of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    centres = torch.randn(classes, width, generator=generator)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    x = centres[labels] + 2 * torch.randn(rows, width, generator=generator) @ mixing
    return x * torch.logspace(-2, 2, width) + 5, labels


@pytest.mark.parametrize("width", [6, 60])
@pytest.mark.parametrize("shrinkage", [0.1, 0.8])
def test_it_is_the_discriminant_of_scikit_learn(width: int, shrinkage: float) -> None:
    """With fewer rows than features too, where the covariance within classes is singular."""
    x, labels = clouds(48, width, 4)
    standard = Standardiser.fit([x])
    peer = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    scaled = ((x - standard.mean[0]) / standard.std[0]).double().numpy()
    expected = peer.fit(scaled, labels.numpy()).predict_log_proba(scaled)
    probe = fit_discriminant(x, labels, Discriminant(shrinkage, 1.0), num_classes=4)
    found = probe.logits(x).log_softmax(1).numpy()
    assert np.allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_the_scale_tempers_all_but_the_prior() -> None:
    x, labels = clouds(40, 5, 2)
    labels[:10] = 0
    full, none = (
        fit_discriminant(x, labels, Discriminant(0.4, scale), num_classes=2).logits(x)
        for scale in (1.0, 0.0)
    )
    half = fit_discriminant(x, labels, Discriminant(0.4, 0.5), num_classes=2).logits(x)
    assert torch.allclose(half, (full + none) / 2, atol=1e-4)
    assert torch.allclose(none[0].softmax(0), torch.bincount(labels) / 40)


def test_a_row_is_predicted_by_a_discriminant_that_has_not_seen_it() -> None:
    """Neither did the choice of its settings: it was made on the rows of the other folds."""
    x, labels = clouds(90, 8, 3)
    fold_of = torch.arange(90) % 4 - 1  # some rows are never held out
    predicted, _ = cross_validate_discriminant(x, labels, fold_of, num_classes=3)
    held_out = fold_of[fold_of >= 0]
    settings = list(starmap(Discriminant, product(SHRINKAGES, SCALES)))
    said = torch.zeros(len(settings), len(held_out), 3)
    for fold in range(3):
        some = fold_of != fold
        for n, one in enumerate(settings):
            probe = fit_discriminant(x[some], labels[some], one, num_classes=3)
            said[n, held_out == fold] = probe.logits(x[fold_of == fold]).log_softmax(1)
    losses = torch.stack([row_losses(one, labels[fold_of >= 0]) for one in said])
    for fold in range(3):
        best = losses[:, held_out != fold].mean(dim=1).argmin()
        expected = said[best, held_out == fold]
        assert torch.allclose(predicted[held_out == fold], expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_with_two_rows_of_each_class_no_row_is_predicted_worse_than_by_chance(seed: int) -> None:
    """Without a fold each class has one row, which shows no variance within classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(40) % 20
    centres = torch.randn(20, 100, generator=generator)
    x = centres[labels] + 3 * torch.randn(40, 100, generator=generator)
    predicted, _ = cross_validate_discriminant(x, labels, torch.arange(40) // 20, num_classes=20)
    assert float(row_losses(predicted, labels).mean()) < np.log(20) + 0.01


def test_the_settings_are_those_of_the_lowest_held_out_log_loss() -> None:
    x, labels = clouds(120, 10, 3, seed=3)
    fold_of = torch.arange(120) % 5
    predicted, chosen = cross_validate_discriminant(x, labels, fold_of, num_classes=3)
    losses = {}
    for shrinkage in SHRINKAGES:
        for scale in SCALES:
            out = torch.zeros(120, 3)
            for fold in range(5):
                one = fit_discriminant(
                    x[fold_of != fold],
                    labels[fold_of != fold],
                    Discriminant(shrinkage, scale),
                    num_classes=3,
                )
                out[fold_of == fold] = one.logits(x[fold_of == fold])
            losses[shrinkage, scale] = float(torch.nn.functional.cross_entropy(out, labels))
    best = min(losses, key=losses.__getitem__)
    assert (chosen.shrinkage, chosen.scale) == best
    assert float(torch.nn.functional.nll_loss(predicted, labels)) == pytest.approx(
        losses[best], abs=1e-5
    )


def test_a_class_with_one_row_or_none_gives_finite_numbers() -> None:
    x, _ = clouds(8, 12, 4)
    for labels in (torch.arange(8), torch.tensor([0, 0, 1, 1, 2, 2, 2, 2])):
        probe = fit_discriminant(x, labels, Discriminant(0.03, 1.1), num_classes=9)
        found = probe.logits(x).log_softmax(1)
        assert bool(found.isfinite().all())
        assert float(found[:, 8].max()) < -5  # the class without rows


def test_constant_features_count_for_nothing() -> None:
    x, labels = clouds(40, 5, 2)
    more = torch.cat([x, torch.full((40, 2), 3.0)], dim=1)
    settings = Discriminant(0.03, 1.0)
    probe = fit_discriminant(x, labels, settings, num_classes=2)
    with_more = fit_discriminant(more, labels, settings, num_classes=2)
    found, expected = with_more.logits(more), probe.logits(x)
    assert bool(found.isfinite().all())
    assert torch.equal(found.argmax(1), expected.argmax(1))


def test_a_blend_is_one_linear_probe_and_what_a_stack_has() -> None:
    x, labels = clouds(100, 6, 3)
    fold_of = torch.arange(100) % 5
    (logistic,) = cross_validate([x], labels, fold_of, num_classes=3, text_of=None)
    log_probs, chosen = cross_validate_discriminant(x, labels, fold_of, num_classes=3)
    held_out = blend(logistic, log_probs, chosen)
    assert (held_out.strength, held_out.discriminant) == (logistic.strength, chosen)
    assert torch.allclose(held_out.log_probs.exp().sum(1), torch.ones(100), atol=1e-5)
    assert held_out.log_loss <= max(
        logistic.log_loss, HeldOut(log_probs, labels, 1.0, text_of=None).log_loss
    )
    stack = fit_stack([x], labels, [held_out], num_classes=3)
    (probe,) = fit_probes([x], labels, [logistic.strength], num_classes=3)
    other = fit_discriminant(x, labels, chosen, num_classes=3)
    expected = (probe.logits(x).log_softmax(1) + other.logits(x).log_softmax(1)) / 2
    found = blend_probes(probe, other).logits(x).log_softmax(1)
    assert torch.allclose(found, expected.log_softmax(1), atol=1e-5)
    assert torch.allclose(stack.probes[0].weight, (probe.weight + other.weight) / 2)
    assert torch.allclose(stack.probes[0].bias, (probe.bias + other.bias) / 2)


def test_a_source_without_a_regression_is_its_discriminant_in_a_stack() -> None:
    x, labels = clouds(100, 6, 3)
    log_probs, chosen = cross_validate_discriminant(x, labels, torch.arange(100) % 5, num_classes=3)
    held_out = Blend(log_probs, labels, discriminant=chosen, text_of=None)
    stack = fit_stack([x], labels, [held_out], num_classes=3)
    expected = fit_discriminant(x, labels, chosen, num_classes=3)
    assert torch.equal(stack.probes[0].weight, expected.weight)
    assert torch.equal(stack.probes[0].bias, expected.bias)


@pytest.mark.parametrize(("regressions", "many_classes"), [(1, 4), (2, 3)])
def test_only_the_best_layers_have_a_regression_too(
    regressions: int, many_classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blends, "REGRESSIONS", regressions)
    monkeypatch.setattr(blends, "MANY_CLASSES", many_classes)
    config = LayersConfig(strengths=[0.1])
    good, labels = clouds(100, 6, 3)
    generator = torch.Generator().manual_seed(1)
    layers = {"0": torch.randn(100, 6, generator=generator), "1": good}
    spec = SimpleNamespace(canonical=lambda: "spec")
    source = SimpleNamespace(cache=tmp_path, stores={"mean": SimpleNamespace(spec=spec)})
    candidates = Candidates(
        tuple(LayerId("m", layer, "mean") for layer in layers),
        tuple(layers.values()),
        labels,
        torch.arange(100) % 5,
        tuple(map(str, range(100))),
        3,
        {"m": source},  # type: ignore[dict-item]
    )
    fresh = blends.held_out_blends(candidates, config, torch.device("cpu"))
    assert [one.strength is None for one in fresh] == [True, False]
    alone, chosen = cross_validate_discriminant(
        layers["0"], labels, candidates.fold_of, num_classes=3
    )
    assert torch.equal(fresh[0].log_probs, alone)
    assert fresh[0].discriminant == chosen
    (logistic,) = cross_validate(
        [good], labels, candidates.fold_of, num_classes=3, strengths=[0.1], text_of=None
    )
    other = cross_validate_discriminant(good, labels, candidates.fold_of, num_classes=3)
    assert torch.allclose(fresh[1].log_probs, blend(logistic, *other).log_probs, atol=1e-3)
    monkeypatch.setattr(blends, "cross_validate_discriminant", None)  # all is read from the cache
    again = blends.held_out_blends(candidates, config, torch.device("cpu"))
    assert all(torch.equal(a.log_probs, b.log_probs) for a, b in zip(fresh, again, strict=True))


def test_what_lies_outside_a_fold_is_standardised_by_itself() -> None:
    """A large feature, one that varies in a single fold alone, and one that never does."""
    x, labels = clouds(90, 8, 3)
    fold_of = torch.arange(90) // 3 % 3
    alone = torch.where(fold_of == 1, torch.arange(90.0), 4.0)
    x = torch.stack([*x.T, 3000 + 10 * x[:, 4], alone, torch.full((90,), 7.0)], dim=1)
    predicted, chosen = cross_validate_discriminant(x, labels, fold_of, num_classes=3)
    for fold in range(3):
        rest, out = fold_of != fold, fold_of == fold
        probe = fit_discriminant(x[rest], labels[rest], chosen, num_classes=3)
        expected = probe.logits(x[out]).log_softmax(1)
        torch.testing.assert_close(predicted[out], expected, atol=1e-3, rtol=1e-3)


def test_a_class_whose_rows_all_lie_in_a_fold_is_unknown_outside_it() -> None:
    x, labels = clouds(60, 4, 3)
    fold_of = torch.where(labels == 2, 0, torch.arange(60) % 2)
    predicted, _ = cross_validate_discriminant(x, labels, fold_of, num_classes=3)
    assert bool(predicted.isfinite().all())
    assert float(predicted[fold_of == 0][:, 2].max()) < -5
