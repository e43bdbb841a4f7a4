"""Pools, stacks and heads of texts with any number of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.head import classifier_settings
from layerfusion.fusion.head_files import StackHead, head_from, head_state
from layerfusion.fusion.objective import find_shift, label_shares, weights_of
from layerfusion.fusion.operator_head import OperatorHead
from layerfusion.fusion.pool import KEPT_FORMS
from layerfusion.fusion.pool_fitting import _fit_forms as fit_decisions
from layerfusion.fusion.pool_fitting import fit_pool
from layerfusion.fusion.pool_forms import choose_pool
from layerfusion.fusion.pursuit import pursue
from layerfusion.fusion.stacking import Stack, fit_stack
from layerfusion.fusion.training import fit
from layerfusion.layers.discriminant import Blend
from layerfusion.layers.labels import decisions, log_probabilities, mean_loss
from layerfusion.layers.probe import cross_validate

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]
ROWS, LABELS = 300, 5
TRAINER = TrainerConfig(max_epochs=15, patience=15, learning_rate=1e-2)


def _data() -> tuple[list[Tensor], Tensor]:
    """Two sources that each show one half of what decides; the later labels are rarer."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 16, generator=generator)
    noise = torch.randn(ROWS, LABELS, generator=generator)
    scores = x @ torch.randn(16, LABELS, generator=generator) + noise
    return [x[:, :8], x[:, 8:]], scores > 2.0 * torch.arange(LABELS) - 1


def _stack(**settings: object) -> tuple[Stack, list[Tensor], Tensor]:
    features, target = _data()
    fold_of = torch.arange(ROWS) % 5
    held = cross_validate(features, target, fold_of, num_classes=LABELS, text_of=None)
    blends = [Blend(one.log_probs, one.target, one.strength, text_of=None) for one in held]
    return fit_stack(features, target, blends, num_classes=LABELS, **settings), features, target  # type: ignore[arg-type]


def test_a_stack_is_better_than_each_source_on_rows_that_it_did_not_see() -> None:
    stack, features, target = _stack()
    assert stack.pool.multilabel
    assert min(stack.held_out, key=stack.held_out.__getitem__) != "single"
    log_probs, gates = stack.predict(features)
    assert log_probs.shape == (ROWS, LABELS)
    assert gates.shape == (ROWS, 2)
    alone = [mean_loss(one, target) for one in stack.each_source(features)]
    assert mean_loss(log_probs, target) < min(alone)


@pytest.mark.parametrize("form", KEPT_FORMS)
def test_a_pool_of_labels_is_the_pool_of_their_decisions(form: str) -> None:
    features, target = _data()
    sources = torch.stack([log_probabilities(x[:, :LABELS], multilabel=True) for x in features])
    pool = fit_pool(sources, target, form)
    unfolded, classes = decisions(sources, target)
    (plain,) = fit_decisions(unfolded, classes, [form], tilted=False)
    pooled, gates = pool(sources)
    expected, each = plain(unfolded)
    assert pool.shift is not None
    odds = expected[:, 1] - expected[:, 0] + pool.shift[0]
    torch.testing.assert_close(pooled.flatten(), F.logsigmoid(odds))
    torch.testing.assert_close(gates, each.view(ROWS, LABELS, 2).mean(dim=1))


@pytest.mark.parametrize("form", KEPT_FORMS)
def test_a_pool_of_labels_has_an_offset_that_names_them_as_often_as_they_are(form: str) -> None:
    """Sources that hold every label for too rare cannot be mended by weights alone."""
    generator = torch.Generator().manual_seed(0)
    odds = 2 * torch.randn(2, 2000, LABELS, generator=generator, dtype=torch.float64)
    target = torch.rand(2000, LABELS, generator=generator) < odds.mean(dim=0).sigmoid()
    pool = fit_pool(F.logsigmoid(odds - 1.5), target, form)
    said = pool(F.logsigmoid(odds - 1.5))[0].exp().mean()
    assert float(said) == pytest.approx(float(target.double().mean()), abs=0.005)


def test_a_shift_for_f1_is_added_to_the_offset() -> None:
    features, target = _data()
    fold_of = torch.arange(ROWS) % 5
    held = cross_validate(features, target, fold_of, num_classes=LABELS, text_of=None)
    sources = torch.stack([one.log_probs for one in held]).double()
    plain, balanced = (
        choose_pool(sources, target, class_weights=weights, text_of=None).pool
        for weights in ("none", "balanced")
    )
    assert plain.shift is not None
    assert balanced.shift is not None
    whole = -label_shares(target, LABELS).logit()
    torch.testing.assert_close(balanced.shift, plain.shift + whole)


def test_the_folds_of_a_pool_keep_the_labels_of_a_text_together() -> None:
    """Else a text's other labels would tell of it. Copies of a text's labels change no weight."""
    features, target = _data()
    sources = torch.stack([log_probabilities(x[:, :1], multilabel=True) for x in features])
    once = choose_pool(sources, target[:, :1], text_of=None)
    copied = choose_pool(sources.repeat(1, 1, 4), target[:, :1].repeat(1, 4), text_of=None)
    assert once.losses == pytest.approx(copied.losses, abs=0.01)


def test_pursuit_finds_the_source_that_the_first_lacks() -> None:
    features, target = _data()
    held = cross_validate(
        features, target, torch.arange(ROWS) % 5, num_classes=LABELS, text_of=None
    )
    noise = log_probabilities(torch.randn(ROWS, LABELS), multilabel=True)
    sources = torch.stack([noise, held[0].log_probs, held[1].log_probs])
    steps = pursue(sources, target, 2)
    assert {step.position for step in steps} == {1, 2}
    assert steps[1].log_loss < steps[0].log_loss


@pytest.mark.parametrize("objective", ["macro_f1", "micro_f1"])
def test_a_shift_names_more_labels_where_f1_counts(objective: str) -> None:
    generator = np.random.default_rng(0)
    logits = torch.from_numpy(generator.normal([-1, -2, -3], 1.2, size=(6000, 3)))
    target = torch.from_numpy(generator.random((6000, 3))) < logits.sigmoid()
    log_probs = log_probabilities(logits, multilabel=True)
    learned, fresh = slice(0, 3000), slice(3000, None)
    prior = label_shares(target[learned], 3)
    shift = find_shift(objective, "none", log_probs[learned], target[learned], prior, text_of=None)
    assert shift is not None
    assert bool((shift.values > 0).all())
    average = objective.partition("_")[0]
    before, after = (
        f1_score(target[fresh], logits[fresh] + moved > 0, average=average)
        for moved in (torch.zeros(3), shift.values)
    )
    assert after > before + 0.02
    assert (
        find_shift("log_loss", "none", log_probs[learned], target[learned], prior, text_of=None)
        is None
    )


def test_a_weighted_label_counts_as_much_where_it_is_as_where_it_is_not() -> None:
    target = torch.tensor([[1, 0, 0]] * 3 + [[0, 1, 0]]).bool()
    weights = weights_of("balanced", target, 3)
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 3.0, 0.0]))


def _module() -> FusionDataModule:
    features, target = _data()
    parts = {"train": slice(0, 200), "validation": slice(200, None), "test": slice(200, None)}
    return FusionDataModule(
        {split: [x[rows] for x in features] for split, rows in parts.items()},
        {split: target[rows] for split, rows in parts.items()},
        batch_size=32,
    )


@pytest.mark.parametrize("operator", ["gated", "concat", "late"])
def test_a_head_learns_labels_and_comes_back_from_its_file(operator: str) -> None:
    data = _module()
    config = FusionConfig(operator, width=16)
    fitted = fit(data, config, TRAINER, num_classes=LABELS, objective="micro_f1")
    head = OperatorHead(fitted.classifier, data.standardiser)
    features, target = _data()
    log_probs = head.log_probs([x[200:] for x in features])
    guess = log_probabilities(label_shares(target[:200], LABELS).logit(), multilabel=True)
    assert mean_loss(log_probs, target[200:]) < 0.7 * mean_loss(guess.expand(100, -1), target[200:])
    again = head_from(*head_state(head))
    assert again.multilabel
    torch.testing.assert_close(again.log_probs(features), head.log_probs(features))
    assert again.each_source(features).shape == (2, ROWS, LABELS)


def test_a_stack_comes_back_from_its_file() -> None:
    stack, features, _ = _stack(objective="macro_f1")
    again = head_from(*head_state(StackHead(stack)))
    assert again.multilabel
    torch.testing.assert_close(again.log_probs(features), stack.predict(features)[0])


def test_an_ordinary_trainer_gives_the_weights_of_the_fast_path(tmp_path: Path) -> None:
    data = _module()
    trainer = TrainerConfig(max_epochs=2, patience=5)
    config = FusionConfig("gated", width=8)
    fast = fit(data, config, trainer, num_classes=LABELS, seed=3, calibrated=False)
    seed_everything(3, verbose=False)
    data.seed = 3
    settings = classifier_settings(FusionConfig("gated", width=8), trainer)
    head = FusionClassifier(data.widths, LABELS, multilabel=True, **settings)
    own = Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
                  default_root_dir=tmp_path, enable_checkpointing=False)  # fmt: skip
    own.fit(head, data)
    if fast.best_epoch == 2:
        for name, weight in head.state_dict().items():
            torch.testing.assert_close(weight, fast.classifier.state_dict()[name])
    (figures,) = own.test(head, data, verbose=False)
    logits, _ = head.predict_logits(data.features["test"])
    said = logits.sigmoid() >= 0.5
    target = data.targets["test"]
    for average in ("micro", "macro"):
        expected = f1_score(target, said, average=average)
        assert figures[f"test/{average}_f1"] == pytest.approx(expected, abs=1e-5)
    assert figures["test/accuracy"] == pytest.approx(float((said == target).all(1).float().mean()))
    predicted = torch.cat(own.predict(head, data))  # type: ignore[arg-type]
    torch.testing.assert_close(predicted, logits.sigmoid())
