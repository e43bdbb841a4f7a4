"""Training one head: early stopping on validation log-loss, the best epoch kept."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger
from torch import Tensor

from layerfusion.config.job import FusionConfig, TrainerConfig
from layerfusion.errors import UserError
from layerfusion.fusion.classifier import FusionClassifier
from layerfusion.fusion.data import FusionData

MONITOR = "val/log_loss"
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@dataclass(frozen=True)
class Fitted:
    """A trained head."""

    classifier: FusionClassifier
    """With the weights of the best epoch."""
    best_epoch: int
    """The epoch with the lowest validation log-loss, counted from 1."""
    epochs: int
    """Epochs trained."""
    seconds: float
    """Wall-clock time of the training, setting up included."""


def fit(
    data: FusionData,
    fusion: FusionConfig,
    trainer: TrainerConfig,
    *,
    num_classes: int,
    seed: int,
    names: Sequence[str] | None = None,
    importance: Sequence[float] | None = None,
    logger: Logger | None = None,
    callbacks: Sequence[Callback] = (),
) -> Fitted:
    """Train one head on train, choosing the epoch on validation; test is never passed on.

    Everything random (weights, dropout, order of the rows) follows from `seed` alone, whatever
    ran in this process before.

    Args:
        data: train and validation; its `seed` is set to this run's.
        fusion: operator, width and dropout.
        trainer: epochs, patience, optimiser and device.
        num_classes: number of classes.
        seed: of this training run.
        names: what each source is called in the log.
        importance: K positive numbers, which operators with gates start from.
        logger: where the epochs' metrics go; nowhere if none.
        callbacks: of Lightning; what they raise ends the training.

    Raises:
        UserError: where the training diverges in its first epoch, or for more than one device.
    """
    if trainer.devices != 1:
        raise UserError(
            f"trainer.devices={trainer.devices}: a head trains on 1 device; run jobs side by side"
        )
    started = time.perf_counter()
    seed_everything(seed, verbose=False)
    data.seed = seed
    classifier = FusionClassifier(
        list(data.widths),
        num_classes,
        asdict(fusion),
        asdict(trainer),
        None if names is None else list(names),
        None if importance is None else list(importance),
    )
    best = BestWeights()
    with _quiet_lightning(), _deterministic():
        loop = Trainer(
            max_epochs=trainer.max_epochs,
            accelerator=trainer.accelerator,
            devices=_devices(trainer),
            deterministic=True,
            callbacks=[
                best,
                EarlyStopping(MONITOR, patience=trainer.patience, mode="min"),
                *callbacks,
            ],
            logger=logger or False,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        loop.fit(classifier, datamodule=data)
    if best.epoch == 0:
        raise UserError(
            f"trainer.learning_rate={trainer.learning_rate}: training diverged in its first "
            "epoch (validation log-loss is not finite); choose a lower one"
        )
    return Fitted(classifier, best.epoch, best.epochs, time.perf_counter() - started)


class BestWeights(Callback):
    """Keeps the weights with the lowest validation log-loss in memory and restores them at the end.

    In memory, since a sweep trains thousands of small heads that need no checkpoint files.

    Attributes:
        epoch: the best epoch, counted from 1; 0 while none had a finite log-loss.
        epochs: epochs validated.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.epochs = 0
        self._lowest = torch.inf
        self._weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the weights where this epoch is the best so far."""
        self.epochs += 1
        log_loss = float(trainer.callback_metrics[MONITOR])
        if log_loss < self._lowest:
            self._lowest, self.epoch = log_loss, self.epochs
            self._weights = {
                name: weight.detach().clone() for name, weight in pl_module.state_dict().items()
            }

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the best weights back."""
        if self._weights:
            pl_module.load_state_dict(self._weights)


def _devices(trainer: TrainerConfig) -> list[int] | int:
    """The GPU that is the current one: Lightning would take the first in every process."""
    if trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return [torch.cuda.current_device()]
    return trainer.devices


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's notes on devices and its tips; its warnings stay but for two."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            # Lightning 2.6 asks torch 2.13 for a name that torch is about to retire.
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec", FutureWarning)
            # Where a head trains is the user's choice, in `trainer.accelerator`.
            warnings.filterwarnings("ignore", "GPU available but not used")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Keep what the Trainer switches on from outliving the fit: other rooms use other kernels."""
    enabled, workspace = torch.are_deterministic_algorithms_enabled(), os.environ.get(_CUBLAS)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled)
        if workspace is None:
            os.environ.pop(_CUBLAS, None)
