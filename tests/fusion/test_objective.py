"""Objectives: costs of rows, shifts for rare classes, temperatures and class weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score
from torch import Tensor
from torch.nn import functional as F

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.errors import UserError
from layerfusion.fusion.calibration import temperature_of
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.objective import (
    costs,
    find_shift,
    label_shares,
    row_weights,
    weights_of,
)
from layerfusion.fusion.training import Fitted, calibrate, fit


def _predictions(rows: int, frequencies: list[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """True posteriors of overlapping classes of unequal frequency."""
    generator = np.random.default_rng(seed)
    classes = len(frequencies)
    target = generator.choice(classes, size=rows, p=frequencies)
    x = generator.normal(size=(rows, classes))
    x[np.arange(rows), target] += 1.5
    logits = 1.5 * x + np.log(np.maximum(frequencies, 1e-9))
    return torch.from_numpy(logits).log_softmax(dim=1), torch.from_numpy(target)


@pytest.mark.parametrize("seed", range(3))
def test_costs_are_the_measures_of_scikit_learn(seed: int) -> None:
    log_probs, target = _predictions(200, [0.6, 0.3, 0.08, 0.02, 0.0], seed)
    said = log_probs.argmax(dim=1)
    found = {name: float(costs(name, log_probs, target).mean()) for name in
             ("log_loss", "accuracy", "macro_f1")}  # fmt: skip
    expected = log_loss(target, log_probs.exp(), labels=list(range(5)))
    assert found["log_loss"] == pytest.approx(expected)
    assert 1 - found["accuracy"] == pytest.approx(accuracy_score(target, said))
    assert 1 - found["macro_f1"] == pytest.approx(f1_score(target, said, average="macro"))
    # Every row has one class and one answer, so that micro-F1 is accuracy.
    assert costs("micro_f1", log_probs, target).equal(costs("accuracy", log_probs, target))


def test_the_spread_of_macro_f1_is_that_over_samples() -> None:
    values, errors = [], []
    for seed in range(300):
        log_probs, target = _predictions(400, [0.7, 0.2, 0.1], seed)
        each = costs("macro_f1", log_probs, target)
        values.append(float(each.mean()))
        errors.append(float(each.std()) / 20)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_rare_classes_are_named_more_often_for_macro_f1_alone() -> None:
    frequencies = [0.9, 0.07, 0.03]
    log_probs, target = _predictions(4000, frequencies)
    fresh, fresh_target = _predictions(20_000, frequencies, seed=1)
    prior = label_shares(target, 3)
    for objective in ("log_loss", "accuracy"):
        assert find_shift(objective, "none", log_probs, target, prior, text_of=None) is None
    shift = find_shift("macro_f1", "none", log_probs, target, prior, text_of=None)
    assert shift is not None
    assert shift.words.endswith(" of the classes' log-frequencies are taken off")
    assert shift.values[2] > shift.values[1] > shift.values[0]
    before, after = (
        f1_score(fresh_target, (fresh + moved).argmax(dim=1), average="macro")
        for moved in (torch.zeros(3), shift.values)
    )
    assert after > before + 0.02
    # With weights for the classes the mean recall is what counts.
    balanced = find_shift("log_loss", "balanced", log_probs, target, prior, text_of=None)
    assert balanced is not None
    torch.testing.assert_close(balanced.values, -prior.log())
    before, after = (
        recall_score(fresh_target, (fresh + moved).argmax(dim=1), average="macro")
        for moved in (torch.zeros(3), balanced.values)
    )
    assert after > before + 0.1


def test_nothing_is_shifted_where_it_gains_nothing() -> None:
    log_probs, target = _predictions(300, [0.5, 0.5])
    assert (
        find_shift("macro_f1", "none", log_probs, target, label_shares(target, 2), text_of=None)
        is None
    )
    none = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)
    assert find_shift("macro_f1", "none", *none, torch.tensor([0.25, 0.75]), text_of=None) is None


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_a_temperature_undoes_what_made_probabilities_too_sure(factor: float) -> None:
    log_probs, target = _predictions(5000, [0.4, 0.3, 0.3])
    assert temperature_of(factor * log_probs, target, text_of=None) == pytest.approx(
        factor, rel=0.1
    )


def test_a_temperature_that_does_not_surely_gain_is_not_taken() -> None:
    log_probs, target = _predictions(60, [0.4, 0.3, 0.3])
    assert temperature_of(1.1 * log_probs, target, text_of=None) == 1.0
    assert temperature_of(torch.tensor([[9.0, 0.0]]), torch.tensor([0]), text_of=None) == 1.0


TIMES = 30
"""How often each row is repeated."""


@pytest.mark.parametrize("factor", [1.4, 1.7])  # once it gains too little, once it is pulled to 1
def test_repeated_texts_make_a_temperature_no_surer(factor: float) -> None:
    log_probs, target = _predictions(40, [0.4, 0.3, 0.3])
    logits = factor * log_probs
    once = temperature_of(logits, target, text_of=None)
    again = logits.repeat(TIMES, 1), target.repeat(TIMES)
    assert temperature_of(*again, torch.arange(40).repeat(TIMES)) == pytest.approx(once)
    assert temperature_of(*again, text_of=None) > once + 0.05


def test_repeated_texts_of_validation_calibrate_a_head_no_surer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log_probs, target = _predictions(40, [0.8, 0.1, 0.1], seed=1)

    def calibrated(times: int, text_of: Tensor | None) -> Fitted:
        said, labels = 1.4 * log_probs.float().repeat(times, 1), target.repeat(times)
        rows, targets = [[said], [said]], [labels, labels]
        names = ("train", "validation")
        data = FusionDataModule(
            dict(zip(names, rows, strict=True)),
            dict(zip(names, targets, strict=True)),
            text_of=text_of,
        )
        head = FusionClassifier([3], 3, operator="concat", width=8)
        monkeypatch.setattr(head, "predict_logits", lambda _: (said, None))
        return calibrate(Fitted(head, 1, 1, 0.0), data, "macro_f1")

    once, again = calibrated(1, None), calibrated(TIMES, torch.arange(40).repeat(TIMES))
    assert once.temperature == again.temperature == 1.0
    assert once.shift is again.shift is None
    surer = calibrated(TIMES, None)
    assert surer.temperature != 1.0
    assert surer.shift is not None


def test_numbers_of_texts_have_to_fit_validation() -> None:
    rows = {"train": [torch.eye(2)], "validation": [torch.eye(2)]}
    targets = {"train": [0, 1], "validation": [0, 1]}
    data = FusionDataModule(rows, targets, text_of=[5, 5])
    assert data.text_of is not None
    assert data.text_of.tolist() == [5, 5]
    for wrong in ([1, 2, 3], [0.5, 1.0], [[1, 2]]):
        with pytest.raises(UserError, match="a whole number is needed for each of 2 rows of valid"):
            FusionDataModule(rows, targets, text_of=wrong)


def test_weights_give_each_class_the_same_share() -> None:
    target = torch.tensor([0] * 6 + [1] * 2)
    assert weights_of("none", target, 3) is None
    weights = weights_of("balanced", target, 3)
    assert weights is not None
    torch.testing.assert_close(weights, torch.tensor([8 / 12, 2.0, 0.0]))


def test_rows_with_a_label_count_as_much_as_those_without_it() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(50, 3, generator=generator) < torch.tensor([0.1, 0.5, 0.9])
    target = torch.cat([target, torch.tensor([[True, False]]).expand(50, 2)], dim=1)
    assert row_weights("none", target, 5) is None
    weights, in_training = row_weights("balanced", target, 5), weights_of("balanced", target, 5)
    assert weights is not None
    assert in_training is not None
    for k in range(3):
        with_it, without = weights[target[:, k], k], weights[~target[:, k], k]
        assert float(with_it.sum()) == pytest.approx(25)
        assert float(without.sum()) == pytest.approx(25)
        assert float(with_it[0] / without[0]) == pytest.approx(float(in_training[k]))
    assert not weights[:, 3:].any()  # every row has the first of them, and none the last
    log_probs = torch.randn(50, 5, generator=generator).sigmoid().log()
    for objective in ("accuracy", "macro_f1", "micro_f1"):
        plain = costs(objective, log_probs, target)
        assert costs(objective, log_probs, target, weights).equal(plain)


def test_labels_are_judged_as_in_a_population_with_the_whole_shift() -> None:
    """Of answers that know nothing, those that hold each label for even odds are best."""
    target = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) < torch.tensor(
        [0.1, 0.8]
    )
    weights = row_weights("balanced", target, 2)
    prior = label_shares(target, 2)
    shift = find_shift(
        "log_loss", "balanced", prior.log().expand(400, 2), target, prior, text_of=None
    )
    assert shift is not None
    losses = [
        float(costs("log_loss", F.logsigmoid(prior.logit() + part * shift.values).expand(400, 2),
                    target, weights).mean())
        for part in (0.0, 0.9, 1.0, 1.1)
    ]  # fmt: skip
    assert min(losses) == losses[2] == pytest.approx(math.log(2))


def _data(frequencies: list[float]) -> FusionDataModule:
    generator = np.random.default_rng(0)
    features, targets = {}, {}
    for split, rows in {"train": 600, "validation": 400, "test": 2000}.items():
        target = generator.choice(len(frequencies), size=rows, p=frequencies)
        x = generator.normal(size=(rows, 6)).astype(np.float32)
        x[np.arange(rows), target] += 1.2
        features[split] = [torch.from_numpy(x[:, :3]), torch.from_numpy(x[:, 3:])]
        targets[split] = torch.from_numpy(target)
    return FusionDataModule(features, targets, batch_size=32)


TRAINER = TrainerConfig(max_epochs=12, patience=12, learning_rate=1e-2)


def _fit(
    data: FusionDataModule, config: FusionConfig, objective: str = "log_loss", weights: str = "none"
) -> Fitted:
    return fit(data, config, TRAINER, num_classes=3, objective=objective, class_weights=weights)


def _recall(data: FusionDataModule, head: FusionClassifier) -> float:
    said = head.predict_logits(data.features["test"])[0].argmax(dim=1)
    return float(recall_score(data.targets["test"], said, average="macro"))


@pytest.mark.parametrize("operator", ["gated", "late"])
def test_a_head_that_is_too_sure_is_calibrated_on_validation_and_its_labels_stay(
    operator: str,
) -> None:
    data = _data([0.4, 0.3, 0.3])
    config = FusionConfig(operator, width=32)
    fitted = fit(data, config, TRAINER, num_classes=3, calibrated=False)
    before, _ = fitted.classifier.predict_logits(data.features["validation"])
    fitted.classifier.rescale(3.0)
    sure, _ = fitted.classifier.predict_logits(data.features["validation"])
    torch.testing.assert_close(sure.log_softmax(1), (3 * before).log_softmax(1))
    calibrated = calibrate(fitted, data)
    logits, _ = calibrated.classifier.predict_logits(data.features["validation"])
    assert calibrated.temperature is not None
    assert calibrated.temperature == pytest.approx(3, rel=0.3)
    torch.testing.assert_close(calibrated.uncalibrated(logits).log_softmax(1), sure.log_softmax(1))
    torch.testing.assert_close(
        logits.log_softmax(1), (sure / calibrated.temperature).log_softmax(1)
    )


def test_a_head_that_stopped_on_validation_is_mostly_left_as_it_is() -> None:
    data = _data([0.4, 0.3, 0.3])
    fitted = _fit(data, FusionConfig("gated", width=32))
    assert fitted.temperature == 1.0


@pytest.mark.parametrize("operator", ["gated", "late"])
def test_a_head_with_class_weights_or_for_macro_f1_finds_rare_classes(operator: str) -> None:
    data = _data([0.9, 0.07, 0.03])
    config = FusionConfig(operator, width=32)
    plain = _fit(data, config)
    weighted = _fit(data, config, weights="balanced")
    shifted = _fit(data, config, "macro_f1")
    assert _recall(data, weighted.classifier) > _recall(data, plain.classifier) + 0.05
    assert _recall(data, shifted.classifier) > _recall(data, plain.classifier)


def test_the_objective_chooses_the_epoch() -> None:
    data = _data([0.4, 0.3, 0.3])
    for objective, better in (("accuracy", accuracy_score), ("macro_f1", _macro_f1)):
        fitted = fit(data, FusionConfig("gated"), TRAINER, num_classes=3, objective=objective)
        by_loss = fit(data, FusionConfig("gated"), TRAINER, num_classes=3)
        scores = [
            better(data.targets["validation"],
                   one.classifier.predict_logits(data.features["validation"])[0].argmax(dim=1))
            for one in (fitted, by_loss)
        ]  # fmt: skip
        assert scores[0] >= scores[1]


def _macro_f1(target: Tensor, said: Tensor) -> float:
    return float(f1_score(target, said, average="macro"))
