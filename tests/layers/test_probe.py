"""The batched probes against scikit-learn, one at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from layerfusion.errors import UserError
from layerfusion.layers import logistic, probe
from layerfusion.layers.folds import stratified_folds
from layerfusion.layers.logistic import Solution
from layerfusion.layers.probe import cross_validate, cross_validate_in_batches, fit_probes

STRENGTHS = (1e-3, 1e-2, 1.0)


def layers(rows: int, classes: int, seed: int = 0) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Layers of several widths and scales, correlated features, one of them constant."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    means = torch.randn(classes, 24, generator=generator)
    features = []
    for width, scale, noise in ((24, 1.0, 2.0), (24, 500.0, 4.0), (40, 0.01, 3.0)):
        mix = torch.randn(24, width, generator=generator)
        signal = means[labels] + noise * torch.randn(rows, 24, generator=generator)
        layer = scale * (signal @ mix + torch.randn(rows, width, generator=generator))
        layer[:, 3] = 7.0
        features.append(layer)
    return features, labels


def reference(c: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-8, max_iter=20_000))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("rows", [30, 200])
def test_a_fit_is_that_of_scikit_learn(classes: int, rows: int) -> None:
    features, labels = layers(rows, classes)
    strengths = [1.0, 1e-2, 1e-3]
    probes = fit_probes(features, labels, strengths, num_classes=classes, tolerance=1e-6)
    for layer, c, fitted in zip(features, strengths, probes, strict=True):
        oracle = reference(c).fit(layer.double().numpy(), labels.numpy())
        expected = oracle.predict_log_proba(layer.double().numpy())
        found = fitted.logits(layer).log_softmax(dim=1).numpy()
        assert np.abs(found - expected).max() < 5e-3


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("rows", [120, 36])  # of 36, the layers are wider than a fold leaves rows
def test_each_fold_and_strength_is_a_pipeline_of_scikit_learn(rows: int, classes: int) -> None:
    features, labels = layers(rows, classes)
    fold_of = stratified_folds(labels.numpy(), range(rows), 4, seed=0)
    held = cross_validate(
        features,
        labels,
        fold_of,
        num_classes=classes,
        strengths=STRENGTHS,
        tolerance=1e-6,
        text_of=None,
    )
    for layer, found in zip(features, held, strict=True):
        tables = {}
        for c in STRENGTHS:
            tables[c] = np.zeros((rows, classes))
            for fold in range(4):
                out = (fold_of == fold).numpy()
                oracle = reference(c).fit(layer.double().numpy()[~out], labels.numpy()[~out])
                tables[c][out] = oracle.predict_log_proba(layer.double().numpy()[out])
        losses = {c: -t[np.arange(rows), labels.numpy()].mean() for c, t in tables.items()}
        assert found.strength == min(losses, key=losses.__getitem__)
        assert np.abs(found.log_probs.numpy() - tables[found.strength]).max() < 1e-2
        assert found.log_loss == pytest.approx(losses[found.strength], abs=1e-4)
        right = tables[found.strength].argmax(axis=1) == labels.numpy()
        assert found.accuracy == pytest.approx(right.mean(), abs=1.01 / rows)


def test_layers_and_batches_do_not_touch_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = layers(90, 3)
    fold_of = stratified_folds(labels.numpy(), range(90), 3, seed=0)
    settings = {"num_classes": 3, "tolerance": 1e-5}
    together = cross_validate(features, labels, fold_of, **settings, text_of=None)
    monkeypatch.setattr(probe, "CELLS", 1)
    apart = [
        cross_validate([layer], labels, fold_of, **settings, text_of=None)[0]
        for layer in features[::-1]
    ]
    for first, second in zip(together, apart[::-1], strict=True):
        assert torch.allclose(first.log_probs, second.log_probs, atol=2e-3)
        assert first.strength == second.strength


def test_many_classes_are_fitted_along_a_path_that_ends_where_each_strength_alone_does() -> None:
    features, labels = layers(120, 12)
    fold_of = stratified_folds(labels.numpy(), range(120), 3, seed=0)
    settings = {"num_classes": 12, "tolerance": 1e-6}
    # In any order: the path goes from the strongest to the weakest by itself.
    found = cross_validate(
        features, labels, fold_of, strengths=(1.0, 1e-3, 1e-2), **settings, text_of=None
    )
    for layer, one in zip(features, found, strict=True):
        (alone,) = cross_validate(
            [layer], labels, fold_of, strengths=(one.strength,), **settings, text_of=None
        )
        assert torch.allclose(one.log_probs, alone.log_probs, atol=2e-3)


def test_a_strength_that_is_surely_worse_is_not_fitted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = []
    minimise = logistic.Problem.minimise

    def counted(self: logistic.Problem, tolerance: float, start: torch.Tensor | None) -> object:
        fits.append(self)
        return minimise(self, tolerance, start)

    monkeypatch.setattr(logistic.Problem, "minimise", counted)
    features, labels = layers(720, 12)
    fold_of = stratified_folds(labels.numpy(), range(720), 4, seed=0)
    settings = {"num_classes": 12, "strengths": (1e-5, 1e-2, 1e-1), "tolerance": 1e-5}
    (raced,) = cross_validate(features[:1], labels, fold_of, **settings, text_of=None)
    in_race = len(fits)
    monkeypatch.setattr(probe, "RACE_ROWS", 10_000)
    fits.clear()
    (whole,) = cross_validate(features[:1], labels, fold_of, **settings, text_of=None)
    assert len(fits) == 12
    assert in_race < 12
    assert raced.strength == whole.strength
    # Each starts where other strengths lead, and ends within the tolerance of the same minimum.
    assert torch.allclose(raced.log_probs, whole.log_probs, atol=5e-3)


@pytest.mark.parametrize("classes", [2, 5])  # at once, and along a path
def test_a_strength_listed_twice_is_fitted_once(classes: int) -> None:
    features, labels = layers(60, classes)
    fold_of = torch.arange(60) % 3
    once, twice = (
        cross_validate(
            features, labels, fold_of, num_classes=classes, strengths=strengths, text_of=None
        )
        for strengths in ([0.01, 1.0, 3.0], [1.0, 0.01, 1.0, 1.0, 3.0])
    )
    for one, other in zip(once, twice, strict=True):
        assert torch.equal(one.log_probs, other.log_probs)


def test_labels_held_out_change_nothing_but_the_verdict() -> None:
    """A probe never sees the labels of the rows it is judged on."""
    features, labels = layers(100, 2)
    fold_of = torch.full((100,), -1)
    fold_of[60:] = 0
    turned = labels.clone()
    turned[60:] = 1 - turned[60:]
    settings = {"num_classes": 2, "strengths": [1e-2]}
    first = cross_validate(features, labels, fold_of, **settings, text_of=None)
    second = cross_validate(features, turned, fold_of, **settings, text_of=None)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.log_probs, b.log_probs)
        assert a.accuracy == pytest.approx(1 - b.accuracy)
        assert len(a.target) == 40


@pytest.mark.parametrize("classes", [3, 12])
def test_labels_of_one_fold_do_not_change_what_is_said_of_it(classes: int) -> None:
    """However loosely a fit is stopped, no fold learns from another that has seen its rows."""
    features, labels = layers(240, classes)
    fold_of = stratified_folds(labels.numpy(), range(240), 4, seed=0)
    turned = torch.where(fold_of == 2, (labels + 1) % classes, labels)
    settings = {"num_classes": classes, "strengths": [1.0], "tolerance": 1e-2}
    first = cross_validate(features, labels, fold_of, **settings, text_of=None)
    second = cross_validate(features, turned, fold_of, **settings, text_of=None)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a.log_probs[fold_of == 2], b.log_probs[fold_of == 2])
        assert not torch.allclose(a.log_probs[fold_of == 1], b.log_probs[fold_of == 1], atol=1e-3)


@pytest.mark.parametrize("classes", [2, 30])
def test_the_strengths_grow_while_the_largest_is_the_best(classes: int) -> None:
    """Classes far apart want little regularisation; a layer of noise wants much."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % classes
    clear, noise = torch.randn(2, 240, 40, generator=generator)
    features = [F.pad(F.one_hot(labels, classes), (0, 40 - classes)) + 0.02 * clear, noise]
    fold_of = stratified_folds(labels.numpy(), range(240), 4, seed=0)
    settings = {"num_classes": classes, "strengths": (1e-3, 1.0)}
    (batch,) = (
        b.probes
        for b in cross_validate_in_batches(features, labels, fold_of, **settings, text_of=None)
    )
    (grown,) = (
        b.probes
        for b in cross_validate_in_batches(
            features, labels, fold_of, **settings, grow=True, text_of=None
        )
    )
    assert batch[0].strength == 1.0
    assert grown[0].strength in probe.WEAKER
    assert grown[0].log_loss < batch[0].log_loss
    assert grown[1].strength == batch[1].strength == 1e-3
    torch.testing.assert_close(grown[1].log_probs, batch[1].log_probs, atol=1e-3, rtol=0)


def test_weaker_strengths_go_on_from_folds_that_are_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 30
    features = F.one_hot(labels, 40) + 0.02 * torch.randn(240, 40, generator=generator)
    fold_of = stratified_folds(labels.numpy(), range(240), 4, seed=0)
    fitted: list[tuple[float, bool]] = []
    minimise = logistic.Problem.minimise

    def noted(problem: logistic.Problem, tolerance: float, start: Tensor | None = None) -> Solution:
        fitted.append((round(1 / float(problem.penalty[0]) / 180, 4), start is None))
        return minimise(problem, tolerance, start)

    monkeypatch.setattr(logistic.Problem, "minimise", noted)
    settings = {"num_classes": 30, "strengths": (1.0,), "grow": True}
    (batch,) = cross_validate_in_batches([features], labels, fold_of, **settings, text_of=None)
    assert batch.probes[0].strength in probe.WEAKER
    assert fitted.count((1.0, True)) == 4
    assert {strength for strength, _ in fitted} > {1.0, probe.WEAKER[0]}


def test_a_weak_pull_is_followed_to_its_optimum() -> None:
    """Sixty classes that can be told apart: the gradient is small far from there, too."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(60, 128, generator=generator)
    mix = torch.linalg.qr(torch.randn(128, 128, generator=generator))[0]
    labels = torch.arange(60 * 12) % 60
    rows, fresh = (means[labels] + 2 * torch.randn(720, 128, generator=generator) for _ in "ab")
    rows, fresh = (x @ (mix * torch.logspace(0, -2, 128)).T for x in (rows, fresh))
    for strength in (10.0, 100.0):
        losses = []
        for tolerance in (probe.TOLERANCE, 1e-6):
            settings = {"num_classes": 60, "tolerance": tolerance}
            (fitted,) = fit_probes([rows], labels, [strength], **settings)
            losses.append(float(F.cross_entropy(fitted.logits(fresh), labels)))
        assert losses[0] == pytest.approx(losses[1], rel=0.03)


def test_separable_data_and_a_missing_class_converge() -> None:
    labels = torch.tensor([0, 1] * 20)
    features = [torch.stack([labels * 2.0 - 1, torch.zeros(40)], dim=1)]
    (fitted,) = fit_probes(features, labels, [1e4], num_classes=3)
    probabilities = fitted.logits(features[0]).softmax(dim=1)
    assert (probabilities.argmax(dim=1) == labels).all()
    assert probabilities[:, 2].max() < 0.01


def test_rare_classes_among_many_converge_in_few_steps(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Their probabilities saturate after the first step, and with them what the steps are scaled by.
    monkeypatch.setattr(logistic, "MAX_STEPS", 25)
    generator = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.zeros(540), torch.ones(260), torch.arange(50).repeat(2)]).long()
    features = torch.randn(50, 128, generator=generator)[labels]
    features += 0.2 * torch.randn(900, 128, generator=generator)
    (fitted,) = fit_probes([features], labels, [1e-3], num_classes=50)
    assert not caplog.records
    oracle = reference(1e-3).fit(features.double().numpy(), labels.numpy())
    expected = oracle.predict_log_proba(features.double().numpy())
    assert np.abs(fitted.logits(features).log_softmax(dim=1).numpy() - expected).max() < 0.01


def test_a_fit_that_is_cut_off_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    features, labels = layers(60, 2)
    monkeypatch.setattr(logistic, "MAX_STEPS", 1)
    fit_probes(features[:1], labels, [1.0], num_classes=2)
    assert "left a gradient of" in caplog.text


def test_features_that_are_not_finite_are_refused() -> None:
    features, labels = layers(20, 2)
    features[1][3, 4] = torch.nan
    with pytest.raises(UserError, match="not finite"):
        fit_probes(features, labels, [1.0] * 3, num_classes=2)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_constant_layer_is_a_coin_and_harms_no_other(classes: int) -> None:
    features, labels = layers(80, classes)
    constant = torch.ones(80, 24)
    for batch in ([constant], [constant, features[0]], [features[0], constant]):
        probes = fit_probes(batch, labels, [1.0] * len(batch), num_classes=classes)
        for layer, fitted in zip(batch, probes, strict=True):
            if layer is constant:
                chances = fitted.logits(layer).softmax(dim=1)
                assert torch.allclose(chances, torch.full_like(chances, 1 / classes), atol=1e-3)
            else:
                assert (fitted.logits(layer).argmax(dim=1) == labels).double().mean() > 0.8
        fold_of = stratified_folds(labels.numpy(), range(80), 2, seed=0)
        cross_validate(batch, labels, fold_of, num_classes=classes, text_of=None)


def test_a_feature_that_is_constant_where_a_fold_is_fitted_weighs_nothing_there() -> None:
    features, labels = layers(60, 3)
    layer = features[0].clone()
    layer[:, 5] = 0.0
    layer[40:, 5] = 3.0
    fold_of = torch.zeros(60, dtype=torch.int64)
    fold_of[:40] = -1
    (found,) = cross_validate(
        [layer],
        labels,
        fold_of,
        num_classes=3,
        strengths=[1.0],
        tolerance=1e-6,
        text_of=None,
    )
    oracle = reference(1.0).fit(layer[:40].double().numpy(), labels[:40].numpy())
    expected = oracle.predict_log_proba(layer[40:].double().numpy())
    assert np.abs(found.log_probs.numpy() - expected).max() < 2e-2


def test_repeated_texts_leave_the_strengths_in_the_race() -> None:
    """A strength is worse by two standard errors over the texts, six over as many rows again."""
    generator = torch.Generator().manual_seed(0)
    texts, times = 120, 9
    noise = torch.randn(texts, generator=generator, dtype=torch.float64)
    noise = (noise - noise.mean()) / noise.std()
    worse = 2.0 + 0.1 * (noise + 2 / texts**0.5)

    def said(losses: Tensor) -> Tensor:
        each = torch.stack([-losses, (1 - (-losses).exp()).log()], dim=1)
        return each.repeat(times, 1)[None]

    predicted = {1.0: said(torch.full((texts,), 2.0, dtype=torch.float64)), 2.0: said(worse)}
    rows = torch.arange(texts * times)
    labels, fold_of = torch.zeros_like(rows), torch.zeros_like(rows)

    def running(text_of: Tensor | None) -> list[float]:
        task = probe._Task([], labels, (fold_of != 0)[None], rows, fold_of, text_of, 2, None)
        return probe._not_surely_worse(task, predicted, fold_of == 0)

    assert running(None) == [1.0]
    assert running(torch.arange(texts).repeat(times)) == [1.0, 2.0]
    predicted[2.0] = said(3.0 + 0.01 * noise)
    assert running(torch.arange(texts).repeat(times)) == [1.0]
    # Of so few texts none is eliminated, whatever the number of rows.
    assert running(rows % (probe.RACE_ROWS - 1)) == [1.0, 2.0]
