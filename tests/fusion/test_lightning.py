"""The pair on people's own Trainer: every feature that they know does what they know it to do."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor
from torch.nn.functional import cross_entropy

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import FusionDataModule
from layerfusion.fusion.operators import FusionOperator, Projections
from layerfusion.fusion.training import calibrate, fit

ROWS = {"train": 50, "validation": 20, "test": 30}
CLASSES = 3
BATCH = 8


class Widest(FusionOperator):
    """An operator that is not LayerFusion's."""

    def __init__(self, widths: list[int], width: int, *, scale: float) -> None:
        super().__init__(widths, width)
        self.scale = scale
        self.projections = Projections(widths, width)

    def fuse(self, sources: list[Tensor]) -> tuple[Tensor, None]:
        return self.scale * self.projections.activated(sources).amax(dim=1), None


class Data(FusionDataModule):
    """What a user of LightningCLI would write."""

    def __init__(self, batch_size: int = BATCH) -> None:
        generator = torch.Generator().manual_seed(0)
        targets = {split: torch.arange(rows) % CLASSES for split, rows in ROWS.items()}
        centres = torch.randn(CLASSES, 6, generator=generator)
        features = {
            split: [
                centres[target] + torch.randn(len(target), 6, generator=generator),
                torch.randn(len(target), 4, generator=generator),
            ]
            for split, target in targets.items()
        }
        super().__init__(features, targets, batch_size)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    yield
    logging.getLogger("lightning.pytorch").setLevel(logging.NOTSET)


pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]


def _trainer(folder: Path, **settings: Any) -> Trainer:
    plain: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 2,
        "log_every_n_steps": 1,
        "default_root_dir": folder,
    }
    return Trainer(**(plain | settings))


def _head(**settings: Any) -> FusionClassifier:
    return FusionClassifier([6, 4], CLASSES, **({"width": 8, "learning_rate": 1e-2} | settings))


class Batches(Callback):
    """Counts the training batches."""

    def __init__(self) -> None:
        self.seen = 0

    def on_train_batch_end(self, *arguments: Any, **more: Any) -> None:
        self.seen += 1


@pytest.mark.parametrize("operator", ["gated", "late", "concat", "attention"])
def test_an_ordinary_trainer_gives_the_weights_of_the_fast_path(
    tmp_path: Path, operator: str
) -> None:
    epochs = 3
    fusion, settings = FusionConfig(operator, width=8), TrainerConfig(max_epochs=epochs)
    data = Data()
    fast = fit(data, fusion, settings, num_classes=CLASSES, seed=5, calibrated=False)
    assert fast.best_epoch == epochs  # so that the last weights are those that fit keeps
    seed_everything(5, verbose=False)
    data.seed = 5
    head = _head(operator=operator, learning_rate=settings.learning_rate)
    _trainer(tmp_path, max_epochs=epochs).fit(head, datamodule=data)
    for name, weight in head.state_dict().items():
        assert torch.equal(weight, fast.classifier.state_dict()[name]), name


def test_a_head_of_an_ordinary_trainer_is_calibrated_as_fit_does_it(tmp_path: Path) -> None:
    data = Data()
    head = _head(learning_rate=0.1)
    _trainer(tmp_path, max_epochs=40).fit(head, datamodule=data)  # far too sure of validation
    features, target = data.features["validation"], data.targets["validation"]
    sure, _ = head.predict_logits(features)
    temperature = head.calibrate(data)
    calm, _ = head.predict_logits(features)
    assert temperature > 1.2
    torch.testing.assert_close(calm * temperature, sure)
    assert cross_entropy(calm, target) < cross_entropy(sure, target)
    assert head.calibrate(data) == 1.0  # what is calibrated stays as it is


def test_what_fit_trains_is_calibrated_unless_it_is_told_otherwise() -> None:
    data = Data()
    settings = TrainerConfig(max_epochs=40, patience=40, learning_rate=0.1)
    plain, fitted = (
        fit(
            data,
            FusionConfig(width=64),
            settings,
            num_classes=3,
            objective="accuracy",
            calibrated=calibrated,
        )
        for calibrated in (False, True)
    )
    assert plain.temperature is None
    assert fitted.temperature is not None
    again = calibrate(plain, data, "accuracy")
    assert again.temperature == fitted.temperature
    for name, weight in again.classifier.state_dict().items():
        assert torch.equal(weight, fitted.classifier.state_dict()[name])


def test_a_head_that_fit_trained_goes_on_with_an_ordinary_trainer(tmp_path: Path) -> None:
    data = Data()
    head = fit(data, FusionConfig(width=8), TrainerConfig(max_epochs=1), num_classes=3).classifier
    assert type(head) is FusionClassifier
    before = {name: weight.clone() for name, weight in head.state_dict().items()}
    trainer = _trainer(tmp_path)
    trainer.fit(head, datamodule=data)
    assert trainer.global_step == 2 * 7
    assert not torch.equal(before["classify.weight"], head.state_dict()["classify.weight"])


def test_gradients_are_clipped(tmp_path: Path) -> None:
    norms: list[float] = []

    class Norms(Callback):
        def on_before_zero_grad(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
            grads = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
            if grads:
                norms.append(float(torch.cat(grads).norm()))

    trainer = _trainer(tmp_path, gradient_clip_val=1e-3, callbacks=[Norms()])
    trainer.fit(_head(), datamodule=Data())
    assert norms
    assert max(norms) <= 1.01e-3


@pytest.mark.parametrize(
    ("settings", "batches", "steps"),
    [
        ({}, 14, 14),
        ({"accumulate_grad_batches": 2}, 14, 8),
        ({"limit_train_batches": 3}, 6, 6),
        ({"limit_train_batches": 0.5}, 6, 6),
        ({"max_steps": 5}, 5, 5),
        ({"fast_dev_run": True}, 1, 1),
    ],
)
def test_the_trainer_counts_batches_and_steps(
    tmp_path: Path, settings: dict[str, Any], batches: int, steps: int
) -> None:
    counts = Batches()
    trainer = _trainer(tmp_path, callbacks=[counts], **settings)
    trainer.fit(_head(), datamodule=Data())
    assert (counts.seen, trainer.global_step) == (batches, steps)


def test_the_learning_rate_is_monitored(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    trainer = _trainer(tmp_path, logger=logger, callbacks=[LearningRateMonitor("step")])
    trainer.fit(_head(learning_rate=0.02), datamodule=Data())
    assert trainer.callback_metrics["train/loss"] > 0
    logged = (Path(logger.log_dir) / "metrics.csv").read_text()
    assert "lr-AdamW" in logged
    assert "0.02" in logged


@pytest.mark.parametrize(
    "settings",
    [
        {"operator": "gated", "arguments": {"temperature": 2.0}, "importance": [1.0, 3.0]},
        {"operator": Widest, "arguments": {"scale": 0.5}},
        {"operator": "tests.fusion.test_lightning:Widest", "arguments": {"scale": 0.5}},
    ],
)
def test_a_checkpoint_gives_the_head_back(tmp_path: Path, settings: dict[str, Any]) -> None:
    data, head = Data(), _head(**settings)
    keep = ModelCheckpoint(tmp_path, monitor="val/log_loss", mode="min", save_last=True)
    _trainer(tmp_path, callbacks=[keep], enable_checkpointing=True).fit(head, datamodule=data)
    again = FusionClassifier.load_from_checkpoint(
        tmp_path / "last.ckpt", map_location="cpu", weights_only=True
    )
    assert again.hparams == head.hparams
    sources = data.features["test"]
    assert torch.equal(again.predict_logits(sources)[0], head.predict_logits(sources)[0])
    assert Path(keep.best_model_path).is_file()


def test_the_trainer_tests_and_predicts(tmp_path: Path) -> None:
    data, head, trainer = Data(), _head(), _trainer(tmp_path)
    trainer.fit(head, datamodule=data)
    (figures,) = trainer.test(head, datamodule=data, verbose=False)
    batches = trainer.predict(head, datamodule=data)
    assert batches is not None
    probabilities = torch.cat([torch.as_tensor(batch) for batch in batches]).double().numpy()
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    target = data.targets["test"].numpy()
    assert probabilities.shape == (ROWS["test"], CLASSES)
    assert figures["test/accuracy"] == pytest.approx(
        accuracy_score(target, probabilities.argmax(axis=1))
    )
    assert figures["test/log_loss"] == pytest.approx(log_loss(target, probabilities), rel=1e-5)
    assert {"test/macro_f1", "test/calibration_error"} <= set(figures)


def test_lightning_cli_builds_and_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli = pytest.importorskip("lightning.pytorch.cli")
    pytest.importorskip("jsonargparse")
    quiet = ["logger=false", "enable_checkpointing=false", "enable_progress_bar=false"]
    command = [
        "train.py",
        "fit",
        "--seed_everything=0",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        *(f"--trainer.{word}" for word in (*quiet, "enable_model_summary=false")),
        f"--trainer.default_root_dir={tmp_path}",
        "--model.widths=[6,4]",
        "--model.num_classes=3",
        "--model.operator=matmul",
        "--model.width=8",
        "--model.arguments={side: 4}",
        "--data.batch_size=5",
    ]
    monkeypatch.setattr(sys, "argv", command)
    # Lightning calls jsonargparse by names that it is about to retire.
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    run = cli.LightningCLI(FusionClassifier, Data, save_config_callback=None)
    assert run.trainer.global_step == 2 * 10
    assert run.model.hparams["arguments"] == {"side": 4}
    assert run.model.operator.side == 4


def test_arrays_are_taken_as_tensors_are() -> None:
    plain = Data()
    generator = np.random.default_rng(0)
    features = {split: [generator.normal(size=(rows, 3))] for split, rows in ROWS.items()}
    targets = {split: np.arange(rows, dtype=np.int32) % 2 for split, rows in ROWS.items()}
    data = FusionDataModule(features, targets, batch_size=8)
    sources, target = next(iter(data.train_dataloader()))
    assert (sources[0].dtype, target.dtype) == (torch.float32, torch.int64)
    assert len(plain.train_dataloader()) == 7
    assert [len(rows) for _, rows in plain.test_dataloader()] == [30]


def test_a_split_that_is_not_there_is_named() -> None:
    data = Data()
    data.features.pop("test")
    with pytest.raises(UserError, match="no 'test'; there are: train, validation"):
        data.test_dataloader()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"operator": "add"}, "fusion: there is no 'add'; there are: attention"),
        ({"operator": "nowhere:Add"}, "there is no module 'nowhere'"),
        ({"operator": "pathlib:Path"}, "it has to be a subclass of layerfusion.FusionOperator"),
        ({"operator": Widest}, "fusion.scale: Widest needs it and has no default"),
        ({"operator": Widest, "arguments": {"scal": 1.0}}, "of Widest: .*'scal'; there are: scale"),
        ({"width": 0}, "fusion.width=0: it must be at least 1"),
        ({"dropout": 1.0}, r"fusion.dropout=1.0: it must lie in \[0, 1\)"),
        ({"learning_rate": 0.0}, "trainer.learning_rate=0.0: it must be above 0"),
    ],
)
def test_a_wrong_argument_is_one_line(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        _head(**settings)


@pytest.mark.parametrize(
    ("labels", "head", "told"),
    [
        (3, {"num_classes": 3}, "need num_classes=3, multilabel=True"),
        (3, {"num_classes": 4, "multilabel": True}, "need num_classes=3; this head takes"),
        (None, {"num_classes": 2, "multilabel": True}, "need multilabel=False"),
    ],
)
def test_a_head_of_another_kind_than_its_data_is_refused(
    labels: int | None, head: dict[str, Any], told: str
) -> None:
    shapes = {split: (rows, labels) if labels else (rows,) for split, rows in ROWS.items()}
    targets = {split: torch.zeros(shape, dtype=torch.long) for split, shape in shapes.items()}
    features = {split: [torch.randn(rows, 4)] for split, rows in ROWS.items()}
    data = FusionDataModule(features, targets)
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    for run in (trainer.fit, trainer.test):
        with pytest.raises(UserError, match=told):
            run(FusionClassifier(data.widths, **head), data)


def test_a_trainer_may_clip_gradients_in_mixed_precision(tmp_path: Path) -> None:
    data, settings = Data(), {"precision": "bf16-mixed", "accumulate_grad_batches": 2}
    trainer, head = _trainer(tmp_path, gradient_clip_val=0.5, **settings), _head()
    trainer.fit(head, data)
    found = {torch.as_tensor(batch).dtype for batch in trainer.predict(head, data) or ()}
    assert found == {torch.float32}  # numpy has no numbers of 16 bits like these


@pytest.mark.parametrize(
    ("label", "told"),
    [(5, "need num_classes=6; this head has 3 classes, 0 to 2"), (-1, "class -1 is below 0")],
)
def test_a_class_that_the_head_does_not_have_is_named(label: int, told: str) -> None:
    data = Data()
    data.targets["train"][0] = label
    trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
    with pytest.raises(UserError, match=told):
        trainer.fit(FusionClassifier(data.widths, num_classes=3), data)


def test_processes_share_the_figures_of_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASTER_PORT", "")  # put back afterwards, as Lightning chooses one
    del os.environ["MASTER_PORT"]
    head = _head()
    (alone,) = _trainer(tmp_path).validate(head, Data(), verbose=False)
    shared = _trainer(tmp_path, devices=2, strategy="ddp_fork")
    (both,) = shared.validate(head, Data(), verbose=False)  # 20 rows, 10 for each process
    assert both.keys() == alone.keys()
    assert both == pytest.approx(alone, abs=1e-5)


def test_a_step_of_ones_own_may_leave_the_number_of_the_batch_out(tmp_path: Path) -> None:
    class Own(FusionClassifier):
        def training_step(self, batch: Any, batch_idx: int = 0) -> Tensor:
            return super().training_step(batch)

    trainer = _trainer(tmp_path, max_epochs=1)
    trainer.fit(Own(Data().widths, CLASSES, width=8), Data())
    assert trainer.callback_metrics["train/loss"].isfinite()
