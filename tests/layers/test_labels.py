"""Labels in tensors: losses, answers and decisions, against scikit-learn and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from layerfusion.config.job import STRENGTHS
from layerfusion.config.registry import SCORES
from layerfusion.errors import UserError
from layerfusion.fusion.objective import costs
from layerfusion.layers.folds import possible_folds, stratified_folds
from layerfusion.layers.labels import (
    COMPARES_CLASSES,
    by_row,
    decisions,
    folded,
    is_multilabel,
    label_counts,
    log_odds,
    log_probabilities,
    right_rows,
    row_losses,
)
from layerfusion.layers.lexical_regression import C_VALUES, LexicalRegression, count, predict_folds
from layerfusion.layers.probe import cross_validate, fit_probes
from layerfusion.layers.score import find_score
from layerfusion.layers.transferability import fisher, h_score, logme


def _labelled(rows: int = 240, labels: int = 4) -> tuple[Tensor, Tensor]:
    """Vectors, and labels of which the later ones are rarer and some rows have none."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 12, generator=generator)
    weights = torch.randn(12, labels, generator=generator)
    noise = 2 * torch.randn(rows, labels, generator=generator)
    return x, x @ weights + noise > 2 * torch.arange(labels)


def test_measures_of_labels_are_those_of_scikit_learn() -> None:
    x, target = _labelled()
    assert bool((~target.any(dim=1)).any())
    log_probs = log_probabilities(x[:, :4], multilabel=True)
    said = log_probs.exp() >= 0.5
    means = {name: float(costs(name, log_probs, target).mean())
             for name in ("log_loss", "accuracy", "macro_f1", "micro_f1")}  # fmt: skip
    each = [log_loss(target[:, k], log_probs[:, k].double().exp()) for k in range(4)]
    assert means["log_loss"] == pytest.approx(np.mean(each))
    assert 1 - means["accuracy"] == pytest.approx(accuracy_score(target, said))
    for average in ("macro", "micro"):
        expected = f1_score(target, said, average=average)
        assert 1 - means[f"{average}_f1"] == pytest.approx(expected)
    assert right_rows(log_probs, target).tolist() == (said == target).all(dim=1).tolist()


def test_the_spread_of_micro_f1_is_that_over_samples() -> None:
    values, errors = [], []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        truth = torch.randn(300, 3, generator=generator)
        logits = truth + torch.randn(300, 3, generator=generator)
        each = costs("micro_f1", log_probabilities(logits, multilabel=True), truth > 1)
        values.append(float(each.mean()))
        errors.append(float(each.std()) / 300**0.5)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decisions_have_the_losses_of_labels_at_any_certainty(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 3.0], [-40.0, 40.0], [80.0, -80.0]], dtype=dtype)
    target = torch.tensor([[True, False], [True, True], [False, False]])
    log_probs = log_probabilities(logits, multilabel=True)
    unfolded, classes = decisions(log_probs, target)
    assert unfolded.shape == (6, 2)
    assert bool(unfolded.isfinite().all())
    torch.testing.assert_close(folded(unfolded, 2), log_probs)
    losses = -unfolded.double().gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(by_row(losses, target), row_losses(log_probs, target))
    torch.testing.assert_close(log_odds(log_probs), logits, rtol=1e-4, atol=1e-5)


def test_classes_are_left_as_they_are() -> None:
    log_probs, target = torch.randn(5, 3).log_softmax(1), torch.tensor([0, 1, 2, 0, 1])
    assert not is_multilabel(target)
    same, classes = decisions(log_probs, target)
    assert same is log_probs
    assert classes is target
    assert by_row(target, target) is target
    assert label_counts(target, 4).tolist() == [2, 2, 1, 0]
    assert label_counts(torch.eye(3).bool(), 3).tolist() == [1, 1, 1]


def test_probes_of_labels_are_regressions_of_scikit_learn() -> None:
    x, target = _labelled()
    fold_of = torch.arange(len(x)) % 3
    (held,) = cross_validate(
        [x], target, fold_of, num_classes=4, strengths=[0.1], tolerance=1e-5, text_of=None
    )
    expected = np.zeros((len(x), 4))
    for fold in range(3):
        out = (fold_of == fold).numpy()
        scale = StandardScaler().fit(x[~out])
        for k in range(4):
            fitted = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000)
            fitted.fit(scale.transform(x[~out]), target[~out, k])
            expected[out, k] = fitted.predict_log_proba(scale.transform(x[out]))[:, 1]
    assert np.abs(held.log_probs.numpy() - expected).max() < 5e-3
    assert held.log_loss == pytest.approx(float(row_losses(held.log_probs, target).mean()))
    assert held.losses.shape == held.right.shape == (len(x),)
    (probe,) = fit_probes([x], target, [0.1], num_classes=4)
    assert probe.logits(x).shape == (len(x), 4)


def test_strengths_are_chosen_along_a_path_too() -> None:
    x, target = _labelled(60)
    wide = torch.cat([x, torch.randn(60, 200, generator=torch.Generator().manual_seed(1))], dim=1)
    fold_of = torch.arange(60) % 3
    (held,) = cross_validate([wide], target, fold_of, num_classes=4, text_of=None)
    each = [
        cross_validate([wide], target, fold_of, num_classes=4, strengths=[strength], text_of=None)[
            0
        ].log_loss
        for strength in STRENGTHS
    ]
    assert held.log_loss == pytest.approx(min(each), abs=1e-4)


def test_a_label_that_a_fold_never_saw_costs_no_more_than_half_a_row() -> None:
    x, target = _labelled(60)
    target[:, 3] = torch.arange(60) < 2  # both are held out by the first fold
    target[:, 2] = torch.arange(60) > 1
    fold_of = torch.arange(60) // 20
    (held,) = cross_validate([x], target, fold_of, num_classes=4, strengths=[0.1], text_of=None)
    fold = held.log_probs[:20].double().exp()
    assert fold[:, 3].tolist() == pytest.approx([1 / 81] * 20)
    assert fold[:, 2].tolist() == pytest.approx([80 / 81] * 20)
    assert float(held.losses.max()) < 5


@pytest.mark.parametrize("score", [logme, h_score, fisher])
def test_scores_that_compare_classes_refuse_labels_in_one_line(score) -> None:  # type: ignore[no-untyped-def]
    x, target = _labelled()
    with pytest.raises(UserError, match="it compares classes, of which a row has one"):
        score(x, target)


def test_scores_know_whether_they_compare_classes() -> None:
    x, target = _labelled()
    named = COMPARES_CLASSES.partition("need ")[2]
    for name in SCORES:
        assert find_score(name).compares_classes != (name in named), name
    assert not math.isnan(find_score("effective_rank").compute(x, target))


def test_folds_share_out_the_rarest_label() -> None:
    _, target = _labelled(200)
    fold_of = stratified_folds(target.numpy(), range(200), 4, seed=0)
    rarest = target[:, 3]
    assert 4 <= int(rarest.sum()) < int(target[:, 0].sum())
    counts = [int((rarest & (fold_of == fold)).sum()) for fold in range(4)]
    assert max(counts) - min(counts) <= 1
    assert possible_folds(target.numpy(), range(200), 5, seed=0) == 5


def test_a_lexical_regression_of_labels_finds_each_and_knows_constant_ones() -> None:
    texts = [f"{'warm ' * (n % 2)}{'long ' * (n % 3 == 0)}film {n}" for n in range(60)]
    labels = np.array([[n % 2 == 1, n % 3 == 0, True, False] for n in range(60)])
    (predicted,) = predict_folds(
        [(count("words", texts), "regression")], labels, np.arange(60) // 6 % 3, num_classes=4
    )
    right = right_rows(torch.from_numpy(predicted[C_VALUES[-1]]), torch.from_numpy(labels))
    assert float(right.double().mean()) > 0.9
    fitted = LexicalRegression.fit("words", texts, labels, 100.0, num_classes=4)
    scores = fitted.vectors(["a warm film", "a long film", ""])
    assert ((scores > 0) == torch.tensor([[True, False, True, False], [False, True, True, False],
                                          [False, False, True, False]])).all()  # fmt: skip
    again = LexicalRegression.from_state("words", *fitted.state())
    assert again.multilabel
    torch.testing.assert_close(again.vectors(texts), fitted.vectors(texts))
