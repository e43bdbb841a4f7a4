"""Training one head: early stopping on validation, the best epoch kept; its calibration."""

from __future__ import annotations

import logging
import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from layerfusion.calls import plain_calls
from layerfusion.config.check import check_devices
from layerfusion.config.job import (
    ACCURACY,
    LOG_LOSS,
    MICRO_F1,
    UNWEIGHTED,
    FusionConfig,
    TrainerConfig,
)
from layerfusion.config.rules import RULE, a_seed
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import FusionDataModule, TensorBatches
from layerfusion.fusion.head import classifier_settings
from layerfusion.fusion.objective import (
    Shift,
    find_shift,
    label_shares,
    weights_of,
)
from layerfusion.layers.labels import is_multilabel, log_probabilities
from layerfusion.progress import counted

MONITOR = "val/log_loss"
"""Metric that chooses the epoch unless the objective is another one; lower is better."""
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@dataclass(frozen=True)
class Fitted:
    """A trained head."""

    classifier: FusionClassifier
    """With the weights of the best epoch."""
    best_epoch: int
    """The epoch with the lowest validation log-loss, counted from 1."""
    epochs: int
    """Number of epochs trained."""
    seconds: float
    """Wall-clock time of the training, setting up included."""
    temperature: float | None = None
    """The logits were divided by it; None where none was tried."""
    shift: Shift | None = None
    """What was added to the logits afterwards, to serve the objective."""

    def __repr__(self) -> str:
        return f"Fitted(best of {self.epochs} epochs: {self.best_epoch})"

    @property
    def is_calibrated(self) -> bool:
        """Whether the logits were changed after the training."""
        return self.temperature not in (None, 1.0) or self.shift is not None

    def uncalibrated(self, logits: Tensor) -> Tensor:
        """Return the logits that the head gave before. Shape: (rows, classes), from the same."""
        before = logits if self.shift is None else logits - self.shift.values
        return before * (self.temperature or 1.0)


@plain_calls()
def fit(
    data: FusionDataModule,
    fusion: FusionConfig | None = None,
    trainer: TrainerConfig | None = None,
    *,
    num_classes: int,
    seed: int = 0,
    objective: str = LOG_LOSS,
    class_weights: str = UNWEIGHTED,
    names: Sequence[str] | None = None,
    importance: Sequence[float] | None = None,
    calibrated: bool = True,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
) -> Fitted:
    """Train a head on train until validation gets no better, and keep its best epoch.

    Validation is judged by the objective, and calibrates the probabilities of the head.

    Weights, dropout and the order of the rows follow from `seed` alone. Test is never read. An
    ordinary `Trainer` reaches the same weights before calibration, more slowly: see
    `_EpochClassifier`.

    >>> import torch
    >>> features = {"train": [torch.randn(20, 3)], "validation": [torch.randn(6, 3)]}
    >>> targets = {"train": torch.arange(20) % 2, "validation": torch.arange(6) % 2}
    >>> data = FusionDataModule(features, targets, batch_size=8)
    >>> trainer = TrainerConfig(max_epochs=2)
    >>> fitted = fit(data, FusionConfig("gated", width=4), trainer, num_classes=2)
    >>> fitted.epochs
    2

    Args:
        data: train and validation; its `seed` is set to this run's.
        fusion: operator, width and dropout; `gated` with its defaults if None.
        trainer: epochs, patience, optimiser and device; the defaults if None.
        num_classes: number of classes, or of labels where targets have two dimensions.
        seed: seed of this training run.
        objective: measure that chooses the epoch: log_loss, accuracy, macro_f1 or micro_f1.
        class_weights: none, or balanced: every class has the same weight in the training loss.
        names: names of the sources in the log.
        importance: K positive numbers, for operators whose weights start from them.
        calibrated: whether the logits are divided by a temperature and shifted for the objective,
            where validation gains by it: see `calibrate`.
        logger: gets the metrics of every epoch; None: nothing is logged.
        callbacks: further callbacks of Lightning. An exception in one ends the training.

    Raises:
        UserError: if the training diverges in its first epoch, for more than one device, or for a
            seed that is no whole number of 32 bits.
    """
    fusion, trainer = fusion or FusionConfig(), trainer or TrainerConfig()
    check_devices(trainer)
    a_seed()[RULE].check("seed", seed)
    started = time.perf_counter()
    target = data.targets["train"]
    monitor, mode = monitor_of(objective, target)
    seed_everything(seed, verbose=False)
    data.seed = seed
    classifier = _EpochClassifier(
        data.widths,
        num_classes,
        **classifier_settings(fusion, trainer),
        names=names,
        importance=importance,
        multilabel=is_multilabel(target),
    )
    classifier.operator.class_weights = weights_of(class_weights, target, num_classes)
    keeper = BestWeights(monitor, mode)
    epochs = counted("epochs", trainer.max_epochs)
    with _quiet_lightning(trainer.accelerator), deterministic(), epochs as step:
        loop = Trainer(
            max_epochs=trainer.max_epochs,
            accelerator=trainer.accelerator,
            devices=_devices(trainer),
            deterministic=True,
            callbacks=[
                keeper,
                EarlyStopping(monitor, patience=trainer.patience, mode=mode),
                LambdaCallback(on_validation_end=lambda *_: step()),
                *callbacks,
            ],
            logger=logger or False,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        loop.fit(classifier, _WholeEpochs(data.train_dataloader()), data.val_dataloader())
    plain, best = classifier.ordinary(), keeper.best
    fitted = Fitted(plain, best.epoch, best.epochs, time.perf_counter() - started)
    require_finite(fitted, trainer)
    return calibrate(fitted, data, objective, class_weights) if calibrated else fitted


def monitor_of(objective: str, target: Tensor) -> tuple[str, str]:
    """Return the metric that chooses the epoch, and whether its `min` or its `max` is best."""
    measure = ACCURACY if objective == MICRO_F1 and not is_multilabel(target) else objective
    return f"val/{measure}", "min" if measure == LOG_LOSS else "max"


def require_finite(fitted: Fitted, trainer: TrainerConfig) -> None:
    """Raise a UserError where no epoch of a training had a finite log-loss."""
    if fitted.best_epoch == 0:
        raise UserError(
            f"trainer.learning_rate={trainer.learning_rate}: training diverged in its first "
            "epoch (validation log-loss is not finite); choose a lower one"
        )


def calibrate(
    fitted: Fitted,
    data: FusionDataModule,
    objective: str = LOG_LOSS,
    class_weights: str = UNWEIGHTED,
) -> Fitted:
    """Divide the logits of a trained head by a temperature, and shift them to serve the objective.

    Both are learned from validation, and go into the weights of the head's last layers. A head of
    an operator whose last layers are not known stays as it is, and so does one that was trained
    with class weights: its probabilities are not to fit the frequencies of validation.

    Args:
        fitted: the head, which is changed in place.
        data: validation, and the classes of train.
        objective: what the head should be best at: log_loss, accuracy, macro_f1 or micro_f1.
        class_weights: those of the training.
    """
    head = fitted.classifier
    if class_weights != UNWEIGHTED or not head.output_layers:
        return fitted
    temperature = head.calibrate(data)
    logits, _ = head.predict_logits(data.features["validation"])
    log_probs = log_probabilities(logits.double(), multilabel=head.multilabel)
    prior = label_shares(data.targets["train"], logits.shape[1])
    target = data.targets["validation"]
    shift = find_shift(objective, UNWEIGHTED, log_probs, target, prior, data.text_of)
    if shift is not None:
        head.rescale(1.0, shift.values)
    return replace(fitted, temperature=temperature, shift=shift)


class _WholeEpochs:
    """Hands Lightning an epoch as one item, for `_EpochClassifier`."""

    def __init__(self, batches: TensorBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        """Return 1: Lightning sees a single item."""
        return 1

    def __iter__(self) -> Iterator[TensorBatches]:
        """Give the batches of one epoch, whose order is not drawn yet."""
        yield self.batches


class _EpochClassifier(FusionClassifier):
    """Trains a whole epoch in one `training_step`, to the same weights as its base class.

    What Lightning does around a step takes twice as long as the step of a small head.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Take a step of the optimiser for each batch of an epoch."""
        epoch: TensorBatches = batch
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        total = torch.zeros((), device=self.device)
        for sources, target in epoch:
            loss = self.loss(([x.to(self.device) for x in sources], target.to(self.device)))
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            total += loss.detach() * len(target)
        mean = total / len(epoch.target)
        self.log("train/loss", mean, on_step=False, on_epoch=True, batch_size=1)

    def ordinary(self) -> FusionClassifier:
        """Return the same trained head as its base class, which any `Trainer` can go on with."""
        head = FusionClassifier(**self.hparams)
        head.load_state_dict(self.state_dict())
        head.gate_epochs = self.gate_epochs
        return head.to(self.device)


class BestEpoch:
    """Keeps the weights of the epoch that is best on validation, in memory.

    A sweep trains thousands of small heads that need no checkpoint files.

    Args:
        mode: min if lower is better, or max.

    Attributes:
        epoch: the best epoch, counted from 1; 0 while no epoch has had a finite log-loss.
        epochs: number of epochs validated.
        waited: number of epochs since the metric that chooses was last better, as Lightning's
            `EarlyStopping` counts them.
    """

    def __init__(self, mode: str = "min") -> None:
        self.sign = 1 if mode == "min" else -1
        self.epoch = 0
        self.epochs = 0
        self.waited = 0
        self._lowest = math.inf
        self._lowest_kept = math.inf
        self._weights: dict[str, Tensor] = {}

    def judge(self, value: float, log_loss: float, module: nn.Module) -> None:
        """Copy the weights if the epoch that has ended is the best so far.

        Args:
            value: the metric that chooses the epoch.
            log_loss: of validation; an epoch where it is not finite is never the best.
            module: the head.
        """
        self.epochs += 1
        self.waited += 1
        value *= self.sign
        if value < self._lowest:
            self._lowest, self.waited = value, 0
        if math.isfinite(log_loss) and value < self._lowest_kept:
            self._lowest_kept, self.epoch = value, self.epochs
            self._weights = {name: x.detach().clone() for name, x in module.state_dict().items()}

    def restore(self, module: nn.Module) -> None:
        """Put the best weights back, and keep them no longer."""
        if self._weights:
            module.load_state_dict(self._weights)
            self._weights = {}


class BestWeights(Callback):
    """Lets `BestEpoch` judge every validation of a Trainer, and restores the weights at the end.

    Args:
        monitor: metric that chooses the epoch.
        mode: min if lower is better, or max.

    Attributes:
        best: the best epoch so far.
    """

    def __init__(self, monitor: str = MONITOR, mode: str = "min") -> None:
        self.monitor = monitor
        self.best = BestEpoch(mode)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights if this epoch is the best so far."""
        metrics = trainer.callback_metrics
        self.best.judge(float(metrics[self.monitor]), float(metrics[MONITOR]), pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the best weights back."""
        self.best.restore(pl_module)


def device_of(trainer: TrainerConfig) -> torch.device | None:
    """Return the device of a training, as far as it is a CPU or a GPU of CUDA; None elsewhere."""
    if trainer.accelerator == "cpu":
        return torch.device("cpu")
    if trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return None


def _devices(trainer: TrainerConfig) -> list[int] | int:
    """Return the current GPU, since Lightning would take the first one in every process."""
    if trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return [torch.cuda.current_device()]
    return trainer.devices


@contextmanager
def _quiet_lightning(accelerator: str) -> Iterator[None]:
    """Silence Lightning's notes on devices, its tips, and two warnings that tell nothing here."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch 2.13 for a name that torch is about to retire.
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec", FutureWarning)
            if accelerator == "cpu":  # by choice: small heads are fastest there
                warnings.filterwarnings("ignore", "(GPU|MPS) available but not used")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def deterministic() -> Iterator[None]:
    """Compute inside the block what repeats to the bit; nothing stays switched on."""
    enabled, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get(_CUBLAS)
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    settings: Any = torch.utils.deterministic
    filled = settings.fill_uninitialized_memory
    try:
        os.environ.setdefault(_CUBLAS, ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Every tensor would be filled before it is written, an eighth of the time.
        settings.fill_uninitialized_memory = False
        yield
    finally:
        settings.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        if workspace is None:
            os.environ.pop(_CUBLAS, None)
