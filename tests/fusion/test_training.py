from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from sklearn.metrics import accuracy_score, f1_score, log_loss
from torch import Tensor
from torch.nn.functional import cross_entropy

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.head import PREDICT_ROWS, classifier_settings
from layerfusion.fusion.training import MONITOR, BestWeights, Fitted, fit

CLASSES = 3
FUSION = FusionConfig(width=8)
TRAINER = TrainerConfig(max_epochs=6, patience=6, batch_size=16, learning_rate=1e-2)
ROWS = {"train": 96, "validation": 30, "test": 40}


def _data(separation: float = 3.0, seed: int = 0) -> FusionDataModule:
    """Classes around different centres; the second source is noise alone."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, 6, generator=generator) * separation
    targets = {split: torch.arange(rows) % CLASSES for split, rows in ROWS.items()}
    features = {
        split: [
            centres[target] + torch.randn(len(target), 6, generator=generator),
            torch.randn(len(target), 4, generator=generator),
        ]
        for split, target in targets.items()
    }
    return FusionDataModule(features, targets, TRAINER.batch_size)


def _fit(data: FusionDataModule, seed: int = 0, **changes: Any) -> Fitted:
    arguments = {"num_classes": CLASSES, "seed": seed, "fusion": FUSION, "trainer": TRAINER}
    return fit(data, **(arguments | changes))


class _Epochs(DummyLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(dict(metrics))

    def series(self, name: str) -> list[float]:
        return [row[name] for row in self.rows if name in row]


@pytest.mark.parametrize("name", ["gated", "concat"])
def test_learns_what_can_be_separated(name: str) -> None:
    data = _data()
    fitted = _fit(data, fusion=FusionConfig(name, width=8))
    logits, gates = fitted.classifier.predict_logits(data.features["test"])
    assert (logits.argmax(1) == data.targets["test"]).float().mean() > 0.95
    assert 1 <= fitted.best_epoch <= fitted.epochs <= TRAINER.max_epochs
    assert fitted.seconds > 0
    if name == "gated":
        assert gates is not None
        torch.testing.assert_close(gates.sum(1), torch.ones(len(gates)))
        assert gates[:, 0].mean() > 0.5  # the source that is not noise
    else:
        assert gates is None


def _state(fitted: Fitted) -> dict[str, Tensor]:
    return fitted.classifier.state_dict()


def test_a_seed_repeats_to_the_bit_whatever_ran_before() -> None:
    data = _data()
    first = _fit(data, seed=4)
    _fit(_data(seed=9), seed=1, fusion=FusionConfig("concat", width=5))
    torch.manual_seed(123)
    np.random.seed(123)
    again = _fit(data, seed=4)
    other = _fit(data, seed=5)
    assert all(torch.equal(weight, _state(again)[name]) for name, weight in _state(first).items())
    assert (first.best_epoch, first.epochs) == (again.best_epoch, again.epochs)
    assert not torch.equal(_state(first)["classify.weight"], _state(other)["classify.weight"])


def test_the_weights_are_those_of_a_bare_loop_to_the_bit() -> None:
    data = _data(separation=0.5)
    fusion = FusionConfig("concat", width=8)
    fitted = _fit(data, seed=3, fusion=fusion, calibrated=False)

    torch.manual_seed(3)
    head = FusionClassifier(data.widths, CLASSES, **classifier_settings(fusion, TRAINER))
    optimizer = head.configure_optimizers()
    order = torch.Generator().manual_seed(3)
    sources, target = data.features["train"], data.targets["train"]
    for _ in range(fitted.best_epoch):
        for rows in torch.randperm(len(target), generator=order).split(TRAINER.batch_size):
            optimizer.zero_grad()
            cross_entropy(head([source[rows] for source in sources]), target[rows]).backward()
            optimizer.step()
    assert all(torch.equal(weight, _state(fitted)[n]) for n, weight in head.state_dict().items())
    assert fitted.best_epoch > 1


def test_the_weights_kept_are_those_of_the_lowest_validation_log_loss() -> None:
    data = _data(separation=0.3)
    logger = _Epochs()
    eager = replace(TRAINER, max_epochs=15, patience=4, learning_rate=5e-2)
    fitted = _fit(data, trainer=eager, logger=logger)
    losses = logger.series("val/log_loss")
    assert fitted.epochs == len(losses)
    assert fitted.best_epoch == int(np.argmin(losses)) + 1
    assert fitted.epochs == fitted.best_epoch + eager.patience  # it overfits, so it stopped early
    logits, _ = fitted.classifier.predict_logits(data.features["validation"])
    probabilities = logits.softmax(1).double().numpy()
    restored = log_loss(data.targets["validation"], probabilities / probabilities.sum(1)[:, None])
    assert restored == pytest.approx(min(losses), rel=1e-4)


def test_an_epoch_logs_what_scikit_learn_computes() -> None:
    data = _data(separation=0.5)
    logger = _Epochs()
    one_epoch = replace(TRAINER, max_epochs=1)
    fitted = _fit(data, trainer=one_epoch, logger=logger, names=["a:1:mean", "b:2:last"])
    logits, gates = fitted.classifier.predict_logits(data.features["validation"])
    target, preds = data.targets["validation"], logits.argmax(1)
    assert logger.series("val/accuracy") == pytest.approx([accuracy_score(target, preds)])
    macro_f1 = f1_score(target, preds, average="macro")
    assert logger.series("val/macro_f1") == pytest.approx([macro_f1])
    assert gates is not None
    for name, gate in zip(["a:1:mean", "b:2:last"], gates.mean(0), strict=True):
        assert logger.series(f"gates/{name}") == pytest.approx([float(gate)], rel=1e-4)
    assert len(logger.series("train/loss")) == len(logger.series("val/calibration_error")) == 1


def test_every_epoch_is_logged_on_its_own() -> None:
    logger = _Epochs()
    fitted = _fit(_data(), logger=logger)
    for name in ("train/loss", "val/log_loss", "val/accuracy", "val/macro_f1", "gates/0"):
        assert len(logger.series(name)) == fitted.epochs
    kept = np.array(fitted.classifier.gate_epochs)
    for source in (0, 1):
        np.testing.assert_allclose(kept[:, source], logger.series(f"gates/{source}"), rtol=1e-6)
    sums = np.add(logger.series("gates/0"), logger.series("gates/1"))
    np.testing.assert_allclose(sums, 1, rtol=1e-5)


def test_the_test_split_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    with_test, without = _data(), _data()
    without.features.pop("test")
    without.targets.pop("test")
    for hook in ("test", "predict", "validate"):
        monkeypatch.setattr(Trainer, hook, lambda *_: pytest.fail("only fit may run"))
    a, b = _fit(with_test), _fit(without)
    assert all(torch.equal(weight, _state(b)[name]) for name, weight in _state(a).items())


def test_predict_is_the_same_in_batches_and_row_by_row() -> None:
    torch.manual_seed(0)
    classifier = FusionClassifier([6, 4], CLASSES, width=8, dropout=0.9)
    sources = [torch.randn(PREDICT_ROWS + 3, width) for width in (6, 4)]
    x = sources[0]
    classifier.train()
    logits, gates = classifier.predict_logits(sources)
    assert classifier.training
    assert not logits.requires_grad
    assert gates is not None
    assert (len(logits), len(gates)) == (len(x), len(x))
    for row in (0, PREDICT_ROWS - 1, PREDICT_ROWS, len(x) - 1):
        alone, _ = classifier.predict_logits([source[row : row + 1] for source in sources])
        torch.testing.assert_close(alone[0], logits[row])


def test_hyper_parameters_are_plain_containers() -> None:
    classifier = _fit(_data(), names=["a", "b"], importance=[1.0, 2.0]).classifier

    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        if isinstance(value, (list, tuple)):
            return all(plain(item) for item in value)
        return value is None or type(value) in (bool, int, float, str)

    assert plain(dict(classifier.hparams))
    twin = FusionClassifier(**classifier.hparams)
    twin.load_state_dict(classifier.state_dict())


def test_training_that_diverges_says_so() -> None:
    diverging = replace(TRAINER, learning_rate=1e38)
    with pytest.raises(UserError, match=r"trainer\.learning_rate=1e\+38: training diverged"):
        _fit(_data(), trainer=diverging)


def test_more_than_one_device_is_refused() -> None:
    with pytest.raises(UserError, match=r"trainer\.devices=2: a head trains on 1 device"):
        _fit(_data(), trainer=replace(TRAINER, devices=2))


def test_nothing_is_printed_and_nothing_left_switched(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        _fit(_data())
    assert [record for record in caplog.records if "lightning" in record.name] == []
    printed = capfd.readouterr()
    assert printed.out == printed.err == ""
    assert not torch.are_deterministic_algorithms_enabled()


def test_best_weights_restores_a_copy() -> None:
    class Stub:
        def __init__(self) -> None:
            self.callback_metrics: dict[str, Tensor] = {}

    model: Any = torch.nn.Linear(1, 1, bias=False)
    trainer: Any = Stub()
    keeper = BestWeights()
    for weight, log_loss_value in [(1.0, 0.9), (2.0, 0.4), (3.0, 0.4), (4.0, float("nan"))]:
        with torch.no_grad():
            model.weight.fill_(weight)
        trainer.callback_metrics[MONITOR] = torch.tensor(log_loss_value)
        keeper.on_validation_end(trainer, model)
    keeper.on_train_end(trainer, model)
    best = keeper.best
    assert (best.epoch, best.epochs, model.weight.tolist()) == (2, 4, [[2.0]])
